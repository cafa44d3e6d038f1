# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is not to change does not; several clusters; stop and start."""

from __future__ import annotations

import datetime
import json
import ssl

import pytest
from account import NOTEBOOK_PORT, Account
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

SITE = ".venv/bin/ansible-playbook playbooks/site.yml -i inventory/local"


def test_up_again_restarts_nothing_and_remembers_the_ports(account: Account) -> None:
    before = account.processes()
    assert {"controller", "engines-default-0", "notebook"} <= before.keys()
    said = account.ok("make up")
    assert "changed=0 " in said
    assert f"https://127.0.0.1:{NOTEBOOK_PORT}/lab" in said
    assert account.processes() == before


def test_check_of_a_finished_cluster_finds_nothing_to_change(account: Account) -> None:
    said = account.ok(f"{SITE} --check --diff")
    assert "changed=0 " in said


def test_example_notebooks_are_their_users(account: Account) -> None:
    """A newer version of the collection changes what is as it was laid down, and nothing else; the Lab runs on."""
    before = account.processes()
    directory, newer = account.home / "notebooks/examples", account.home / "cluster/roles/notebook/files/examples"
    names = "Welcome.ipynb", "Monte Carlo.ipynb", "Prime numbers.ipynb"
    changed, removed, untouched = (directory / name for name in names)
    laid_down = {name: (newer / name).read_text() for name in names}
    changed.write_text("mine")
    removed.unlink()
    try:
        for name in names:
            (newer / name).write_text(laid_down[name] + "\n")
        account.ok("make up")
        assert untouched.read_text() == laid_down[untouched.name] + "\n"
        assert changed.read_text() == "mine"
        assert not removed.exists()
        assert "changed=0 " in account.ok("make up")
        assert account.processes() == before
    finally:
        for name in names:
            (newer / name).write_text(laid_down[name])
    account.ok("make up")
    assert untouched.read_text() == laid_down[untouched.name]
    account.ok("cp roles/notebook/files/examples/* ~/notebooks/examples/")


@pytest.mark.parametrize(("days", "renewed"), [(200, False), (10, True)])
def test_a_certificate_that_is_about_to_end_is_renewed(account: Account, days: int, renewed: bool) -> None:
    file, key_file = account.state / "notebook/certificate.pem", account.state / "notebook/key.pem"
    key = serialization.load_pem_private_key(key_file.read_bytes(), None)
    first = x509.load_pem_x509_certificate(file.read_bytes())
    end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)
    builder = x509.CertificateBuilder(
        first.issuer, first.subject, key.public_key(), 1, first.not_valid_before_utc, end, list(first.extensions)
    )
    older = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
    file.write_text(older)
    assert "changed=0 " not in account.ok(f"{SITE} --check --diff")
    assert file.read_text() == older
    account.ok("make up")
    assert (file.read_text() != older) == renewed
    found = x509.load_pem_x509_certificate(file.read_bytes())
    assert (found.not_valid_after_utc > first.not_valid_before_utc + datetime.timedelta(days=800)) == renewed
    assert found.public_key() == first.public_key(), "the key is kept"
    served = ssl.get_server_certificate(("127.0.0.1", NOTEBOOK_PORT))
    assert served.split() == file.read_text().split(), "the notebook was started again with it"
    assert "changed=0 " in account.ok("make up")


def test_growing_restarts_nothing_that_runs(account: Account) -> None:
    before = account.processes()
    status = account.status()
    more = len(status["engines"]) + 1
    account.ok(f"make up ARGS='-e ipyparallel_engines_per_host={more}'")
    assert before.items() <= account.processes().items()
    assert len(account.status()["engines"]) == more
    account.ok("make up")
    assert account.processes() == before
    assert len(account.status()["engines"]) == more - 1


def test_no_engines_are_a_cluster_too(account: Account) -> None:
    account.ok("make up ARGS='-e ipyparallel_engines_per_host=0'")
    status = account.status()
    assert status["running"]
    assert status["engines"] == []
    assert not status["problem"]
    account.ok("make up")
    assert account.status()["engines"]


def test_the_hub_is_an_inventory(account: Account) -> None:
    inventory = ".venv/bin/ansible-inventory -i inventory/local -i inventory/hub --list"
    found = json.loads(account.ok(inventory))
    engines = account.status()["engines"]
    groups = [name for name, group in found.items() if group.get("hosts") == ["localhost"]]
    assert {"ipyparallel_controller", "ipyparallel_engines", "ipyparallel_pool_default"} <= set(groups)
    variables = found["_meta"]["hostvars"]["localhost"]
    assert variables["ansible_connection"] == "local", "it merges"
    assert variables["ipyparallel_engine_ids"] == [engine["id"] for engine in engines]
    assert [engine["pid"] for engine in variables["ipyparallel_engines"]] == [engine["pid"] for engine in engines]
    account.python(
        "import time, ipyparallel as p; c = p.Client(profile='ipyparallel'); c[:].apply_async(time.sleep, 15)\n"
        "while not c.queue_status(c.ids[0])['queue']: pass"
    )
    assert "busy" in json.loads(account.ok(inventory)), "busy engines do not delay it"
    account.python("import ipyparallel as p; c = p.Client(profile='ipyparallel'); c[:].apply_sync(int)")


def test_down_ends_everything_and_start_brings_it_back(account: Account) -> None:
    code = "import subprocess, ipyparallel as p; c = p.Client(profile='ipyparallel')"
    account.python(
        f'{code}; c[:].execute(\'import subprocess; child = subprocess.Popen(["sleep", "600"])\', block=True)'
    )
    account.ok("make down")
    assert account.marked(cluster="ipyparallel") == {}
    status = account.status()
    assert status["deployed"]
    assert not status["running"]
    assert "the hub is down: nobody listens at 127.0.0.1:" in status["problem"]
    assert status["hosts"]["localhost"]["reachable"]
    away = account.run(".venv/bin/ansible-inventory -i inventory/hub --list")
    assert away.returncode
    assert "nothing listens there: is the cluster started" in " ".join(away.stderr.split())
    assert "changed=0 " in account.ok("make down")
    account.ok("make start")
    assert account.status()["engines"]
    assert "changed=0 " in account.ok("make up")


def test_a_second_cluster_beside_the_first(account: Account) -> None:
    before = account.processes()
    other = "make {} CLUSTER=second PORT_BASE=21200 NOTEBOOK_PORT=21889"
    account.ok(other.format("up"))
    assert account.processes("second").keys() == before.keys()
    code = "import ipyparallel as p; print([len(p.Client(profile=n).ids) for n in ('ipyparallel', 'second')])"
    engines = len(account.status()["engines"])
    assert account.python(code) == str([engines, engines])
    refused = account.refused("site", "-e", "cluster=third", "-e", "ipyparallel_controller_port_base=21205")
    assert "belongs to cluster second" in refused
    assert "ipyparallel_controller_port_base" in refused
    account.ok("make destroy CLUSTER=second")
    assert account.marked(cluster="second") == {}
    assert account.files_of("second") == []
    assert account.processes() == before
    assert account.status()["running"]


def test_a_supervisor_that_was_killed_leaves_no_second_controller(account: Account) -> None:
    pid = int((account.state / "run/supervisord.pid").read_text())
    account.ok(f"kill -KILL {pid}")
    account.ok("make up")
    assert account.status()["engines"]
    found = account.marked(process="controller")
    mains = [pid for pid, parent in found.items() if parent not in found]
    assert len(mains) == 1

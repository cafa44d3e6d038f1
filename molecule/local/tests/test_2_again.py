# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is not to change does not; several clusters; stop and start."""

from __future__ import annotations

import datetime
import json
import ssl
import stat

import pytest
from account import NOTEBOOK_PORT, Account
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

LOGIN = f"https://127.0.0.1:{NOTEBOOK_PORT}/login"
SITE = ".venv/bin/ansible-playbook playbooks/site.yml -i inventory/local"


def served() -> str:
    """Return the certificate that browsers see."""
    return ssl.get_server_certificate(("127.0.0.1", NOTEBOOK_PORT))


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
    file, authority = account.state / "notebook/certificate.pem", account.state / "authority.pem"
    signer = serialization.load_pem_private_key((account.state / "authority.key.pem").read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    before = authority.read_text()
    first = x509.load_pem_x509_certificate(file.read_bytes())
    end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days)
    builder = x509.CertificateBuilder(
        first.issuer, first.subject, first.public_key(), 1, first.not_valid_before_utc, end, list(first.extensions)
    )
    older = builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
    file.write_text(older)
    assert "changed=0 " not in account.ok(f"{SITE} --check --diff")
    assert file.read_text() == older
    account.ok("make up")
    assert (file.read_text() != older) == renewed
    found = x509.load_pem_x509_certificate(file.read_bytes())
    assert (found.not_valid_after_utc > first.not_valid_before_utc + datetime.timedelta(days=800)) == renewed
    assert found.public_key() == first.public_key(), "the key is kept"
    assert authority.read_text() == before, "and so is the authority"
    assert served().split() == file.read_text().split(), "the notebook was started again with it"
    assert "changed=0 " in account.ok("make up")


def test_another_authority_signs_another_certificate(account: Account) -> None:
    """As does the first one where the certificate signed itself, which those of earlier versions did."""
    ours, place = account.connector.with_name("authority.pem"), account.state / "notebook"
    before = (ours.read_text(), (place / "certificate.pem").read_text(), (place / "key.pem").read_text())
    (account.state / "authority.key.pem").unlink()
    (account.state / "authority.pem").unlink()
    account.ok("make up")
    after = (ours.read_text(), (place / "certificate.pem").read_text(), (place / "key.pem").read_text())
    assert [old for old, new in zip(before, after, strict=True) if old == new] == []
    account.ok(f"curl --silent --fail --cacert {ours} {LOGIN}")
    assert "changed=0 " in account.ok("make up")


def test_a_certificate_of_ones_own_and_back(account: Account) -> None:
    place, own = account.state / "notebook", account.home / "own"
    account.ok("mkdir -p ~/own; echo a-password >~/own/password")
    request = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 99 -subj /CN=own"
    account.ok(f"{request} -addext subjectAltName=DNS:localhost -keyout ~/own/key.pem -out ~/own/certificate.pem")
    key = (own / "key.pem").read_text()
    account.ok(".venv/bin/ansible-vault encrypt --vault-password-file ~/own/password ~/own/key.pem")
    variables = "-e ipyparallel_notebook_certificate=~/own/certificate.pem -e ipyparallel_notebook_key=~/own/key.pem"
    given = f"{SITE} --vault-password-file ~/own/password {variables}"
    running = account.processes()
    assert "vault" in account.refused("site", *variables.split()), "without its password"
    assert "changed=0 " not in account.ok(f"{given} --check --diff")
    assert account.processes() == running
    said = account.ok(f"{given} -vvv --diff")
    assert key.splitlines()[1] not in said
    assert "--cacert" not in said
    assert (place / "key.pem").read_text() == key
    assert [stat.S_IMODE((place / f"{name}.pem").stat().st_mode) for name in ("key", "certificate")] == [0o600, 0o600]
    assert served().split() == (own / "certificate.pem").read_text().split()
    again = account.processes()
    assert {name for name in running if running[name] != again[name]} == {"notebook"}
    assert "changed=0 " in account.ok(given)
    account.ok("make up")
    assert (place / "key.pem").read_text() != key, "it went with its certificate"
    account.ok(f"curl --silent --fail --cacert {account.connector.with_name('authority.pem')} {LOGIN}")
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

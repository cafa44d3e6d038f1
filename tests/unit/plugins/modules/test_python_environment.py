# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Environments made by the real uv, from wheels of this test: no network is needed, and none is used."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
import zipfile

import pytest
import uv
from ansible_collections.ipyparallel.cluster.plugins.module_utils.environment import LOCK, RECORD
from ansible_collections.ipyparallel.cluster.plugins.modules import python_environment


class Host:
    def __init__(self, directory, run_module):
        self.directory = directory
        self.prefix = directory / "prefix"
        self.run_module = run_module
        self.lock = self.locked("ipyparallel", "9.2.0")

    def wheel(self, name, version):
        """Make a wheel with one module, and return its path."""
        path = self.directory / f"{name}-{version}-py3-none-any.whl"
        if not path.exists():
            info = f"{name}-{version}.dist-info"
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr(f"{name}.py", f"version = {version!r}\n")
                archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
                archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
                archive.writestr(f"{info}/RECORD", "")
        return path

    def requirement(self, name, version):
        return f"{name} @ file://{self.wheel(name, version)}"

    def locked(self, name, version):
        digest = hashlib.sha256(self.wheel(name, version).read_bytes()).hexdigest()
        return f"{self.requirement(name, version)} --hash=sha256:{digest}\n"

    def make(self, **arguments):
        arguments = {"lock": self.lock, "uv": uv.find_uv_bin(), "python": sys.executable, **arguments}
        return self.run_module(python_environment, prefix=str(self.prefix), **arguments)

    def install(self, *packages, state="installed", **arguments):
        arguments = {"uv": uv.find_uv_bin(), "packages": list(packages), **arguments}
        return self.run_module(python_environment, prefix=str(self.prefix), state=state, **arguments)

    def prune(self, **arguments):
        return self.run_module(python_environment, prefix=str(self.prefix), state="pruned", **arguments)

    def environments(self):
        return sorted(os.listdir(self.prefix / "env")) if (self.prefix / "env").exists() else []

    def installed(self, environment="current"):
        """Return the versions of what can be imported there."""
        (packages,) = (self.prefix / environment).glob("lib/python*/site-packages")
        return {found.name: found.version for found in importlib.metadata.distributions(path=[str(packages)])}


@pytest.fixture
def host(tmp_path, run_module, monkeypatch):
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    return Host(tmp_path, run_module)


# ---- in fours


def in_turns(function, *packages, **arguments):
    """Return what the action prints, and the result."""
    first = function(*packages, turn=8, **arguments)
    if "resume" not in first:
        return "", first
    assert not first["changed"]
    return first["progress"], function(*packages, turn=8, resume=first["resume"], **arguments)


def test_what_takes_long_is_said_before_it_begins(host):
    assert host.make(check=True, turn=8)["changed"]
    extra = [host.requirement("demo", "1.0")]
    said, result = in_turns(host.make, packages=extra)
    assert said == "making the Python environment (1 package in its lock, 1 more)"
    assert result["changed"]
    assert host.installed() == {"ipyparallel": "9.2.0", "demo": "1.0"}
    said, result = in_turns(host.make, packages=extra)
    assert (said, result["changed"]) == ("", False)
    more = [host.requirement("other", "1.0")]
    assert in_turns(host.make, packages=more)[0] == "installing 1 package into the Python environment"
    said, result = in_turns(host.install, host.requirement("third", "1.0"))
    assert said == "installing 1 package into the Python environment"
    assert result["changed"]
    assert "third" in host.installed()
    assert in_turns(host.install, host.requirement("third", "1.0"), state="resolved")[0] == ""


def test_fours(host):
    result = host.make(check=True, diff=True)
    assert result["changed"]
    assert result["versions"] == {}
    assert result["diff"]["before"] == {"environment": "", "packages": []}
    assert not host.prefix.exists()

    path = result["path"]
    result = host.make(diff=True)
    assert result["changed"]
    assert result["path"] == path == os.path.realpath(host.prefix / "current")
    assert result["diff"]["after"] == {"environment": path, "packages": []}
    assert result["versions"] == {"python": platform.python_version(), "ipyparallel": "9.2.0"}
    assert host.installed() == {"ipyparallel": "9.2.0"}
    inode = os.stat(path).st_ino

    for check in (True, False):
        result = host.make(check=check, diff=True)
        assert not result["changed"]
        assert result["diff"]["before"] == result["diff"]["after"]
        assert result["versions"]["ipyparallel"] == "9.2.0"
    assert os.stat(path).st_ino == inode


def test_fours_of_extra_packages(host):
    path = host.make()["path"]
    packages = [host.requirement("demo", "1.0")]
    assert host.make(check=True, packages=packages)["changed"]
    assert "demo" not in host.installed()

    result = host.make(packages=packages)
    assert result["changed"]
    assert result["path"] == path
    assert host.installed() == {"ipyparallel": "9.2.0", "demo": "1.0"}
    # what was installed and is not listed any more stays
    for arguments in ({"packages": packages}, {}):
        for check in (True, False):
            assert not host.make(check=check, **arguments)["changed"]
    assert "demo" in host.installed()


def test_fours_of_another_lock(host):
    packages = [host.requirement("demo", "1.0")]
    old = host.make(packages=packages)["path"]
    lock = host.locked("ipyparallel", "9.3.0")
    result = host.make(check=True, lock=lock)
    assert result["changed"]
    new = result["path"]
    assert new != old
    assert os.path.realpath(host.prefix / "current") == old

    assert host.make(lock=lock)["path"] == new
    # what was added by hand is there too, and the old one is as it was
    assert host.installed() == {"ipyparallel": "9.3.0", "demo": "1.0"}
    assert host.installed(f"env/{os.path.basename(old)}") == {"ipyparallel": "9.2.0", "demo": "1.0"}
    for check in (True, False):
        assert not host.make(check=check, lock=lock)["changed"]

    # and back: it is still there
    assert host.make()["path"] == old
    assert host.installed()["ipyparallel"] == "9.2.0"


def test_fours_of_pruning(host, python):
    old = host.make()["path"]
    new = host.make(lock=host.locked("ipyparallel", "9.3.0"))["path"]
    child = python(program=f"{old}/bin/python")
    assert not host.prune()["changed"]
    child.kill()
    child.wait()

    assert host.prune(check=True)["removed"] == [old]
    assert os.path.exists(old)
    result = host.prune()
    assert (result["changed"], result["removed"], result["path"]) == (True, [old], new)
    assert result["versions"]["ipyparallel"] == "9.3.0"
    assert host.environments() == [os.path.basename(new)]
    for check in (True, False):
        result = host.prune(check=check)
        assert (result["changed"], result["removed"]) == (False, [])


def test_fours_of_packages_for_the_environment_in_use(host):
    path = host.make()["path"]
    demo = host.requirement("demo", "1.0")
    for state, check in (("resolved", False), ("resolved", True), ("installed", True)):
        result = host.install(demo, state=state, check=check, diff=True)
        assert (result["changed"], result["due"]) == (state == "installed", True)
        # of what is not from an index, uv tells the version afterwards
        assert (result["changes"], result["recorded"], result["path"]) == (["+ demo"], [demo], path)
        assert host.installed() == {"ipyparallel": "9.2.0"}
    assert result["diff"]["after"] == {"packages": [demo], "installed": ["demo"]}

    result = host.install(demo)
    assert (result["changed"], result["changes"]) == (True, ["+ demo==1.0"])
    assert host.installed() == {"ipyparallel": "9.2.0", "demo": "1.0"}
    for state in ("resolved", "installed"):
        for check in (True, False):
            result = host.install(demo, state=state, check=check)
            assert (result["changed"], result["due"], result["changes"]) == (False, False, [])
    # for those who deploy it is nothing new, whether they know of it or not
    for packages in ([], [demo]):
        assert not host.make(packages=packages)["changed"]


def test_another_version_takes_the_place_of_what_is_recorded(host):
    host.make(packages=[host.requirement("demo", "1.0")])
    result = host.install(host.requirement("demo", "2.0"))
    assert result["changes"] == ["- demo==1.0", "+ demo==2.0"]
    assert host.make(check=True, diff=True)["diff"]["after"]["packages"] == [host.requirement("demo", "2.0")]
    # and goes on to the successor, which both could not
    host.make(lock=host.locked("ipyparallel", "9.3.0"))
    assert host.installed() == {"ipyparallel": "9.3.0", "demo": "2.0"}


def test_packages_from_a_place_that_a_flag_names_are_not_recorded(host):
    host.make()
    host.wheel("demo", "1.0")
    flags = ["--no-index", "--find-links", str(host.directory)]
    for check in (True, False):
        result = host.install("demo", flags=flags, check=check)
        assert (result["changed"], result["changes"], result["recorded"]) == (True, ["+ demo==1.0"], [])
    assert host.installed() == {"ipyparallel": "9.2.0", "demo": "1.0"}
    assert not host.install("demo", flags=flags)["changed"]
    host.make(lock=host.locked("ipyparallel", "9.3.0"))
    assert host.installed() == {"ipyparallel": "9.3.0"}


def test_flags_upgrade(host):
    host.make()
    links = ["--no-index", "-f", str(host.directory)]
    host.wheel("demo", "1.0")
    host.install("demo", flags=links)
    host.wheel("demo", "2.0")
    assert not host.install("demo", flags=links)["changed"]
    assert host.install("demo", flags=[*links, "--upgrade"])["changes"] == ["- demo==1.0", "+ demo==2.0"]
    assert not host.install("demo", flags=[*links, "--upgrade"])["changed"]


def test_secrets_in_flags_are_in_no_answer_and_no_argument(host, monkeypatch):
    host.make()
    seen = []
    run = subprocess.run

    def spy(command, check, **options):
        seen.append(command)
        return run(command, check=check, **options)

    monkeypatch.setattr(subprocess, "run", spy)
    result = host.install("demo", flags=["--index-url=https://ada:hunter22@127.0.0.1:1/simple", "--upgrade"])
    assert result["failed"]
    assert "hunter22" not in result.text
    assert "hunter22" not in str(seen)
    assert "--upgrade" in str(seen)


def test_secrets_in_packages_are_recorded_for_the_installer_alone_and_in_no_answer_or_log(host, monkeypatch):
    logged = []
    monkeypatch.setattr(python_environment.Module, "log", lambda _self, msg, **_arguments: logged.append(msg))
    packages = [host.requirement("demo", "1.0"), "--extra-index-url https://ada:hunter22@127.0.0.1:1/simple"]
    results = [host.make(packages=packages, diff=True)]
    path = results[0]["path"]
    for name in (RECORD, LOCK):
        assert os.stat(os.path.join(path, name)).st_mode & 0o777 == 0o600
    # they are what they were, or others, and a new environment needs them
    for given, changed in ((packages, False), ([], False), ([packages[0], packages[1].replace("22", "33")], True)):
        results.append(host.make(packages=given, diff=True, check=True))
        assert results[-1]["changed"] == changed
    results.append(host.make(lock=host.locked("ipyparallel", "9.3.0"), diff=True))
    assert host.installed()["demo"] == "1.0"
    assert logged
    assert [text for text in [*logged, *(result.text for result in results)] if "hunter" in str(text)] == []


@pytest.mark.parametrize("state", ["resolved", "installed"])
@pytest.mark.parametrize(
    ("packages", "flags", "names"),
    [
        ([], [], ["nothing to install"]),
        (["demo"], ["--target=/x"], ["--target is not taken"]),
        (["no-such-package"], [], ["'no-such-package'", "UV_OFFLINE"]),
        (["ipyparallel==8.0"], [], ["ipyparallel==8.0"]),
    ],
)
def test_what_cannot_be_installed_changes_nothing(host, state, packages, flags, names):
    path = host.make()["path"]
    result = host.install(*packages, flags=flags, state=state)
    assert result["failed"]
    assert [part for part in [*names, f"below {host.prefix} is as it was"] if part not in result["msg"]] == []
    assert host.installed() == {"ipyparallel": "9.2.0"}
    assert not host.make()["changed"]
    assert os.path.realpath(host.prefix / "current") == path


def test_packages_need_an_environment(host):
    for state in ("resolved", "installed"):
        assert "ipyparallel.cluster.deploy" in host.install("demo", state=state)["msg"]
        result = host.install("demo", state=state, check=True)
        assert (result["due"], result["changed"]) == (True, state == "installed")
    assert not host.prefix.exists()


def test_an_environment_that_does_not_tell_its_lock_learns_it_by_a_deployment(host):
    path = host.make()["path"]
    os.unlink(os.path.join(path, LOCK))
    assert "does not tell its lock" in host.install(host.requirement("demo", "1.0"))["msg"]
    host.make()
    assert host.install(host.requirement("demo", "1.0"))["changed"]


def test_there_may_be_nothing_to_prune(host):
    result = host.prune()
    assert (result["changed"], result["removed"], result["path"]) == (False, [], "")


# ---- interruptions


def test_what_is_left_of_an_interrupted_attempt_is_made_anew(host):
    path = host.make(check=True)["path"]
    os.makedirs(f"{path}/bin")
    with open(f"{path}/bin/python", "w") as stream:
        stream.write("half a file")
    assert host.make()["changed"]
    assert host.installed() == {"ipyparallel": "9.2.0"}


def test_an_environment_that_was_never_switched_to_is_switched_to(host):
    path = host.make()["path"]
    os.unlink(host.prefix / "current")
    inode = os.stat(path).st_ino
    assert host.make(check=True)["changed"]
    assert host.make()["changed"]
    assert os.stat(path).st_ino == inode
    assert os.path.realpath(host.prefix / "current") == path


def test_an_environment_without_its_record_was_not_finished(host):
    path = host.make()["path"]
    os.unlink(os.path.join(path, RECORD))
    assert host.make(check=True)["changed"]
    assert host.make()["changed"]
    assert not host.make()["changed"]


# ---- failures leave what there was


@pytest.mark.parametrize(
    ("package", "names"),
    [
        ("no-such-package", ["'no-such-package'", "UV_OFFLINE", "ipyparallel_install_environment"]),
        ("six>>1", ["six>>1"]),
        ("demo @ file:///nowhere/demo-1.0-py3-none-any.whl", ["/nowhere/demo-1.0-py3-none-any.whl"]),
    ],
)
def test_a_package_that_cannot_be_had_is_named_and_the_environment_stays(host, package, names):
    path = host.make()["path"]
    result = host.make(packages=[package, host.requirement("demo", "1.0")])
    assert result["failed"]
    assert [part for part in [*names, f"below {host.prefix} is as it was"] if part not in result["msg"]] == []
    assert host.installed() == {"ipyparallel": "9.2.0"}
    assert os.path.realpath(host.prefix / "current") == path
    assert not host.make()["changed"]


def test_an_extra_package_never_changes_what_the_cluster_needs(host):
    host.make()
    result = host.make(packages=[host.requirement("ipyparallel", "8.0")])
    assert result["failed"]
    assert "ipyparallel" in result["msg"]
    assert host.installed() == {"ipyparallel": "9.2.0"}


def test_a_wheel_that_is_not_what_the_lock_says_leaves_nothing(host):
    old = host.make()["path"]
    result = host.make(lock=f"{host.requirement('ipyparallel', '9.3.0')} --hash=sha256:{'0' * 64}\n")
    assert result["failed"]
    assert "Hash mismatch" in result["msg"]
    assert host.environments() == [os.path.basename(old)]
    assert os.path.realpath(host.prefix / "current") == old


def test_an_interpreter_that_is_none_is_named(host):
    result = host.make(python="/nowhere/python3")
    assert result["failed"]
    for part in ("/nowhere/python3", "ipyparallel_python", "3.10 to 3.13"):
        assert part in result["msg"]
    assert not host.prefix.exists()


def test_a_uv_that_is_none_is_named(host):
    result = host.make(uv="/nowhere/uv")
    assert result["failed"]
    assert "/nowhere/uv" in result["msg"]
    assert host.environments() == []


def test_a_file_in_the_place_of_the_prefix_is_named(host):
    host.prefix.write_text("mine")
    result = host.make()
    assert result["failed"]
    assert str(host.prefix) in result["msg"]
    assert host.prefix.read_text() == "mine"


def test_a_lock_is_required(host):
    result = host.run_module(python_environment, prefix=str(host.prefix))
    assert result["failed"]
    assert "lock" in result["msg"]


def test_an_environment_can_be_moved_to_by_a_name_of_the_interpreter(host, monkeypatch):
    """The default, python3, is looked up on PATH."""
    programs = host.directory / "programs"
    programs.mkdir()
    (programs / "python3").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    assert host.make(python="python3", check=True)["path"] == host.make(check=True)["path"]

# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The IPython profile of a cluster: a directory in which IPython, ipyparallel and Jupyter find its connector."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
from collections.abc import Mapping

from ansible_collections.ipyparallel.cluster.plugins.module_utils.certificates import AUTHORITY_FILE
from ansible_collections.ipyparallel.cluster.plugins.module_utils.files import read_text, write_text
from ansible_collections.ipyparallel.cluster.plugins.module_utils.tunnel import TUNNEL_FILE

MARK = "ipyparallel-cluster"
"""In a profile of ours: whether the collection made the directory, and so removes it whole, or found it."""
AUTHORITY = os.path.join("security", AUTHORITY_FILE)
"""The certificate of the cluster's authority, for browsers and curl."""
STARTUP = '''\
# Managed by Ansible (collection ipyparallel.cluster): changes are overwritten.
"""Defines ipclient and ipview, as StarCluster's shell did; an absent cluster leaves IPython usable."""


def _connect():
    import json
    import socket
    from pathlib import Path

    connector = Path(__file__).resolve().parent.parent / "security" / "ipcontroller-client.json"
    try:
        half = json.loads(connector.read_text())
        # a hub that is away, or a tunnel that has ended, is known sooner so than by a client
        with socket.create_connection((half["location"], half["registration"]), timeout=3):
            pass
        import ipyparallel

        client = ipyparallel.Client(str(connector), timeout=10)
    except Exception as error:
        print(
            f"cluster CLUSTER cannot be reached ({type(error).__name__}: {error}): ipclient and ipview are None; look "
            "at its status, and connect again (playbooks ipyparallel.cluster.status and connect)"
        )
        return None, None
    # the view takes in engines that come later
    return client, client.direct_view("all")


ipclient, ipview = _connect()
del _connect
'''


def ipython_directory(environ: Mapping[str, str]) -> str:
    """Return IPython's directory: ``IPYTHONDIR``, else ``~/.ipython``."""
    return os.path.abspath(os.path.expanduser(environ.get("IPYTHONDIR") or "~/.ipython"))


def client_half_of(cluster: str, directory: str) -> str:
    """Return the path of the client half in the profile of *cluster*.

    Args:
        cluster: its name.
        directory: IPython's, with its profiles.
    """
    return os.path.join(directory, f"profile_{cluster}", "security", "ipcontroller-client.json")


def profile_files(cluster: str, client_half: str, directory: str, authority: str = "") -> dict[str, str]:
    """Return the files of the profile: path below *directory* to content.

    Args:
        cluster: its name.
        client_half: the exact text of the client half.
        directory: the profile.
        authority: the certificate of the cluster's authority, empty where there is none.
    """
    files = {
        MARK: read_text(os.path.join(directory, MARK)) or ("found\n" if os.path.isdir(directory) else "made\n"),
        os.path.join("security", "ipcontroller-client.json"): client_half,
        os.path.join("startup", "00-ipyparallel-cluster.py"): STARTUP.replace("CLUSTER", cluster),
    }
    return {**files, AUTHORITY: authority} if authority else files


def version_differences(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    """Return what differs between the operator's and the cluster's versions in a way that breaks or may break.

    Client and engines must have the same minor version of Python, and the same major version of ipyparallel; any
    difference of ipyparallel is told.
    """
    found = []

    def minor(version: str) -> str:
        return ".".join(version.split(".")[:2])

    if theirs.get("python") and minor(ours["python"]) != minor(theirs["python"]):
        found.append(
            f"your Python is {ours['python']} and the cluster's is {theirs['python']}: functions sent to engines will "
            f"fail; use a Python {minor(theirs['python'])} as client, or set ipyparallel_python and deploy"
        )
    if theirs.get("ipyparallel") and ours.get("ipyparallel") != theirs["ipyparallel"]:
        have = f"is {ours['ipyparallel']}" if ours.get("ipyparallel") else "is missing"
        found.append(
            f"your ipyparallel {have} and the cluster's is {theirs['ipyparallel']}: install ipyparallel=="
            f"{theirs['ipyparallel']}"
        )
    return found


def write_profile(directory: str, files: Mapping[str, str]) -> None:
    """Write the files of a profile, each in one step with mode 0600, in directories of mode 0700.

    Raises:
        OSError: one cannot be written; it is then as it was.
    """
    for path, text in files.items():
        target = os.path.join(directory, path)
        os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
        write_text(target, text)


def differing(directory: str, files: Mapping[str, str]) -> list[str]:
    """Return the paths of *files* whose content on disk is another, or whose mode is not 0600."""

    def differs(path: str, text: str) -> bool:
        target = os.path.join(directory, path)
        return read_text(target) != text or bool(os.stat(target).st_mode & 0o077)

    return [path for path, text in files.items() if differs(path, text)]


def remove_profile(directory: str) -> None:
    """Remove what this collection wrote at *directory*: all of it where it made the directory, else its files.

    Raises:
        OSError: something cannot be removed.
    """
    if read_text(os.path.join(directory, MARK)) == "made\n":
        shutil.rmtree(directory)
        return
    # the mark goes last: a removal that is interrupted goes on
    for path in (TUNNEL_FILE, AUTHORITY, *reversed(profile_files("", "", directory))):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(directory, path))


def other_owner(directory: str) -> str:
    """Return why a profile must not be written or removed at *directory*, with the remedy; empty where it may.

    Whoever owns a directory of a profile could take the cluster's keys from it, or is to go on using what is there.
    """
    own = os.geteuid()
    # IPython's directory may be a machine's own, in which each account has its profiles
    allowed = {os.path.dirname(directory): {own, 0}}
    for path in (*allowed, directory, *(os.path.join(directory, name) for name in ("security", "startup"))):
        try:
            owner = os.stat(path).st_uid
        except OSError:
            continue
        if owner not in allowed.get(path, {own}):
            return (
                f"{path} belongs to {account_of(owner)}, and you are {account_of(own)}: run as {account_of(owner)}, or "
                "name a directory of your own in IPYTHONDIR"
            )
    return ""


def account_of(number: int) -> str:
    """Return the name of an account, or its number where it has none."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def is_ours(directory: str) -> bool:
    """Return whether this collection wrote the profile at *directory*."""
    return os.path.exists(os.path.join(directory, MARK))

# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files between the operator and the hosts of a cluster: which hosts are meant, and what goes where."""

from __future__ import annotations

import fnmatch
import os
import posixpath
import re
import typing as t
from collections.abc import Iterable, Mapping, Sequence

from ansible_collections.ipyparallel.cluster.plugins.module_utils.selection import in_words, words

WORDS = ("controller", "engines", "notebook")
WILDCARDS = re.compile(r"[*?\[]")


class TransferError(ValueError):
    """A path or a host is not there, or not understood; the message names it and the remedy."""


def choose_hosts(wanted: t.Any, cluster: str, groups: Mapping[str, Sequence[str]], variable: str) -> list[str]:
    """Return the hosts of *cluster* that are meant, in the order of the inventory.

    Args:
        wanted: names of hosts, and the words ``controller``, ``engines`` and ``notebook``; none for all.
        cluster: its name.
        groups: of the inventory.
        variable: that holds them, for the message.

    Raises:
        TransferError: one is neither; names the hosts there are.
    """
    hosts = list(groups[cluster])
    names = words(wanted)
    if not names:
        return hosts
    chosen: set[str] = set()
    unknown = []
    for name in names:
        if name in hosts:
            chosen.add(name)
        elif name in WORDS:
            chosen.update(groups.get(f"{cluster}_{name}", []))
        else:
            unknown.append(name)
    if unknown:
        raise TransferError(
            f"{variable}: there is no host {in_words(unknown)} in cluster {cluster}; its hosts are: {in_words(hosts)}; "
            f"or give one of the words {', '.join(WORDS)}"
        )
    return [host for host in hosts if host in chosen]


def existing_path(path: t.Any, variable: str) -> str:
    """Return a path on the operator's machine as an absolute one, without a slash at its end.

    Raises:
        TransferError: none is given, or there is nothing.
    """
    if not path:
        raise TransferError(f"nothing is given: set {variable} to a file or directory on this machine")
    found = os.path.abspath(os.path.expanduser(str(path)))
    if not os.path.exists(found):
        raise TransferError(f"{variable}: {found} does not exist on this machine")
    return found


def below(home: str, path: t.Any) -> str:
    """Return *path* of a host below *home*; as it is where it is absolute, or in the home of another (``~name``)."""
    text = str(path or "")
    if text == "~" or text.startswith("~/"):
        text = text[1:].lstrip("/")
    return text if text.startswith(("/", "~")) else posixpath.join(home, text)


def pattern_of(path: t.Any, variable: str) -> dict[str, str]:
    """Return a path on hosts as its directory and the pattern of its last part.

    Raises:
        TransferError: none is given, or its directory has wildcards.
    """
    if not path:
        raise TransferError(f"nothing is given: set {variable} to a file, a directory or a pattern on the hosts")
    directory, name = posixpath.split(below("~", path).rstrip("/"))
    if WILDCARDS.search(directory):
        raise TransferError(f"{variable}: {path} has a wildcard in its directory: only the last part of a path may")
    if name in ("", ".", "..") or name.startswith("~"):
        raise TransferError(f"{variable}: {path} has no name: give what is in it, as in {str(path).rstrip('/')}/*")
    return {"directory": directory or "/", "pattern": name}


def plan(
    found: Iterable[Mapping[str, t.Any]],
    inside: Iterable[Mapping[str, t.Any]],
    pattern: str,
    directory: t.Any,
    host: str,
    *,
    several: bool,
) -> list[dict[str, str]]:
    """Return the files of *host* to bring, each as ``src`` there and ``dest`` here.

    The host may say anything, and what it says becomes a path here: so it has to be what was asked for.

    Args:
        found: what matches, all in one directory, as ``ansible.builtin.find`` returns it.
        inside: the files in those that are directories, in the same form.
        pattern: that was asked for.
        directory: of the operator's; none for the current one.
        host: its name.
        several: whether there are several hosts, so that each has a directory of its own.

    Raises:
        TransferError: the host names a file that was not asked for.
    """
    here = os.path.abspath(os.path.expanduser(str(directory or ".")))
    if several:
        here = os.path.join(here, host.replace(os.sep, "_"))
    matches, insides = list(found), list(inside)
    # a directory that matches keeps its name, and what is in it its place
    top = posixpath.dirname(matches[0]["path"]) if matches else "/"
    directories = tuple(f"{match['path']}/" for match in matches if match["isdir"])
    for path, asked in (
        *((match["path"], is_match(match["path"], top, pattern)) for match in matches),
        *((file["path"], file["path"].startswith(directories)) for file in insides),
    ):
        if not asked or path != posixpath.normpath(path) or not path.startswith("/"):
            raise TransferError(f"{host} answers with {path}, which was not asked for: nothing of it was brought")
    files = [file for file in (*matches, *insides) if file["isreg"]]
    return [
        {"src": file["path"], "dest": os.path.join(here, posixpath.relpath(file["path"], top))}
        for file in sorted(files, key=lambda file: str(file["path"]))
    ]


def is_match(path: str, directory: str, pattern: str) -> bool:
    """Return whether *path* is in *directory* and its name fits *pattern*, as ``ansible.builtin.find`` has it."""
    place, name = posixpath.split(path)
    return place == directory and fnmatch.fnmatchcase(name, pattern)


def transfer_or_problem(
    source: t.Any, playbook: str, hosts: t.Any, cluster: str, groups: Mapping[str, Sequence[str]]
) -> dict[str, t.Any]:
    """Return ``source`` and ``hosts`` of playbook ``put`` or ``get`` as they are meant, or the ``problem`` with them.

    Args:
        source: a path on the operator's machine for ``put``; one on hosts, or a pattern, for ``get``.
        playbook: its name.
        hosts: names of hosts, and the words that `choose_hosts` knows.
        cluster: its name.
        groups: of the inventory.
    """
    understand = {"put": existing_path, "get": pattern_of}[playbook]
    try:
        return {
            "source": understand(source, f"ipyparallel_{playbook}_source"),
            "hosts": choose_hosts(hosts, cluster, groups, f"ipyparallel_{playbook}_hosts"),
            "problem": "",
        }
    except TransferError as error:
        return {"problem": str(error)}

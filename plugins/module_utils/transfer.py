# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files between the operator and the hosts of a cluster: which hosts are meant, and what goes where."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import posixpath
import pwd
import re
import stat
import tarfile
import typing as t
from collections.abc import Iterable, Mapping, Sequence

from ansible_collections.ipyparallel.cluster.plugins.module_utils.files import Ownership, make_directory, write_stream
from ansible_collections.ipyparallel.cluster.plugins.module_utils.selection import in_words, words

WORDS = ("controller", "engines", "notebook")
LARGEST_DIFF = 100_000
"""Bytes of a file that a diff shows."""
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


def tree(source: str) -> tuple[list[str], list[dict[str, t.Any]]]:
    """Return the directories of *source* on the operator's machine, and its files with ``mode`` and ``checksum``.

    Their paths begin with the name of *source*. What a link leads to is in its place.

    Raises:
        TransferError: something there is neither a file nor a directory; names it.
        OSError: something cannot be read.
    """
    directories: list[str] = []
    files: list[dict[str, t.Any]] = []

    def visit(path: str, above: frozenset[tuple[int, int]]) -> None:
        place = os.path.join(os.path.dirname(source), path)
        found = os.stat(place) if os.path.exists(place) else os.lstat(place)
        if stat.S_ISREG(found.st_mode):
            files.append({"path": path, "mode": found.st_mode & 0o777, "checksum": checksum(place)})
        elif stat.S_ISDIR(found.st_mode) and (found.st_dev, found.st_ino) not in above:
            directories.append(path)
            for name in sorted(os.listdir(place)):
                visit(os.path.join(path, name), above | {(found.st_dev, found.st_ino)})
        else:
            what = (
                "leads to a directory that it is in" if stat.S_ISDIR(found.st_mode) else "is no file and no directory"
            )
            raise TransferError(f"{place} {what}: take it out of what is to be put")

    visit(os.path.basename(source), frozenset())
    return directories, files


def checksum(path: str) -> str:
    """Return the SHA-256 of a file."""
    found = hashlib.sha256()
    with open(path, "rb") as stream:
        while part := stream.read(1 << 20):
            found.update(part)
    return found.hexdigest()


def pack(archive: t.IO[bytes], source: str, files: Iterable[Mapping[str, t.Any]]) -> None:
    """Write the content of some *files* of *source* to *archive*, each under its checksum, once."""
    contents = {file["checksum"]: os.path.join(os.path.dirname(source), file["path"]) for file in files}
    with tarfile.open(fileobj=archive, mode="w") as packed:
        for name, path in contents.items():
            with open(path, "rb") as stream:
                entry = tarfile.TarInfo(name)
                entry.size = os.fstat(stream.fileno()).st_size
                packed.addfile(entry, stream)


def text_of(path: str) -> str:
    """Return what a diff shows of a file: no more than a word of one that is large, or no text."""
    with open(path, "rb") as stream:
        content = stream.read(LARGEST_DIFF + 1)
    if len(content) > LARGEST_DIFF:
        return f"more than {LARGEST_DIFF} bytes\n"
    try:
        return content.decode()
    except UnicodeDecodeError:
        return "no text\n"


class Placing:
    """What the host of a cluster has of the operator's directories and files, and what it lacks.

    It is for whoever runs it to be the account meanwhile, so that a link of the account's leads root nowhere.
    """

    def __init__(self, top: str, ownership: Ownership, *, check: bool, diff: bool) -> None:
        """Begin with nothing.

        Args:
            top: the directory that all goes into.
            ownership: the account and group that all belongs to.
            check: write nothing.
            diff: keep what was there.
        """
        self.top = top
        self.ownership = ownership
        self.check = check
        self.diff = diff
        self.changes: list[dict[str, str]] = []
        """Of directories and modes, each with ``header``, ``before`` and ``after``, as a diff shows it."""
        self.missing: list[dict[str, str]] = []
        """The files whose content is to be sent, each with its ``path`` and the text that it has ``before``."""

    def directory(self, path: str) -> None:
        """Make *path* below the top, and what is above it, where it is not there; for the account only.

        Raises:
            TransferError: there is something else.
            OSError: it cannot be made.
        """
        place = os.path.normpath(os.path.join(self.top, path))
        lacking = []
        while not os.path.isdir(place):
            if os.path.lexists(place):
                raise TransferError(f"{place} is there and is no directory: remove it")
            lacking.append(place)
            place = os.path.dirname(place)
        for new in reversed(lacking):
            if not self.check:
                make_directory(new, 0o700, self.ownership)
            self._changed(new, "", "directory, mode 0700\n")

    def file(self, path: str, mode: int, content: str, archive: tarfile.TarFile | None) -> None:
        """Let file *path* below the top have this *mode* and, from the *archive*, the *content* of this checksum.

        Raises:
            TransferError: there is a directory.
            OSError: it cannot be read or written.
            KeyError: the archive has other content.
        """
        place = os.path.join(self.top, path)
        found = os.lstat(place) if os.path.lexists(place) else None
        if found and stat.S_ISDIR(found.st_mode):
            raise TransferError(f"{place} is there and is a directory: remove it")
        is_file = found is not None and stat.S_ISREG(found.st_mode) and os.access(place, os.R_OK, effective_ids=True)
        # the account may not give itself what is another's, but may replace it
        if found and is_file and self.ownership.uid in (-1, found.st_uid) and checksum(place) == content:
            before = f"mode {found.st_mode & 0o7777:04o}, group {found.st_gid}\n"
            gid = found.st_gid if self.ownership.gid == -1 else self.ownership.gid
            after = f"mode {mode:04o}, group {gid}\n"
            if before != after:
                if not self.check:
                    self.ownership.apply(place, follow_symlinks=False)
                    os.chmod(place, mode)
                self._changed(place, before, after)
        elif archive:
            write_stream(place, t.cast("t.IO[bytes]", archive.extractfile(content)), mode, self.ownership)
        else:
            self.missing.append({"path": path, "before": text_of(place) if self.diff and is_file else ""})

    def _changed(self, place: str, before: str, after: str) -> None:
        self.changes.append({"header": place, "before": before, "after": after})


def below(home: str, path: t.Any) -> str:
    """Return *path* of a host below *home*; as it is where it is absolute, or in the home of another (``~name``)."""
    text = str(path or "")
    if text == "~" or text.startswith("~/"):
        text = text[1:].lstrip("/")
    return text if text.startswith(("/", "~")) else posixpath.join(home, text)


def destination_of(owner: str | None, path: str) -> str:
    """Return *path* of this host as an absolute one; a relative one is below the home of *owner*, or of the login.

    Raises:
        TransferError: it is in the home of an account that is not there.
    """
    home = pwd.getpwnam(owner).pw_dir if owner else os.path.expanduser("~")
    found = os.path.expanduser(below(home, path))
    if not os.path.isabs(found):
        raise TransferError(f"ipyparallel_put_destination: {path} is in no home: there is no account of this name")
    return os.path.normpath(found)


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

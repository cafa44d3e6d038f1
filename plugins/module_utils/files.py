# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files that are either the old one or the new one, never a part, and never readable by others for a moment."""

from __future__ import annotations

import contextlib
import grp
import io
import os
import pwd
import shutil
import tempfile
import typing as t
from collections.abc import Iterable, Iterator

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule


@contextlib.contextmanager
def acting_as(uid: int, gid: int, groups: Iterable[int] = ()) -> Iterator[None]:
    """Let root do something as another account, with further *groups*; whoever is not root stays what it is."""
    if os.geteuid() != 0 or uid == 0:
        yield
        return
    before = os.getegid(), os.getgroups()
    try:
        os.setgroups(list(groups))
        os.setegid(gid)
        os.seteuid(uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(before[0])
        os.setgroups(before[1])


OWNED_ARGUMENT_SPEC: dict[str, dict[str, str]] = {"owner": {"type": "str"}, "group": {"type": "str"}}
"""The options of every module whose files are given to an account (documentation fragment ``owned``)."""


class Ownership:
    """Account and group that written files are given; ``None`` leaves what the writing process has."""

    def __init__(self, owner: str | None = None, group: str | None = None) -> None:
        """Look up *owner* and *group* (names); without a group, it is that of the owner.

        Raises:
            KeyError: the account or group does not exist.
        """
        self.owner = owner
        self.uid = pwd.getpwnam(owner).pw_uid if owner else -1
        if group:
            self.gid = grp.getgrnam(group).gr_gid
        else:
            self.gid = pwd.getpwnam(owner).pw_gid if owner else -1

    @contextlib.contextmanager
    def acting(self, directory: str) -> Iterator[None]:
        """Be the account, where root works in a *directory* of the account's, or below one.

        So a link that the account has put there leads root to nothing that the account could not reach itself.
        """
        with acting_as(self.uid, self.gid) if self._reaches(directory) else contextlib.nullcontext():
            yield

    @contextlib.contextmanager
    def being(self) -> Iterator[None]:
        """Be the account with all its groups, wherever root works; without an account nothing changes."""
        if self.owner is None:
            yield
            return
        with acting_as(self.uid, self.gid, os.getgrouplist(self.owner, self.gid)):
            yield

    def _reaches(self, path: str) -> bool:
        """Return whether the account decides where *path* leads: a part of it, or a link in it, is the account's."""
        if self.uid == -1:
            return False
        place = os.path.abspath(path)
        while os.lstat(place).st_uid != self.uid and os.stat(place).st_uid != self.uid:
            if place == os.path.dirname(place):
                return False
            place = os.path.dirname(place)
        return True

    def apply(self, path: str, follow_symlinks: bool = True) -> None:
        """Give *path* to the account, where that is a change."""
        if self.uid == -1 and self.gid == -1:
            return
        found = os.stat(path, follow_symlinks=follow_symlinks)
        if self.uid not in (-1, found.st_uid) or self.gid not in (-1, found.st_gid):
            os.chown(path, self.uid, self.gid, follow_symlinks=follow_symlinks)


def ownership_of(module: AnsibleModule, owner: str) -> Ownership:
    """Return the account that option *owner* of *module*, and option ``group``, name.

    One that is not there yet, in check mode, owns nothing so far.

    Raises:
        KeyError: the account or group does not exist.
    """
    try:
        return Ownership(module.params[owner], module.params["group"])
    except KeyError:
        if module.check_mode:
            return Ownership()
        raise


def read_text(path: str, ownership: Ownership | None = None, errors: str = "replace") -> str | None:
    """Return the text of *path* as it is, or None where there is no such file.

    With *ownership*, a link that the account has put there shows nothing that the account could not read itself.

    What is no text is read too, with marks for its bytes: it is for the caller to say what is wrong with the file. With
    *errors* ``surrogateescape``, `write_text` writes these bytes as they were.
    """
    try:
        with (
            (ownership or Ownership()).acting(os.path.dirname(path)),
            open(path, encoding="utf-8", errors=errors, newline="") as stream,
        ):
            return stream.read()
    except FileNotFoundError:
        return None


def write_text(path: str, text: str, mode: int = 0o600, ownership: Ownership | None = None) -> None:
    """Replace *path* by *text* in one step, see `write_stream`.

    Raises:
        OSError: the file cannot be written.
    """
    write_stream(path, io.BytesIO(text.encode(errors="surrogateescape")), mode, ownership)


def write_stream(path: str, content: t.IO[bytes], mode: int, ownership: Ownership | None = None) -> None:
    """Replace *path* by *content* in one step; a reader sees the old file or the new one.

    The temporary file is made beside *path* with mode 0600 and given *mode* before the step, so that a secret is at no
    time readable by others. A failure (a full or read-only disk) leaves the old file as it was.

    Raises:
        OSError: the file cannot be written.
    """
    directory = os.path.dirname(path)
    with (ownership or Ownership()).acting(directory):
        descriptor, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", dir=directory)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                shutil.copyfileobj(content, stream)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(temporary, mode)
            if ownership:
                ownership.apply(temporary)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise


def directory_differs(path: str, mode: int) -> bool:
    """Return whether there is no directory *path*, or it has not *mode*."""
    return not os.path.isdir(path) or (os.stat(path).st_mode & 0o7777) != mode


def make_directory(path: str, mode: int = 0o700, ownership: Ownership | None = None) -> bool:
    """Make directory *path*, and its parents, with *mode*; return whether anything changed.

    Raises:
        OSError: the directory cannot be made, or *path* is something else.
    """
    if not directory_differs(path, mode):
        return False
    if os.path.isdir(path):
        with (ownership or Ownership()).acting(path):
            os.chmod(path, mode)
        return True
    there = os.path.dirname(path)
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    with (ownership or Ownership()).acting(there):
        _make_parents(os.path.dirname(path))
        os.mkdir(path, mode)
        os.chmod(path, mode)
        if ownership:
            ownership.apply(path)
    return True


def _make_parents(path: str) -> None:
    # os.makedirs gives its mode to the last directory only, and 0777 to those above it
    if path and not os.path.isdir(path):
        _make_parents(os.path.dirname(path))
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o755)

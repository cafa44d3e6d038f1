# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The notebook's password and token: what is a good one, and what has to be written for them.

``make_plan`` decides and touches nothing; ``apply`` writes. The hash is the truth: a kept random password that does not
verify against it is stale. Writes are ordered such that an interrupted run leaves what the next one can finish.
"""

from __future__ import annotations

import dataclasses
import os
import re
import secrets
import stat
import typing as t
import unicodedata

from ansible_collections.ipyparallel.cluster.plugins.module_utils.files import (
    Ownership,
    make_directory,
    read_text,
    write_text,
)

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

VARIABLE = "ipyparallel_notebook_password"
MINIMUM = 8
ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
"""Characters of random passwords: on one level of every keyboard, and none that looks like another."""
HASH = re.compile(r"argon2:\$argon2id\$v=\d+\$m=\d+,t=\d+,p=\d+\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+")
TOKEN = re.compile(r"[A-Za-z0-9_-]{43,}")
UNTYPABLE = frozenset(("Cc", "Cs", "Zl", "Zp"))
"""Unicode categories that no password field takes: control characters, halves of pairs, line and paragraph ends."""
SECRET_MODE = 0o600


class PasswordError(ValueError):
    """A password is refused; the message names the rule and the variable, never the password."""


class Hasher(t.Protocol):
    """How passwords are hashed and verified; in the cluster's Python this is ``jupyter_server.auth``."""

    def passwd(self, passphrase: str) -> str:
        """Return a new hash of *passphrase*."""

    def passwd_check(self, hashed_passphrase: str, passphrase: str) -> bool:
        """Tell whether *passphrase* has the hash *hashed_passphrase*."""


def take(module: AnsibleModule, option: str) -> str | None:
    """Return the value of the secret *option*, and make *module* forget that it has one.

    Ansible stars out a secret wherever its text occurs in a result: with the password ``notebooks`` the path of the
    notebooks would come back as stars, and a refused password of one letter would star that letter out of the message.
    For modules only whose results never hold the secret.
    """
    secret: str | None = module.params[option]
    module.params[option] = None
    module.no_log_values.discard(secret)
    return secret


def check_password(password: str, variable: str = VARIABLE) -> None:
    """Refuse a *password* that is too short or cannot be typed into the login form.

    Args:
        password: what the user has given in *variable*.
        variable: name to use in the message.

    Raises:
        PasswordError: it breaks a rule, which the message names.
    """
    rule = ""
    if any(unicodedata.category(character) in UNTYPABLE for character in password):
        rule = "has a newline or another control character, which no login form takes"
    elif password != password.strip():
        rule = "begins or ends with a space, which the login form drops"
    elif len(password) < MINIMUM:
        rule = f"is shorter than {MINIMUM} characters"
    if rule:
        raise PasswordError(
            f"the notebook's password (variable {variable}) {rule}: give at least {MINIMUM} printable characters, or "
            "leave it out, and a random one is made"
        )


def random_password() -> str:
    """Return a new password of 16 random characters (79 bits) in groups of four."""
    return "-".join("".join(secrets.choice(ALPHABET) for dummy in range(4)) for dummy in range(4))


def random_token() -> str:
    """Return a new token of 32 random bytes."""
    return secrets.token_urlsafe(32)


@dataclasses.dataclass(frozen=True)
class Paths:
    """Where a notebook keeps what it needs to let people in."""

    directory: str

    @property
    def hash(self) -> str:
        """The file with the hash of the password."""
        return os.path.join(self.directory, "password.hash")

    @property
    def password(self) -> str:
        """The file with a random password; there is none for a given one."""
        return os.path.join(self.directory, "password")

    @property
    def key(self) -> str:
        """The file with the private key of the certificate."""
        return os.path.join(self.directory, "key.pem")

    @property
    def certificate(self) -> str:
        """The file with the certificate, which is no secret."""
        return os.path.join(self.directory, "certificate.pem")

    @property
    def token(self) -> str:
        """The file with the token."""
        return os.path.join(self.directory, "token")


@dataclasses.dataclass
class Plan:
    """What has to be done, in this order: ``write``, then ``remove``, then ``close``."""

    words: dict[str, str] = dataclasses.field(default_factory=dict)
    """What is said of the password and of the token, where that is more than nothing."""
    random: bool = False
    """Whether the password is a random one, which is kept for its owner to read."""
    write: dict[str, str] = dataclasses.field(default_factory=dict)
    remove: list[str] = dataclasses.field(default_factory=list)
    close: list[str] = dataclasses.field(default_factory=list)
    make_directory: bool = False
    warnings: list[str] = dataclasses.field(default_factory=list)

    def say(self, subject: str, words: str) -> None:
        """Note what is said of *subject*, unless something was said of it already."""
        self.words.setdefault(subject, words)

    @property
    def changed(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.write or self.remove or self.close or self.make_directory)

    @property
    def diff(self) -> dict[str, str]:
        """The plan in words, without a secret."""
        said = dict(self.words)
        if self.close:
            said["mode"] = f"0600 for {', '.join(self.close)}"
        return {
            "before": "".join(f"{name}: as it was\n" for name in said),
            "after": "".join(f"{name}: {words}\n" for name, words in said.items()),
        }


def stored_hash(path: str, ownership: Ownership | None = None) -> str | None:
    """Return the hash in file *path*, an empty text when it is damaged, or None when there is no file."""
    text = read_text(path, ownership)
    if text is None:
        return None
    return text.strip() if HASH.fullmatch(text.strip()) else ""


def verifies(hasher: Hasher | None, hashed: str | None, password: str) -> bool:
    """Tell whether *password* has the hash *hashed*; a damaged hash fits no password."""
    try:
        return bool(hashed and hasher and hasher.passwd_check(hashed, password))
    except ValueError:  # argon2 calls a hash that it cannot decode invalid
        return False


def make_plan(paths: Paths, given: str | None, hasher: Hasher | None, ownership: Ownership | None = None) -> Plan:
    """Compare what *paths* hold with what is wanted.

    Args:
        paths: where the notebook keeps its secrets.
        given: the user's password; None keeps the one in force, or makes a random one where there is none.
        hasher: None in check mode on a host that cannot hash yet. The plan then has words in place of a hash.
        ownership: the account whose secrets they are.

    Raises:
        PasswordError: *given* breaks a rule.
        OSError: what is there cannot be read.
    """
    plan = Plan(make_directory=not os.path.isdir(paths.directory))
    hashed = stored_hash(paths.hash, ownership)
    kept = read_text(paths.password, ownership)
    if hashed == "":
        plan.warnings.append(f"{paths.hash} is damaged: it is made anew")
    if given is None:
        _plan_random(plan, paths, hashed, kept, hasher)
    else:
        check_password(given)
        if not verifies(hasher, hashed, given):
            plan.write[paths.hash] = _line(hasher, given)
            plan.say("password", "made from the given one" if hashed is None else "changed to the given one")
        if kept is not None:
            plan.remove.append(paths.password)
            plan.say("password", "given by the user from now on: its file is removed")

    token = read_text(paths.token, ownership)
    if token is None or not TOKEN.fullmatch(token):
        plan.write[paths.token] = random_token()  # without a newline: Jupyter reads the whole file
        plan.say("token", "made" if token is None else "damaged: made anew")
        if token is not None:
            plan.warnings.append(f"{paths.token} is damaged: it is made anew")

    for path in (paths.hash, paths.password, paths.token, paths.key):
        if path not in plan.write and path not in plan.remove and _is_open(path):
            plan.close.append(path)
    return plan


def _plan_random(plan: Plan, paths: Paths, hashed: str | None, kept: str | None, hasher: Hasher | None) -> None:
    """Add to *plan* what is to be done when the user gives no password."""
    password = (kept or "").strip()
    if hashed:
        if kept is None:
            return  # given in an earlier run
        if hasher is None or verifies(hasher, hashed, password):
            plan.random = True
            return
        plan.remove.append(paths.password)
        plan.say("password", "kept: the file of an older one is removed")
        plan.warnings.append(f"{paths.password} is not the password in force: it is removed")
        return
    plan.random = True
    try:
        check_password(password)
        plan.say("password", f"hashed again from {paths.password}")
    except PasswordError:
        password = random_password()
        plan.write[paths.password] = password + "\n"  # before the hash: an interrupted run then hashes this one
        plan.say("password", "random, made")
    plan.write[paths.hash] = _line(hasher, password)


def _line(hasher: Hasher | None, password: str) -> str:
    """Return the content of the hash file for *password*."""
    return f"{hasher.passwd(password)}\n" if hasher else ""


def _is_open(path: str) -> bool:
    """Tell whether *path* exists with another mode than 0600."""
    try:
        return stat.S_IMODE(os.stat(path).st_mode) != SECRET_MODE
    except FileNotFoundError:
        return False


def apply(plan: Plan, paths: Paths, ownership: Ownership) -> None:
    """Do what *plan* says.

    Raises:
        OSError: a file cannot be written; those before it are, and the next run goes on from there.
    """
    if plan.make_directory:
        make_directory(paths.directory, 0o700, ownership)
    for path, text in plan.write.items():
        write_text(path, text, SECRET_MODE, ownership)
    for path in plan.remove:
        with ownership.acting(os.path.dirname(path)):
            os.unlink(path)
    for path in plan.close:
        with ownership.acting(os.path.dirname(path)):
            os.chmod(path, SECRET_MODE)

# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Requirements and options that the operator gives for extra Python packages: read, judged, and put together."""

from __future__ import annotations

import dataclasses
import re
import typing as t
from collections.abc import Iterable, Sequence

NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(\[[^\]]*\])?\s*($|[@;(<>=!~])")
CREDENTIALS = re.compile(r"([A-Za-z][\w+.-]*)://([^/@\s]+)@")
CHANGE = re.compile(r"^ ([-+~]) (\S+)", re.MULTILINE)
"""A line of uv's that says what it does, or would do: ``+`` installs, ``-`` removes, ``~`` installs anew."""

SWITCHES = (
    *("--no-build", "--no-build-isolation", "--no-cache", "--no-deps", "--no-index"),
    *("--pre", "--refresh", "--reinstall", "--upgrade", "-U"),
)
VALUES = (
    *("--allow-insecure-host", "--config-setting", "-C", "--exclude-newer", "--index-strategy"),
    *("--keyring-provider", "--no-binary", "--only-binary", "--prerelease", "--reinstall-package"),
    *("--resolution", "--torch-backend", "--upgrade-package", "-P"),
)
PLACES = {
    "--default-index": "UV_DEFAULT_INDEX",
    "--index-url": "UV_DEFAULT_INDEX",
    "-i": "UV_DEFAULT_INDEX",
    "--extra-index-url": "UV_INDEX",
    "--index": "UV_INDEX",
    "--find-links": "UV_FIND_LINKS",
    "-f": "UV_FIND_LINKS",
}
"""Options that may hold credentials: arguments are for all to read on a host, a variable is for the account."""
SEPARATORS = {"UV_INDEX": " ", "UV_FIND_LINKS": ","}
CHOOSE_PLACE = (*PLACES, "--no-index", "--torch-backend")


class RequirementError(ValueError):
    """What the operator gave cannot be used; the message names it, without its secrets, and the remedy."""


@dataclasses.dataclass(frozen=True)
class Flags:
    """Options of ``uv pip install``.

    Attributes:
        arguments: those that are given as arguments.
        variables: the others, as environment variables.
        choose_place: whether they say where packages come from.
    """

    arguments: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    choose_place: bool = False


def read_flags(words: Sequence[str]) -> Flags:
    """Return the options that *words* are.

    Raises:
        RequirementError: one is not known, or it lacks its value.
    """
    arguments: list[str] = []
    variables: dict[str, str] = {}
    choose_place = False
    left = list(words)
    while left:
        option, is_joined, value = left.pop(0).partition("=")
        if option in SWITCHES and not is_joined:
            arguments.append(option)
        elif option in PLACES or option in VALUES:
            if not is_joined:
                value = left.pop(0) if left else ""
            if not value:
                raise RequirementError(f"ipyparallel_install_flags: {option} has no value: give one")
            if option in PLACES:
                name = PLACES[option]
                earlier = [variables[name]] if name in SEPARATORS and name in variables else []
                variables[name] = SEPARATORS.get(name, "").join([*earlier, value])
            else:
                arguments += [option, value]
        else:
            known = ", ".join(sorted({*SWITCHES, *VALUES, *PLACES}))
            what = option if option.startswith("-") else "what is no option"
            raise RequirementError(f"ipyparallel_install_flags: {what} is not taken: give any of {known}")
        choose_place = choose_place or option in CHOOSE_PLACE
    return Flags(tuple(arguments), tuple(variables.items()), choose_place)


def split_requirements(given: str | Iterable[t.Any]) -> list[str]:
    """Return the requirements that are given as a list, or as a text with commas between them.

    ``pandas>=2,<3`` is one, and so is ``dask[array,dataframe]``: what follows a comma and begins with a comparison, or
    is within brackets, belongs to what is before it.
    """
    if not isinstance(given, str):
        return [str(one).strip() for one in given if str(one).strip()]
    found: list[str] = []
    for part in re.split(r",(?![^\[]*\])", given):
        if found and re.match(r"\s*[<>=!~]", part):
            found[-1] = f"{found[-1]},{part.strip()}"
        elif part.strip():
            found.append(part.strip())
    return found


def check_requirements(requirements: Sequence[str]) -> None:
    """Check requirements that are to be remembered.

    Raises:
        RequirementError: there is none, one is an option, or one has credentials.
    """
    if not requirements:
        raise RequirementError("there is nothing to install: give requirements in ipyparallel_install")
    for requirement in requirements:
        if requirement.startswith("-"):
            raise RequirementError(
                f"{requirement.split()[0]} is an option and no package: give it in ipyparallel_install_flags"
            )
        if secrets_in([requirement]):
            raise RequirementError(
                f"the address of {name_of(requirement) or 'a package'} holds credentials, but what is installed is "
                "remembered and shown: put them into a file netrc that NETRC in ipyparallel_install_environment names"
            )


def secrets_in(texts: Iterable[str]) -> set[str]:
    """Return the credentials in the addresses of *texts*: the whole, and the password. An SSH login alone is none."""
    found: set[str] = set()
    for scheme, login in (match for text in texts for match in CREDENTIALS.findall(text)):
        password = login.partition(":")[2]
        if password or not scheme.endswith("ssh"):
            found |= {login, password or login}
    return found


def name_of(requirement: str) -> str:
    """Return the normalised name (PEP 503) of a requirement; empty where it is an address, a path or an option."""
    match = NAME.match(requirement)
    return re.sub(r"[-_.]+", "-", match.group(1)).lower() if match else ""


def merge_requirements(given: Iterable[str], remembered: Iterable[str]) -> list[str]:
    """Return what is given, and of what is remembered that which is not given in other words."""
    first = list(dict.fromkeys(given))
    names = {name_of(requirement) for requirement in first} - {""}
    return first + [one for one in dict.fromkeys(remembered) if one not in first and name_of(one) not in names]


def changes_in(output: str) -> list[str]:
    """Return what uv said that it does, or would do, such as ``+ scipy==1.16.0``."""
    return [f"{sign} {what}" for sign, what in CHANGE.findall(output)]


def logical_lines(text: str) -> list[str]:
    """Return the lines of a requirements file without comments; one that goes on over several becomes one."""
    lines = [re.sub(r"(^|\s)#.*", "", line).strip() for line in text.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line]


def lock_problem(lock: str, needed: str) -> str:
    """Return why *lock* cannot be the lock of an environment, and the remedy; empty where it can.

    Args:
        lock: text of a requirements file of the operator's.
        needed: what the collection's own lock is compiled from.
    """
    remedy = (
        "compile it with 'uv pip compile --generate-hashes', from the collection's "
        "roles/environment/files/requirements.in and your own packages"
    )
    versions: dict[str, set[str]] = {}
    for line in logical_lines(lock):
        requirement, _hash, hashes = line.partition(" --hash=")
        if line.startswith("-"):
            option = re.split(r"[\s=]", line)[0]
            return f"{option} is no package: give what says where packages come from in ipyparallel_install_environment"
        pinned = re.match(r"[^=<>!~@;]+?\s*(==\s*([\w.!+]+)|@\s*\S+)\s*(;|$)", requirement)
        if not pinned or not name_of(requirement):
            return f"{requirement!r} is not pinned to one version: {remedy}"
        if not hashes:
            return f"{requirement!r} has no hash: {remedy}"
        versions.setdefault(name_of(requirement), set()).add(pinned.group(2) or "")
    wanted = {name_of(line): line for line in logical_lines(needed)}
    if missing := sorted(set(wanted) - set(versions)):
        return f"it has no {', '.join(missing)}, without which there is no cluster: {remedy}"
    major = re.sub(r"\D*(\d+).*", r"\1", wanted["ipyparallel"])
    if others := sorted(version for version in versions["ipyparallel"] if version.partition(".")[0] != major):
        return (
            f"it has ipyparallel {others[0] or 'from an address'}, but this version of the collection is made for "
            f"{major}: pin one of {major}, or use another version of the collection"
        )
    return ""

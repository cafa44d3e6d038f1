# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The operator's settings of OpenSSH for the hosts of a cluster: what Ansible tells ssh, as ssh_config(5) has it."""

from __future__ import annotations

import os
import pwd
import re
import typing as t
from collections.abc import Iterable, Mapping, Sequence

from ansible_collections.ipyparallel.cluster.plugins.module_utils.process import MANAGED

FIRST_LINE = f"# {MANAGED}"
DIRECTIVES = {"-J": "ProxyJump", "-i": "IdentityFile", "-p": "Port", "-l": "User", "-F": "Include"}
"""Options of ssh that have a value, and the directive that does the same."""
SWITCHES = {
    "-4": "AddressFamily inet",
    "-6": "AddressFamily inet6",
    "-A": "ForwardAgent yes",
    "-C": "Compression yes",
    "-a": "ForwardAgent no",
    "-q": "LogLevel QUIET",
}
OF_ANSIBLE = ("controlmaster", "controlpersist", "controlpath")
"""Ansible's own connections, which an operator's session is not to be part of."""


class SshConfigError(ValueError):
    """The file cannot be used; the message names it and the remedy."""


def directives(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return arguments of ssh as lines of its configuration, and those that have no such line."""
    lines: list[str] = []
    left_out: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        option, value = word[:2], word[2:]
        if word in SWITCHES:
            lines.append(SWITCHES[word])
        elif option == "-o" or option in DIRECTIVES:
            value = value or (rest.pop(0) if rest else "")
            name = DIRECTIVES.get(option, "")
            if option == "-o":
                name, value = [*re.split(r"\s*=\s*|\s+", value.strip(), maxsplit=1), ""][:2]
            if not name or not value or "\n" in value:
                left_out.append(word)
            elif name.lower() not in OF_ANSIBLE:
                lines.append(f"{name} {value}")
        else:
            left_out.append(word)
    return lines, left_out


def quoted(value: str) -> str:
    """Return a path or a name as one word of a line."""
    return f'"{value}"' if re.search(r"\s", value) else value


def names_of(cluster: str, host: str, roles: Iterable[str], hosts: Iterable[str]) -> list[str]:
    """Return what a host is called: by its own name, and by what there is one of.

    Args:
        cluster: its name.
        host: the host's.
        roles: what it is in the cluster.
        hosts: all of the cluster; one that is called like a role keeps that name for itself.
    """
    single = [role for role in roles if role in {"controller", "notebook"} and role not in set(hosts)]
    return [f"{cluster}-{name}" for name in (host, *single)]


def make_block(host: str, names: Iterable[str], lines: Iterable[str]) -> str:
    """Return the part of the file that is of a host."""
    return "\n".join([f"# {host}", f"Host {' '.join(names)}", *(f"    {line}" for line in lines)]) + "\n"


def blocks_of(text: str) -> dict[str, str]:
    """Return the parts of a file of ours, by host."""
    parts = re.split(r"^# (\S+)\n(?=Host )", text, flags=re.MULTILINE)[1:]
    return {host: f"# {host}\n{body.rstrip()}\n" for host, body in zip(parts[::2], parts[1::2], strict=True)}


def file_text(before: str | None, path: str, hosts: Iterable[str], blocks: Mapping[str, str | None]) -> str:
    """Return the file of a cluster.

    Args:
        before: what there is, None for nothing.
        path: of the file.
        hosts: all of the cluster, in order.
        blocks: the parts of the hosts of this run; None for one that has none. The others keep theirs.

    Raises:
        SshConfigError: what there is is not ours.
    """
    if before is not None and not before.startswith(FIRST_LINE):
        raise SshConfigError(
            f"{path} was not written by this collection, and is left as it is: set ipyparallel_ssh_config_path to "
            "another"
        )
    kept: dict[str, str | None] = {**blocks_of(before or ""), **blocks}
    return "\n".join([f"{FIRST_LINE}\n", *(block for host in hosts if (block := kept.get(host)))])


def include_of(path: str) -> str:
    """Return the line that lets ssh read the file *path*: one for all clusters where it is where it is by default."""
    top = os.path.expanduser("~")
    # ssh looks for ~ in the account's entry, whatever HOME says
    shown = path
    if top == pwd.getpwuid(os.getuid()).pw_dir and path.startswith(f"{top}/"):
        shown = f"~{path[len(top) :]}"
    directory, name = os.path.split(shown)
    if directory == os.path.join("~" if shown != path else top, ".ssh", "ipyparallel") and name.endswith(".conf"):
        shown = os.path.join(directory, "*.conf")
    return f"Include {quoted(shown)}"


def with_include(before: str | None, line: str) -> str:
    """Return the operator's own configuration with *line*, before any other, whose values would win."""
    text = before or ""
    if re.search(rf"^\s*{re.escape(line)}\s*$", text, flags=re.MULTILINE):
        return text
    return f"{line}\n\n{text}" if text else f"{line}\n"


def login_lines(options: Mapping[str, t.Any]) -> tuple[list[str], list[str]]:
    """Return how Ansible reaches a host, as lines, and arguments that cannot be lines.

    Args:
        options: of Ansible's connection: ``host``, ``user``, ``port``, ``key``, ``host_key_checking``, and
            ``arguments`` of ssh in their order.
    """
    lines = [f"HostName {options['host']}"]
    if options.get("user"):
        lines.append(f"User {quoted(options['user'])}")
    if options.get("port"):
        lines.append(f"Port {options['port']}")
    if options.get("key"):
        lines.append(f"IdentityFile {quoted(os.path.abspath(os.path.expanduser(options['key'])))}")
    if options.get("host_key_checking") is False:
        lines.append("StrictHostKeyChecking no")
    further, left_out = directives(options.get("arguments") or [])
    return [*lines, *dict.fromkeys(further)], left_out

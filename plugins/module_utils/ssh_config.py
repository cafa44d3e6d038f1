# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The operator's settings of OpenSSH for the hosts of a cluster: what Ansible tells ssh, as ssh_config(5) has it."""

from __future__ import annotations

import os
import pwd
import re
import shlex
import subprocess
from collections.abc import Iterable, Mapping, Sequence

from ansible_collections.ipyparallel.cluster.plugins.module_utils.process import MANAGED

FIRST_LINE = f"# {MANAGED}"
DIRECTIVES = {"-J": "ProxyJump", "-i": "IdentityFile", "-p": "Port", "-l": "User"}
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
ADDED_UP = ("identityfile", "certificatefile")
"""Directives whose values are all taken; of others, the first."""
PATHS = (*ADDED_UP, "userknownhostsfile", "globalknownhostsfile")
ALGORITHMS = re.compile(r"\w+algorithms|ciphers|macs")
SPELLED = {
    name.lower(): name
    for name in ("CertificateFile", "HostName", "IdentityFile", "Port", "ProxyCommand", "ProxyJump", "User")
}
"""Names of directives as people write them; ssh says them in small letters."""
NOBODY = "unknown.invalid"
"""A host that no configuration is for (RFC 2606)."""


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
        elif option in ("-o", "-F") or option in DIRECTIVES:
            value = value or (rest.pop(0) if rest else "")
            name = DIRECTIVES.get(option, "")
            if option == "-o":
                name, value = [*re.split(r"\s*=\s*|\s+", value.strip(), maxsplit=1), ""][:2]
            if option == "-F" and value and "\n" not in value:
                # only ssh knows which of its blocks are meant
                left_out.append(f"-F {value}")
            elif not name or not value or "\n" in value:
                left_out.append(word)
            elif name.lower() not in OF_ANSIBLE:
                if option == "-i":
                    value = quoted(os.path.abspath(os.path.expanduser(value)))
                elif option == "-l":
                    value = quoted(value)
                elif name.lower() in PATHS:
                    value = " ".join(quoted(absolute(path)) for path in words_of(value))
                lines.append(f"{SPELLED.get(name.lower(), name)} {value}")
        else:
            left_out.append(word)
    return lines, left_out


def by_configuration(line: str, configuration: str) -> str:
    """Return *line*, where it names jump hosts, as a command that reaches them by the file *configuration*, if any."""
    name, value = line.split(" ", maxsplit=1)
    if name != "ProxyJump" or not configuration or value.lower() == "none":
        return line
    *before, last = value.split(",")
    last = last if last.startswith("ssh://") else f"ssh://{last}"
    words = ["ssh", "-F", configuration.replace("%", "%%"), *(["-J", ",".join(before)] if before else [])]
    return f"ProxyCommand {shlex.join([*words, '-W', '[%h]:%p', last])}"


def absolute(path: str) -> str:
    """Return a path that ssh looks for below its working directory as one that is the same everywhere."""
    return path if re.match(r"[/~%$]|none$", path) else os.path.abspath(path)


def words_of(value: str) -> list[str]:
    """Return the words of a value, as a line of the configuration has them."""
    try:
        return shlex.split(value)
    except ValueError:
        # ssh says what is wrong with it
        return [value]


def quoted(value: str) -> str:
    """Return a path or a name as one word of a line."""
    return f'"{value}"' if re.search(r"\s", value) else value


def ask_ssh(program: str, arguments: Sequence[str], host: str) -> dict[str, list[str]] | None:
    """Return what ssh would reach a host with, by directive, as its configuration has it. Nothing is sent there.

    Args:
        program: ssh.
        arguments: of it.
        host: as it is given to ssh.

    Returns:
        None where there is no such program.

    Raises:
        SshConfigError: ssh does not take its arguments, or its configuration.
    """
    try:
        done = subprocess.run(
            # first, as the value of an argument may be missing
            [program, "-G", *arguments, host],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except FileNotFoundError:
        return None
    if done.returncode:
        said = "; ".join(done.stderr.strip().splitlines()[-2:]) or "no message"
        raise SshConfigError(f"ssh does not tell how it reaches {host}: {said}: put right what Ansible gives it")
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        name, _space, value = line.partition(" ")
        found.setdefault(name, []).append(value)
    return found


def lines_of(found: Mapping[str, Sequence[str]], nobody: Mapping[str, Sequence[str]]) -> list[str]:
    """Return as lines what is set for a host, and not for all.

    Args:
        found: what ssh would reach the host with.
        nobody: the same of one that no configuration is for.
    """
    lines = []
    for name, values in found.items():
        others = nobody.get(name, [])
        if name == "host" or name in OF_ANSIBLE or values == others:
            continue
        for value in values:
            if name in PATHS:
                paths = [value] if name in ADDED_UP else value.split()
                text = " ".join(quoted(absolute(path)) for path in paths)
            elif name == "user":
                text = quoted(value)
            elif ALGORITHMS.fullmatch(name) and others and value.startswith(f"{others[0]},"):
                # a list of today's would be refused by an ssh that has dropped one of them
                text = f"+{value[len(others[0]) + 1 :]}"
            else:
                text = value
            lines.append(f"{SPELLED.get(name, name)} {text}")
    through = {"proxyjump", "proxycommand"}
    if through & set(nobody) and not through & set(found):
        lines.append("ProxyJump none")
    return lines


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
    # in a block it would be for the hosts of the block
    of_all = re.split(r"^\s*(?:Host|Match)\b", text, maxsplit=1, flags=re.MULTILINE | re.IGNORECASE)[0]
    if re.search(rf"^\s*{re.escape(line)}\s*$", of_all, flags=re.MULTILINE):
        return text
    return f"{line}\n\n{text}" if text else f"{line}\n"


def login_lines(program: str, host: str, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return how Ansible reaches a host, as lines, and arguments that cannot be lines.

    The arguments are taken in their own words. What the operator's configuration says besides is asked of ssh, since a
    block is for the name that Ansible uses, and not for the cluster's.

    Args:
        program: ssh.
        host: as Ansible gives it to ssh.
        arguments: of ssh, in their order.

    Raises:
        SshConfigError: ssh does not take them.
    """
    lines, left_out = directives(arguments)
    configuration = next((absolute(word[3:]) for word in left_out if word.startswith("-F ")), "")
    found = ask_ssh(program, arguments, host)
    if found is None:
        lines.append(f"HostName {host}")
    else:
        said = {line.split()[0].lower() for line in lines} - set(ADDED_UP)
        further = lines_of(found, ask_ssh(program, [], NOBODY) or {})
        lines += [line for line in further if line.split()[0].lower() not in said]
        left_out = []
    # for people; each directive has its first value anyhow
    lines.sort(key=lambda line: not line.startswith("HostName "))
    return [by_configuration(line, configuration) for line in dict.fromkeys(lines)], left_out

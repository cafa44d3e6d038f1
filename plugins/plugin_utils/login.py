# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How Ansible reaches the host of a task by SSH, for actions that do so besides."""

from __future__ import annotations

import os
import shlex
import typing as t

from ansible_collections.ipyparallel.cluster.plugins.module_utils.tunnel import Login


def option_of(connection: t.Any, context: t.Any, name: str) -> t.Any:
    """Return an option of a connection; that of the play where the connection does not know it.

    Args:
        connection: to the host of a task, with what its variables say, or the host's that it is delegated to.
        context: of the play.
        name: of the option, as connection plugin ``ssh`` has it.
    """
    try:
        return connection.get_option(name)
    except KeyError:
        return getattr(context, {"host": "remote_addr"}.get(name, name), None)


def login_of(connection: t.Any, context: t.Any) -> Login:
    """Return how Ansible reaches a host: its arguments of ssh in its order, since ssh takes the first of two.

    Args:
        connection: to it.
        context: of the play.
    """

    def option(name: str) -> t.Any:
        return option_of(connection, context, name)

    def words(name: str) -> list[str]:
        return shlex.split(str(option(name) or ""))

    arguments = words("ssh_args")
    if option("host_key_checking") is False:
        arguments += ["-o", "StrictHostKeyChecking=no"]
    if port := option("port"):
        arguments += ["-p", str(port)]
    if key := option("private_key_file"):
        arguments += ["-i", os.path.expanduser(str(key))]
    if user := option("remote_user"):
        arguments += ["-l", str(user)]
    arguments += [*words("ssh_common_args"), *words("ssh_extra_args")]
    return Login(option("host"), user, tuple(arguments))

# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where everything of a cluster is on a host: the Filesystem Hierarchy Standard in scope system, XDG in scope user."""

from __future__ import annotations

import os
import posixpath
import typing as t
from collections.abc import Mapping

SCOPES = ("system", "user")


def paths(scope: str, cluster: str, facts: Mapping[str, t.Any]) -> dict[str, str]:
    """Return the directories and files of *cluster* on a host.

    Args:
        scope: ``system`` or ``user``.
        cluster: name of the cluster.
        facts: ``env`` and ``user_dir`` as Ansible gathers them on the host, for scope ``user``.

    Returns:
        ``prefix`` (software), ``environment``, ``python``, ``config``, ``state``, ``log``, ``run``, ``client`` (the
        client half, on the controller host).
    """
    if scope == "system":
        tops = {
            "prefix": "/opt",
            "config": "/etc",
            "state": "/var/lib",
            "log": "/var/log",
            "run": "/run",
        }
        found = {name: posixpath.join(top, "ipyparallel", cluster) for name, top in tops.items()}
    else:
        env: Mapping[str, str] = facts.get("env") or {}
        home = env.get("HOME") or facts.get("user_dir") or ""
        variables = {
            "prefix": ("XDG_DATA_HOME", ".local/share"),
            "config": ("XDG_CONFIG_HOME", ".config"),
            "state": ("XDG_STATE_HOME", ".local/state"),
        }
        found = {
            name: posixpath.join(env.get(variable) or posixpath.join(home, below), "ipyparallel", cluster)
            for name, (variable, below) in variables.items()
        }
        found["log"] = posixpath.join(found["state"], "log")
        found["run"] = posixpath.join(found["state"], "run")
    found["environment"] = posixpath.join(found["prefix"], "current")
    found["python"] = posixpath.join(found["environment"], "bin", "python")
    found["client"] = posixpath.join(found["state"], "connector", "ipcontroller-client.json")
    return found


def own_paths(scope: str, cluster: str) -> dict[str, str]:
    """Return the same on this host, as its account has them, for a module that can do without facts."""
    return paths(scope, cluster, {"env": os.environ, "user_dir": os.path.expanduser("~")})

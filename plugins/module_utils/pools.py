# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Pools: named sets of engines with the same start-up. How many engines a host has, and how an engine names itself."""

from __future__ import annotations

import dataclasses
import re
import typing as t
from collections.abc import Mapping
from urllib.parse import unquote

from ansible_collections.ipyparallel.cluster.plugins.module_utils.process import ProcessError, check_environment

POOL_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
POOL_KEYS = ("name", "count", "environment")


class PoolError(ValueError):
    """A pool is not described right; the message names the variable, the value and the remedy."""


@dataclasses.dataclass(frozen=True)
class Pool:
    """A pool on one host."""

    name: str
    count: int
    environment: dict[str, str]


@dataclasses.dataclass(frozen=True, order=True)
class Engine:
    """Where an engine runs: the *core* is its number on the host within its pool, from 0."""

    host: str
    pool: str
    core: int

    def __str__(self) -> str:
        """Return it as a message names it."""
        return f"{self.host} {self.pool}/{self.core}"


def engines_by_rule(cores: int, with_controller: bool) -> int:
    """Return the number of engines of a host when nothing else is said: its cores, one fewer beside the controller.

    Source of the rule: StarCluster's ipcluster plugin. At least 1.
    """
    return max(1, cores - 1) if with_controller else max(1, cores)


def resolve_count(value: t.Any, what: str, cores: int, with_controller: bool) -> int:
    """Return a count of engines as a number.

    Args:
        value: a number, 0 included; ``cores`` or None for the rule.
        what: the variable that holds it, for the message.
        cores: the host's.
        with_controller: whether the controller runs on the same host.

    Raises:
        PoolError: it is negative or no number.
    """
    if value is None or value == "cores":
        return engines_by_rule(cores, with_controller)
    text = str(value).strip()
    if isinstance(value, bool) or not re.fullmatch(r"\d{1,5}", text):
        raise PoolError(f"{value!r} is not a number of engines: set {what} to 0 or more, or to 'cores'")
    return int(text)


def resolve_pools(pools: list[dict[str, t.Any]], per_host: t.Any, cores: int, with_controller: bool) -> list[Pool]:
    """Return the pools of a host with their counts as numbers.

    Args:
        pools: ``ipyparallel_engines_pools``.
        per_host: ``ipyparallel_engines_per_host``, for pools without a count.
        cores: the host's.
        with_controller: whether the controller runs on the same host.

    Raises:
        PoolError: a pool is not described right.
    """
    found: dict[str, Pool] = {}
    for number, pool in enumerate(pools):
        where = f"ipyparallel_engines_pools[{number}]"
        name = pool.get("name")
        if not isinstance(name, str) or not POOL_NAME.fullmatch(name):
            raise PoolError(
                f"{name!r} is not a name for a pool: set {where}.name to lower-case letters, digits and underscores, a "
                "letter first, 32 at most"
            )
        if unknown := sorted(set(pool) - set(POOL_KEYS)):
            raise PoolError(f"{where} ({name}) has no option {unknown[0]!r}: it has {', '.join(POOL_KEYS)}")
        if name in found:
            raise PoolError(f"{where}: there are two pools {name!r}: give each a name of its own")
        if pool.get("count") is None:
            count = resolve_count(per_host, "ipyparallel_engines_per_host", cores, with_controller)
        else:
            count = resolve_count(pool["count"], f"{where}.count", cores, with_controller)
        found[name] = Pool(name, count, read_variables(pool.get("environment") or {}, f"{where}.environment"))
    return list(found.values())


def read_variables(variables: t.Any, where: str) -> dict[str, str]:
    """Return environment variables as texts.

    Args:
        variables: what the operator gave.
        where: the variable that holds them, for the message.

    Raises:
        PoolError: they are no dictionary, or one cannot be an environment variable.
    """
    if not isinstance(variables, dict):
        raise PoolError(f"{variables!r} is not a dictionary of environment variables: set {where} to one")
    environment = {str(name): str(value) for name, value in variables.items()}
    try:
        check_environment(environment)
    except ProcessError as error:
        raise PoolError(f"{where}: {error}") from None
    return environment


def parse_ident(ident: str) -> dict[str, t.Any]:
    """Return what an engine's ident tells: ``<host>__<pool>__<core>__<pid>__<random>``; see ``ipengine_config.py``.

    An engine that was not started by this collection has another ident, and then only ``host`` (None) is certain.
    """
    parts = ident.split("__")
    if len(parts) == 5 and re.fullmatch(r"[0-9]+__[0-9]+", "__".join(parts[2:4])):
        host, pool = (unquote(part.replace("_", "%")) for part in parts[:2])
        return {"host": host, "pool": pool, "core": int(parts[2]), "pid": int(parts[3])}
    return {"host": None, "pool": None, "core": None, "pid": None}


def expected_engines(counts: Mapping[str, Mapping[str, int]]) -> set[Engine]:
    """Return the engines of ``{host: {pool: count}}``, one by one."""
    return {
        Engine(host, pool, core)
        for host, pools in counts.items()
        for pool, count in pools.items()
        for core in range(count)
    }

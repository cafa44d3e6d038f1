# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Pools: named sets of engines with the same size and start-up.

How many engines a host has, what each of them may use, and how an engine names itself.
"""

from __future__ import annotations

import dataclasses
import json
import re
import typing as t
from collections.abc import Iterable, Mapping
from urllib.parse import unquote

from ansible_collections.ipyparallel.cluster.plugins.module_utils.process import ProcessError, check_environment

POOL_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
POOL_KEYS = ("name", "count", "environment", "hosts", "size", "script", "code")
GIB = 1024**3
SIZES: dict[str, dict[str, t.Any]] = {
    "small": {"cpus": 1, "memory": GIB},
    "medium": {"cpus": 2, "memory": 4 * GIB},
    "large": {"cpus": 4, "memory": 16 * GIB},
}
"""What one engine of a pool may use, by the names that Sense gave to its workers."""
ENGINE_MEMORY = 75 * 1024**2
"""What an engine and its nanny take before they do anything (measured; bytes)."""
LEAST_MEMORY = 128 * 1024**2
LEAST_CPUS = 0.1
UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": GIB, "T": 1024 * GIB}
Count: t.TypeAlias = "int | list[int]"
"""Engines of a pool on a host: how many, counted from 0, or their numbers."""


class PoolError(ValueError):
    """A pool is not described right; the message names the variable, the value and the remedy."""


@dataclasses.dataclass(frozen=True)
class Pool:
    """A pool on one host. *cpus* and *memory* (bytes) are what one engine may use, None for all; *code* runs first."""

    name: str
    count: int
    environment: dict[str, str]
    cpus: float | None = None
    memory: int | None = None
    code: str = ""


@dataclasses.dataclass(frozen=True, order=True)
class Engine:
    """Where an engine runs: the *core* is its number on the host within its pool, from 0."""

    host: str
    pool: str
    core: int

    @classmethod
    def of(cls, engine: Mapping[str, t.Any]) -> Engine:
        """Return where *engine* is, a mapping with ``host``, ``pool`` and ``core``."""
        return cls(engine["host"], engine["pool"], engine["core"])

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


def parse_memory(value: t.Any) -> int | None:
    """Return an amount of memory in bytes: a number, or one with ``K``, ``M``, ``G`` or ``T`` (powers of 1024).

    None where it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", str(value).strip(), re.IGNORECASE)
    if isinstance(value, bool) or not found:
        return None
    return int(float(found[1]) * UNITS[found[2].upper()])


def resolve_size(value: t.Any, where: str) -> tuple[float | None, int | None]:
    """Return how many CPUs and how much memory (bytes) one engine may use; None for all there is.

    Args:
        value: a name of `SIZES`; or ``cpus``, a number, and ``memory``, see `parse_memory`, each of which may be
        absent; the latter as JSON too.
        where: the variable that holds it, for the message.

    Raises:
        PoolError: it is no size, or less than one engine needs.
    """
    if value is None or value == "":
        return None, None
    size = value
    if isinstance(value, str):
        try:
            # as a variable of a command line has it
            size = SIZES.get(value) or json.loads(value)
        except ValueError:
            size = None
    if not isinstance(size, dict) or set(size) - {"cpus", "memory"}:
        raise PoolError(
            f"{value!r} is not a size: set {where} to {', '.join(SIZES)}, or to a dictionary with cpus (such as 0.5) "
            "and memory (such as 512M)"
        )
    cpus, memory = size.get("cpus"), size.get("memory")
    if cpus is not None:
        if isinstance(cpus, bool) or not re.fullmatch(r"\d+(\.\d+)?", str(cpus).strip()):
            raise PoolError(f"{cpus!r} is not a number of CPUs: set {where}.cpus to one, such as 0.5")
        cpus = float(cpus)
        if cpus < LEAST_CPUS:
            raise PoolError(f"{cpus:g} CPUs are less than one engine needs: set {where}.cpus to {LEAST_CPUS} or more")
    if memory is not None:
        found = parse_memory(memory)
        if found is None:
            raise PoolError(f"{memory!r} is not an amount of memory: set {where}.memory to one, such as 512M or 2G")
        if found < LEAST_MEMORY:
            raise PoolError(
                f"{memory} of memory is less than one engine needs, which takes {ENGINE_MEMORY // UNITS['M']}M before "
                f"it does anything: set {where}.memory to {LEAST_MEMORY // UNITS['M']}M or more"
            )
        memory = found
    return cpus, memory


def resolve_pools(
    pools: list[dict[str, t.Any]], per_host: t.Any, cores: int, with_controller: bool, host: str = ""
) -> list[Pool]:
    """Return the pools of a host with their counts as numbers.

    Args:
        pools: ``ipyparallel_engines_pools``.
        per_host: ``ipyparallel_engines_per_host``, for pools without a count.
        cores: the host's.
        with_controller: whether the controller runs on the same host.
        host: its name, for pools that are on some hosts only.

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
        hosts = pool.get("hosts")
        if hosts is not None and not (isinstance(hosts, list) and all(isinstance(one, str) for one in hosts)):
            raise PoolError(
                f"{hosts!r} is not a list of hosts: set {where}.hosts to names of the inventory, or leave it out"
            )
        environment = read_variables(pool.get("environment") or {}, f"{where}.environment")
        cpus, memory = resolve_size(pool.get("size"), f"{where}.size")
        code = str(pool.get("code") or "")
        found[name] = Pool(name, count if hosts is None or host in hosts else 0, environment, cpus, memory, code)
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


def numbers_of(count: Count) -> list[int]:
    """Return the numbers of the engines of a pool on a host."""
    return list(count) if isinstance(count, list) else list(range(count))


def as_count(numbers: Iterable[int]) -> Count:
    """Return *numbers* of engines as they are remembered: how many, where they are counted from 0."""
    found = sorted(set(numbers))
    return len(found) if found == list(range(len(found))) else found


def is_count(value: t.Any) -> bool:
    """Tell whether *value* is a count of engines as it is remembered."""
    entries = value if isinstance(value, list) else [value]
    return all(isinstance(entry, int) and not isinstance(entry, bool) and entry >= 0 for entry in entries)


def expected_engines(counts: Mapping[str, Mapping[str, Count]]) -> set[Engine]:
    """Return the engines of ``{host: {pool: count}}``, one by one."""
    return {
        Engine(host, pool, core)
        for host, pools in counts.items()
        for pool, count in pools.items()
        for core in numbers_of(count)
    }

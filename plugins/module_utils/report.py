# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What people read about a cluster: the status, and the closing summary."""

from __future__ import annotations

import typing as t
from collections.abc import Iterable, Mapping

from ansible_collections.ipyparallel.cluster.plugins.module_utils.overview import summed


def plural(count: int, noun: str) -> str:
    """Return *count* with its *noun*."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """Return *rows* as lines with aligned columns."""
    lines = list(rows)
    widths = [max(len(row[column]) for row in lines) for column in range(len(lines[0]))] if lines else []
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in lines]


def notebook_lines(notebooks: Mapping[str, Mapping[str, t.Any]]) -> list[tuple[str, str]]:
    """Return what the operator is told of each notebook."""
    lines: list[tuple[str, str]] = []
    for host, notebook in sorted(notebooks.items()):
        lines.append(("notebook", str(notebook.get("url", ""))))
        if command := notebook.get("password_command"):
            lines.append(("password", f"{command}   (on {host})"))
        else:
            lines.append(("password", "the one you gave"))
        lines.append(("notebooks in", f"{notebook.get('directory', '')}   (on {host})"))
    return lines


def health_lines(health: Mapping[str, t.Any]) -> list[tuple[str, str]]:
    """Return what the watchdog says of a cluster."""
    if not health:
        return []
    if health["state"] == "absent":
        return [("health", "NO WATCHDOG answers: nobody repairs this cluster")]
    lines = [("health", f"{health['state']} since {health['since']}")]
    lines += [("", problem) for problem in health["problems"]]
    lines += [("", f"{event['time']} {event['text']}") for event in health["repairs"]]
    return lines


def connect_lines(name: str) -> list[str]:
    """Return the three lines of Python that connect, as StarCluster's closing message had them."""
    return [
        "import ipyparallel as ipp",
        f'client = ipp.Client(profile="{name}")',
        "client[:].apply_sync(lambda: 6 * 7)",
    ]


def client_rows(name: str, tunnel: str) -> list[tuple[str, str]]:
    """Return how clients of the operator's reach a cluster; *tunnel* is the login of the SSH tunnel, or empty."""
    return [
        *([("clients", f"come through SSH to {tunnel}; run connect again when that has ended")] if tunnel else []),
        ("shell", f"ipython --profile={name}   (ipclient and ipview are ready)"),
    ]


def in_body(rows: Iterable[tuple[str, ...]], name: str) -> str:
    """Return *rows*, and the lines of Python that connect to cluster *name*, below a heading."""
    body = "\n".join(f"  {line}" for line in table(rows))
    python = "\n".join(f"    {line}" for line in connect_lines(name))
    return f"{body}\n  connect from Python:\n{python}"


def connection(fetched: Mapping[str, t.Any], name: str) -> str:
    """Return what playbook ``connect`` ends with.

    Args:
        fetched: what action ``fetch_connector`` returned.
        name: of the cluster.
    """
    rows = [("connector", str(fetched["path"])), *client_rows(name, fetched.get("tunnel") or "")]
    return f"Cluster {name}, from this machine\n{in_body(rows, name)}"


def summary(cluster: Mapping[str, t.Any], seconds: float, tunnel: str = "") -> str:
    """Return the closing summary of a deployment.

    Args:
        cluster: what module ``cluster_info`` returned.
        seconds: how long the run took.
        tunnel: the login of the operator's SSH tunnel; empty without one.
    """
    engines = cluster["engines"]
    hosts = {engine["host"] for engine in engines}
    size = f"{plural(len(engines), 'engine')} on {plural(len(hosts), 'node')}"
    head = f"Cluster {cluster['name']}: {size}, in {seconds:.1f} s"
    rows = [
        *notebook_lines(cluster["notebooks"]),
        ("messages", f"{cluster['packer']}, {encryption_words(cluster['encryption'])}"),
        *client_rows(cluster["name"], tunnel),
    ]
    return f"{head}\n{in_body(rows, cluster['name'])}"


def encryption_words(encryption: str) -> str:
    """Return the encryption as a reader knows it."""
    return "encrypted (CURVE)" if encryption == "curve" else "not encrypted (signed)"


def duration(seconds: float | None) -> str:
    """Return a length of time in its two largest units."""
    if seconds is None:
        return "?"
    parts: list[str] = []
    left = max(0, int(seconds))
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or parts or unit == "s":
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def size(count: float) -> str:
    """Return a number of bytes in the unit that suits it."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def known(value: t.Any) -> str:
    """Return *value* as a text, a question mark where it is not known."""
    return "?" if value is None else str(value)


def of_expected(count: Mapping[str, t.Any]) -> str:
    """Return how many engines there are of those that are expected."""
    return f"{known(count['registered'])} of {known(count['expected'])}"


def host_table(hosts: Mapping[str, Mapping[str, t.Any]], several_pools: bool) -> list[str]:
    """Return the hosts of a cluster as a table, each with its engines and how it is used."""
    rows: list[tuple[str, ...]] = [("host", "is", "engines", "busy", "cores", "load", "memory", "up", "")]
    for name, host in hosts.items():
        counts = host["engines"] or {}
        sums = summed(counts.values())
        engines = of_expected(sums) if counts else known(None if host["engines"] is None else "none")
        if several_pools and counts:
            engines = ", ".join(f"{pool} {of_expected(count)}" for pool, count in counts.items())
        memory = load = "?"
        if host["memory_total_bytes"] is not None:
            memory = f"{size(host['memory_used_bytes'])} of {size(host['memory_total_bytes'])}"
            load = " ".join(f"{value:.2f}" for value in host["load_average"])
        rows.append(
            (
                name,
                ", ".join(host["roles"]) or "?",
                engines,
                known(None if host["engines"] is None else sums["busy"]),
                known(host["cores"]),
                load,
                memory,
                duration(host["uptime_seconds"]),
                str(host["problem"]),
            )
        )
    return table(rows)


def certificate_lines(hosts: Mapping[str, Mapping[str, t.Any]]) -> list[tuple[str, str]]:
    """Return for how long the certificates of the notebooks are valid."""
    lines = []
    for name, host in hosts.items():
        days = host["certificate_days"]
        if days is not None:
            left = f"{days:.0f} days left" if days > 0 else "EXPIRED: run deploy, which issues another"
            lines.append(("certificate", f"{left}   (on {name})"))
    return lines


def status(cluster: Mapping[str, t.Any]) -> str:
    """Return the status of a cluster as a table for people.

    Args:
        cluster: what `overview.overview` returned.
    """
    if cluster["deployed"] is False:
        return str(cluster["problem"])
    state = "running" if cluster["running"] else "NOT RUNNING"
    rows: list[tuple[str, str]] = [("cluster", f"{cluster['name']}: {state}")]
    if cluster["problem"]:
        rows.append(("problem", str(cluster["problem"])))
    if cluster["deployed"]:
        rows += known_rows(cluster)
    lines = table(rows)
    hosts = cluster["hosts"]
    lines += ["", *host_table(hosts, len(cluster["pools"]) > 1)]
    if cluster["engines"]:
        head = ("id", "host", "pool", "core", "pid", "state", "queued", "completed")
        body = [
            (
                *(known(engine[name]) for name in head),
                duration(engine["uptime_seconds"]),
                "?" if engine["memory_bytes"] is None else size(engine["memory_bytes"]),
            )
            for engine in cluster["engines"]
        ]
        lines += ["", *table([(*head, "up", "memory"), *body])]
    return "\n".join(lines)


def known_rows(cluster: Mapping[str, t.Any]) -> list[tuple[str, str]]:
    """Return what the controller host tells of a cluster."""
    versions, queue, controller = cluster["versions"], cluster["queue"], cluster["controller"]
    up = controller.get("uptime_seconds")
    engines = f"{len(cluster['engines']) if cluster['running'] else '?'} of {cluster['expected']}"
    if len(cluster["pools"]) > 1:
        engines += f": {', '.join(f'{pool} {of_expected(count)}' for pool, count in cluster['pools'].items())}"
    busy = sum(engine["state"] == "busy" for engine in cluster["engines"])
    return [
        (
            "controller",
            f"{controller['address']}, {f'up {duration(up)}, ' if up is not None else ''}"
            f"ports {ports_words(controller['ports'])}",
        ),
        ("engines", f"{engines}{f', {busy} busy' if cluster['running'] else ''}"),
        (
            "queue",
            ", ".join(f"{queue[name]} {name}" for name in ("queued", "unassigned", "completed")) if queue else "?",
        ),
        (
            "versions",
            ", ".join(f"{name} {versions[name]}" for name in ("python", "ipyparallel", "pyzmq") if name in versions),
        ),
        (
            "messages",
            f"{cluster['packer']}, {encryption_words(cluster['encryption'])}, scheduler {cluster['scheduler']}",
        ),
        *health_lines(cluster.get("health") or {}),
        *notebook_lines(cluster["notebooks"]),
        *certificate_lines(cluster["hosts"]),
    ]


def ports_words(ports: Mapping[str, str]) -> str:
    """Return the three pools of ports."""
    return ", ".join(f"{span} ({name})" for name, span in ports.items())


def execution(done: Mapping[str, t.Any]) -> str:
    """Return what engines said, each with its place; what several of them said in the same words is said once.

    Args:
        done: what module ``execute`` returned.
    """
    if "results" not in done:
        engines = done.get("engines")
        return f"would run on {plural(len(engines), 'engine')}" if engines is not None else str(done.get("msg", ""))
    said: dict[tuple[str, ...], list[str]] = {}
    for one in done["results"]:
        number = "?" if one["id"] is None else one["id"]
        words = tuple(
            str(one[part] or "").rstrip("\n") for part in ("status", "stdout", "stderr", "result", "traceback")
        )
        # a traceback ends with the error
        words = (*words, "" if words[-1] else one["error"])
        said.setdefault(words, []).append(f"{number} ({one['host'] or '?'})")
    lines = []
    for (state, *texts, error), places in said.items():
        lines.append(f"{'engine' if len(places) == 1 else 'engines'} {', '.join(places)}: {state}")
        lines += [f"    {line}" for text in (*texts, error) if text for line in text.splitlines()]
    return "\n".join(lines)


def restarts(done: Mapping[str, t.Any]) -> str:
    """Return what module ``restart_engines`` did, as a table."""
    rows = [("host", "pool", "core", "id before", "id after", "seconds")]
    for one in done["engines"]:
        after = "would be new" if one["after"] is None else str(one["after"])
        seconds = "" if one["seconds"] is None else f"{one['seconds']:.1f}"
        rows.append((one["host"], one["pool"], str(one["core"]), str(one["before"]), after, seconds))
    total = f", in {done['seconds']:.1f} s" if "seconds" in done else ""
    problem = [done["problem"]] if done.get("problem") else []
    return "\n".join([*table(rows), f"{plural(len(done['engines']), 'engine')}{total}", *problem])


def installation(
    results: Mapping[str, Mapping[str, t.Any]], reason: str, failed: Iterable[str], would: bool = False
) -> str:
    """Return what was installed where, and whether it is remembered.

    Args:
        results: what module ``python_environment`` returned, by host.
        reason: why it is not remembered; empty where it is.
        failed: hosts that have dropped out.
        would: whether nothing of it was done, because this is check mode.
    """
    places: dict[tuple[str, ...], list[str]] = {}
    for host, result in results.items():
        places.setdefault(tuple(result["changes"]), []).append(host)
    lines = []
    for changes, hosts in places.items():
        said = "" if changes else " nothing to install"
        lines.append(f"{', '.join(hosts)}:{said}")
        lines += [f"    {change}" for change in changes]
    if any(change.startswith("-") for changes in places for change in changes):
        lines.append("what engines have imported already stays as it was until they restart")
    if failed := list(failed):
        lines.append(f"{', '.join(failed)}: failed, as said above")
    lines.append(f"not remembered for later hosts: {reason}" if reason else "remembered for later hosts")
    return "\n".join([*(["this would be done:"] if would else []), *lines])


def rotation(proof: Mapping[str, t.Any], made: Mapping[str, t.Any], seconds: float) -> str:
    """Return what a renewal of the keys came to.

    Args:
        proof: what module ``prove_rotation`` returned.
        made: what module ``connector`` returned.
        seconds: how long the run took.
    """
    if "refused" not in proof:
        return (
            "would make new keys, stop the engines, restart the controller, hand out the connector and start the "
            "engines"
        )
    before = f"{proof['channels']} ports refuse its key, and " if proof["channels"] else ""
    return "\n".join(
        [
            f"New keys in {seconds:.1f} s, fingerprint {made['fingerprint']}",
            f"  the old connector: {before}its client gets {proof['refused']}",
            f"  the new one: the hub answers after {proof['answered']:.2f} s",
            "  clients that are open, in notebooks too, have the old one: make them anew",
        ]
    )


def verification(result: Mapping[str, t.Any]) -> str:
    """Return the checks of module ``verify`` as a table."""
    rows = [("feature", "check", "seconds", "")]
    for check in result["checks"]:
        outcome = "ok" if check["ok"] else f"FAILED: {check.get('message', '')}"
        rows.append((str(check["feature"]), check["name"], f"{check['seconds']:.3f}", outcome))
    lines = [*table(rows), *(f"not checked: {entry['name']}: {entry['reason']}" for entry in result.get("omitted", []))]
    passed = sum(1 for check in result["checks"] if check["ok"])
    return "\n".join([*lines, f"{passed} of {len(result['checks'])} checks passed"])


def ssh(written: Mapping[str, t.Any], logins: Mapping[str, Mapping[str, t.Any]], would: bool = False) -> str:
    """Return what the operator can do with the settings of OpenSSH, and what is still to be done.

    Args:
        written: what module ``ssh_config`` returned.
        logins: how the hosts of the run are reached.
        would: whether this is check mode.
    """
    if not written["names"]:
        return f"no host of this run has connection ssh; {written['path']} keeps the others that it has"
    is_written = "would be written" if would else "is written"
    lines = [f"{written['path']} {is_written}: {', '.join(f'ssh {name}' for name in written['names'])}"]
    if written["include"]:
        lines.append(f"put this line first into ~/.ssh/config, or give -F {written['path']}:\n    {written['include']}")
    for host, login in sorted(logins.items()):
        if not login["lines"]:
            lines.append(f"{host} has another connection than ssh, and is left out")
        if login["left_out"]:
            lines.append(f"{host}: not carried over: {' '.join(login['left_out'])}")
    return "\n".join(lines)


def logs(found: Mapping[str, Mapping[str, t.Any]]) -> str:
    """Return what module ``fetch_logs`` has brought of each host, and what it has not.

    Args:
        found: by host, what it returned.
    """
    rows = [("host", "process", "state", "lines", "file")]
    without = []
    for host, result in sorted(found.items()):
        brought = result.get("logs") or []
        rows += [(host, log["name"], log["state"], str(log["lines"]), log["path"]) for log in brought]
        if not result:
            without.append(f"no logs of {host}: it has failed, as said above")
        elif not brought:
            why = result.get("problem") or result.get("msg") or "nothing of the cluster is laid down there"
            without.append(f"no logs of {host}: {why}")
    return "\n".join([*(table(rows) if rows[1:] else []), *without])


def what_stays(notebooks: Mapping[str, Mapping[str, t.Any]]) -> str:
    """Return what a removal of the cluster left."""
    places = [f"{notebook['directory']} on {host}" for host, notebook in sorted(notebooks.items())]
    return f"Your notebooks are still in {', '.join(places)}" if places else "Directories of notebooks stay"

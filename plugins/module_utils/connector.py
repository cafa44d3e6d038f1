# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The identity of a cluster: what listens where, with which keys, and the two connector halves made from it.

The identity exists before any process starts. The controller is told to use it (``ipcontroller_config.py`` reads the
same file), so the halves made here are byte for byte those that the controller writes itself, and engines, notebook and
operator can have theirs at once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import ipaddress
import json
import os
import re
import secrets
import typing as t

from ansible_collections.ipyparallel.cluster.plugins.module_utils.files import read_text

PACKERS = ("json", "pickle", "msgpack", "orjson")
ENCRYPTIONS = ("curve", "none")
SCHEDULERS = ("leastload", "lru", "plainrandom", "twobin", "weighted")
"""``TaskScheduler.scheme_name``; ``pure`` is left out, because it stops farming once an engine has left."""

ENGINE_CHANNELS = ("registration", "control", "mux", "task", "iopub", "hb_ping", "hb_pong")
BROADCAST_LEAVES = 2
"""``IPController.broadcast_scheduler_depth=1`` has two leaves, each with a port for engines and an internal one."""
CLIENT_CHANNELS = ("control", "mux", "task", "iopub", "notification", "broadcast")

ENGINE_PORTS = len(ENGINE_CHANNELS) + BROADCAST_LEAVES
CLIENT_PORTS = len(CLIENT_CHANNELS)
INTERNAL_PORTS = BROADCAST_LEAVES + 1
WATCHDOG_PORT = ENGINE_PORTS + CLIENT_PORTS + INTERNAL_PORTS
PORT_RANGE = 20
"""Ports of one cluster: ``port_base`` to ``port_base + 19``; 19 are used, one is kept for later."""

DEFAULTS: dict[str, t.Any] = {"packer": "json", "encryption": "curve", "scheduler": "leastload", "port_base": 10100}

IDENTITY_FILE = "identity.json"
CONNECTOR_DIRECTORY = "connector"
CLUSTER_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
Half = t.Literal["client", "engine"]


class ConnectorError(ValueError):
    """An identity or a connector is not right; the message names file, key, value and remedy."""


def check_cluster_name(name: str) -> None:
    """Check the name of a cluster: ``[a-z][a-z0-9_]{0,31}``, fit for groups, units, paths and profiles.

    Raises:
        ConnectorError: the name is not of that form.
    """
    if not CLUSTER_NAME.fullmatch(name):
        raise ConnectorError(
            f"{name!r} is not a name for a cluster: 1 to 32 characters, a lower-case letter first, then lower-case "
            "letters, digits and underscores (variable 'cluster')"
        )


@dataclasses.dataclass(frozen=True)
class Ports:
    """The ports of a cluster in three pools, in the order in which ipcontroller draws from them."""

    base: int

    @property
    def engine(self) -> list[int]:
        """``IPController.engine_ports``: registration first, which clients use too."""
        return list(range(self.base, self.base + ENGINE_PORTS))

    @property
    def client(self) -> list[int]:
        """``IPController.client_ports``."""
        start = self.base + ENGINE_PORTS
        return list(range(start, start + CLIENT_PORTS))

    @property
    def asked(self) -> dict[str, list[int]]:
        """The ports of the controller that another host has to reach, by what that host is."""
        return {"engines": self.engine, "notebook": [self.base, *self.client]}

    @property
    def internal(self) -> list[int]:
        """``IPController.ports``: between the broadcast schedulers, and the monitor; on loopback only."""
        start = self.base + ENGINE_PORTS + CLIENT_PORTS
        return list(range(start, start + INTERNAL_PORTS))

    @property
    def metrics(self) -> int:
        """Where the watchdog answers, on loopback only."""
        return self.base + WATCHDOG_PORT

    @property
    def reserved(self) -> range:
        """All ports that no other cluster of the host may use."""
        return range(self.base, self.base + PORT_RANGE)


@dataclasses.dataclass(frozen=True)
class Identity:
    """What makes a cluster this cluster. Secret as a whole, but for `public`."""

    cluster: str
    address: str
    port_base: int
    packer: str
    encryption: str
    scheduler: str
    key: str
    curve_publickey: str
    curve_secretkey: str

    @property
    def ports(self) -> Ports:
        """The three pools of ports."""
        return Ports(self.port_base)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change whenever anything of the identity does."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def public(self) -> dict[str, t.Any]:
        """What may be shown of the identity."""
        shown = {
            name: getattr(self, name)
            for name in ("cluster", "address", "port_base", "packer", "encryption", "scheduler")
        }
        return {**shown, "fingerprint": self.fingerprint}

    def half(self, which: Half) -> dict[str, t.Any]:
        """Return a half of the connector, with the keys and their order as ipcontroller writes them.

        Args:
            which: ``client`` or ``engine``.
        """
        engine = dict(zip(ENGINE_CHANNELS, self.ports.engine, strict=False))
        channels: dict[str, t.Any]
        if which == "engine":
            channels = {**engine, "broadcast": self.ports.engine[len(ENGINE_CHANNELS) :]}
        else:
            client = dict(zip(CLIENT_CHANNELS, self.ports.client, strict=True))
            channels = {"registration": engine["registration"]}
            for name, port in client.items():
                channels[name] = port
                if name == "task":
                    channels["task_scheme"] = self.scheduler
        return {
            "ssh": "",
            "interface": f"tcp://{self.address}",
            **channels,
            "key": self.key,
            "curve_serverkey": self.curve_publickey if self.encryption == "curve" else None,
            "location": self.address,
            "pack": self.packer,
            "unpack": self.packer,
            "signature_scheme": "hmac-sha256",
        }

    def text(self, which: Half) -> str:
        """Return the exact text of the file that ipcontroller writes for a half."""
        return json.dumps(self.half(which), indent=2)


def half_path(state: str, which: Half) -> str:
    """Return where a half is kept on the controller host, below the state directory *state*."""
    return os.path.join(state, CONNECTOR_DIRECTORY, f"ipcontroller-{which}.json")


def identity_path(state: str) -> str:
    """Return where the identity is kept on the controller host, below the state directory *state*."""
    return os.path.join(state, IDENTITY_FILE)


def is_port_base(value: t.Any) -> bool:
    """Tell whether *value* is a number at which the ports of a cluster can begin."""
    return isinstance(value, int) and not isinstance(value, bool) and 1024 <= value <= 65535 - PORT_RANGE + 1


def check_settings(settings: dict[str, t.Any]) -> None:
    """Check the values an operator can give: packer, encryption, scheduler, port_base, address.

    Raises:
        ConnectorError: naming the variable, the value and what is allowed.
    """
    for name, allowed in (("packer", PACKERS), ("encryption", ENCRYPTIONS), ("scheduler", SCHEDULERS)):
        if settings[name] not in allowed:
            raise ConnectorError(
                f"{settings[name]!r} is not a {name}: set ipyparallel_controller_{name} to one of {', '.join(allowed)}"
            )
    base = settings["port_base"]
    if not is_port_base(base):
        raise ConnectorError(
            f"{base!r} is not a start for {PORT_RANGE} ports: set ipyparallel_controller_port_base to a number from "
            f"1024 to {65535 - PORT_RANGE + 1}"
        )
    try:
        # a number would be an address too
        address = ipaddress.IPv4Address(str(settings["address"]))
    except ValueError:
        raise ConnectorError(
            f"{settings['address']!r} is not an IPv4 address: set ipyparallel_address to the address at which engines "
            "and clients reach the controller host"
        ) from None
    if address.is_unspecified or address.is_multicast:
        raise ConnectorError(
            f"{address} is not the address of one host: set ipyparallel_address to the address at which engines and "
            "clients reach the controller host"
        )


def merge(
    cluster: str,
    given: dict[str, t.Any],
    remembered: dict[str, t.Any] | None,
    default_address: str,
) -> dict[str, t.Any]:
    """Return the settings of the identity: what is given, else what is remembered, else the default.

    Args:
        cluster: its name.
        given: packer, encryption, scheduler, port_base, address; None where the operator gave nothing.
        remembered: the settings of the identity there is, or None.
        default_address: the address for a new identity.

    Raises:
        ConnectorError: a value is not allowed.
    """
    check_cluster_name(cluster)
    settings = {**DEFAULTS, "address": default_address}
    for source in (remembered or {}, given):
        settings.update({name: source[name] for name in settings if source.get(name) is not None})
    check_settings(settings)
    return {"cluster": cluster, **settings}


def new_keys() -> dict[str, str]:
    """Return fresh keys: the session's HMAC key and the controller's CURVE pair (Z85). Needs pyzmq."""
    import zmq

    public, secret = zmq.curve_keypair()
    return {
        "key": secrets.token_hex(32),
        "curve_publickey": public.decode("ascii"),
        "curve_secretkey": secret.decode("ascii"),
    }


def parse_identity(text: str, path: str) -> Identity:
    """Read an identity, strictly.

    Args:
        text: content of the file.
        path: its name, for messages.

    Raises:
        ConnectorError: the text is not a whole identity; names *path*, the key and the remedy.
    """
    remedy = "make a new one with playbook ipyparallel.cluster.deploy -e ipyparallel_controller_identity=rotated"
    values = _load_object(text, path, remedy)
    for field in dataclasses.fields(Identity):
        kind = int if field.name == "port_base" else str
        if field.name not in values:
            raise ConnectorError(f"{path} has no {field.name!r}: it is broken; {remedy}")
        if not isinstance(values[field.name], kind) or isinstance(values[field.name], bool):
            raise ConnectorError(f"{path}: {field.name!r} is not a {kind.__name__}: it is broken; {remedy}")
    if unknown := sorted(set(values) - {field.name for field in dataclasses.fields(Identity)}):
        raise ConnectorError(f"{path}: {unknown[0]!r} is not a part of an identity: it is broken; {remedy}")
    identity = Identity(**values)
    for name in ("curve_publickey", "curve_secretkey"):
        if len(getattr(identity, name)) != 40:
            raise ConnectorError(f"{path}: {name!r} is not a key of 40 characters: it is broken; {remedy}")
    if len(identity.key) < 32:
        raise ConnectorError(f"{path}: 'key' has fewer than 32 characters: it is broken; {remedy}")
    try:
        check_settings(values)
    except ConnectorError as error:
        raise ConnectorError(f"{path}: {error}; or {remedy}") from None
    return identity


def identity_text(identity: Identity) -> str:
    """Return the text of the file that holds *identity*."""
    return json.dumps(dataclasses.asdict(identity), indent=2) + "\n"


def load_identity(state: str, broken_is_none: bool = False) -> Identity | None:
    """Return the identity kept below the state directory *state*, or None where there is none.

    Args:
        state: the directory.
        broken_is_none: treat a broken identity as none, because it is about to be replaced.

    Raises:
        ConnectorError: it is broken.
    """
    path = identity_path(state)
    text = read_text(path)
    if text is None:
        return None
    try:
        return parse_identity(text, path)
    except ConnectorError:
        if broken_is_none:
            return None
        raise


def salvage(state: str) -> dict[str, t.Any]:
    """Return the settings of a broken identity that are still legible and allowed, so that a repair keeps them."""
    try:
        values = json.loads(read_text(identity_path(state)) or "{}")
    except ValueError:
        return {}
    kept: dict[str, t.Any] = {}
    for name in (*DEFAULTS, "address"):
        try:
            check_settings({**DEFAULTS, "address": "127.0.0.1", name: values[name]})
        except (ConnectorError, KeyError, TypeError):
            continue
        kept[name] = values[name]
    return kept


def parse_half(text: str, which: Half, path: str) -> dict[str, t.Any]:
    """Read a half of a connector, strictly.

    Raises:
        ConnectorError: the text is not a whole half; names *path*, the key and the remedy.
    """
    remedy = "a run of playbook ipyparallel.cluster.deploy writes it again"
    values = _load_object(text, path, remedy)
    integers = ["registration", "control", "mux", "task", "iopub"]
    integers += ["hb_ping", "hb_pong"] if which == "engine" else ["notification", "broadcast"]
    strings = ["interface", "key", "location", "pack", "unpack", "signature_scheme"]
    for names, kind, what in ((integers, int, "a port"), (strings, str, "a text")):
        for name in names:
            if name not in values:
                raise ConnectorError(f"{path} has no {name!r}: it is broken or half-written; {remedy}")
            if not isinstance(values[name], kind) or isinstance(values[name], bool):
                raise ConnectorError(f"{path}: {name!r} is not {what}: it is broken; {remedy}")
    if which == "engine" and not isinstance(values.get("broadcast"), list):
        raise ConnectorError(f"{path}: 'broadcast' is not a list of ports: it is broken; {remedy}")
    if "curve_serverkey" not in values:
        raise ConnectorError(f"{path} has no 'curve_serverkey': it is broken or half-written; {remedy}")
    return values


def _load_object(text: str, path: str, remedy: str) -> dict[str, t.Any]:
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ConnectorError(f"{path} is not JSON ({error}): it is broken or half-written; {remedy}") from None
    if not isinstance(values, dict):
        raise ConnectorError(f"{path} is not a JSON object: it is broken; {remedy}")
    return values

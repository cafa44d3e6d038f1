# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import dataclasses
import json

import pytest
import zmq
from ansible_collections.ipyparallel.cluster.plugins.module_utils import connector
from ansible_collections.ipyparallel.cluster.plugins.module_utils.connector import ConnectorError, Identity, Ports
from hypothesis import given
from hypothesis import strategies as st

IDENTITY = Identity(
    cluster="alpha",
    address="10.0.0.5",
    port_base=10100,
    packer="msgpack",
    encryption="curve",
    scheduler="lru",
    key="0123456789abcdef" * 4,
    curve_publickey="p" * 40,
    curve_secretkey="s%" * 20,
)
SETTINGS = {**connector.DEFAULTS, "address": "127.0.0.1"}
NOTHING = dict.fromkeys(SETTINGS)

bases = st.integers(1024, 65535 - connector.PORT_RANGE + 1)
keys = st.text("0123456789abcdefghijkLMNOPQ.-:+=^!/*?&<>()[]{}@%$#", min_size=40, max_size=40)
identities = st.builds(
    Identity,
    cluster=st.from_regex(connector.CLUSTER_NAME, fullmatch=True),
    address=st.ip_addresses(v=4).filter(lambda a: not a.is_unspecified and not a.is_multicast).map(str),
    port_base=bases,
    packer=st.sampled_from(connector.PACKERS),
    encryption=st.sampled_from(connector.ENCRYPTIONS),
    scheduler=st.sampled_from(connector.SCHEDULERS),
    key=st.text("0123456789abcdef", min_size=64, max_size=64),
    curve_publickey=keys,
    curve_secretkey=keys,
)


# ---- names


@pytest.mark.parametrize("name", ["a", "ipyparallel", "second_2", "x" * 32])
def test_names_of_clusters(name):
    connector.check_cluster_name(name)


@pytest.mark.parametrize("name", ["", "two words", "a/b", "Capital", "1st", "_a", "a-b", "x" * 33, "a\n", "ä"])
def test_other_names_are_refused_with_the_rule(name):
    with pytest.raises(ConnectorError) as caught:
        connector.check_cluster_name(name)
    for part in (repr(name), "1 to 32 characters", "lower-case", "variable 'cluster'"):
        assert part in str(caught.value)


# ---- ports


@given(bases)
def test_the_pools_are_separate_and_inside_the_range(base):
    ports = Ports(base)
    pools = [ports.engine, ports.client, ports.internal]
    assert [len(pool) for pool in pools] == [9, 6, 3]
    together = [port for pool in pools for port in pool]
    assert together == list(range(base, base + 18))
    assert set(together) <= set(ports.reserved)
    assert max(ports.reserved) <= 65535


@given(bases, bases)
def test_two_clusters_share_ports_only_when_their_starts_are_near(one, other):
    shared = set(Ports(one).reserved) & set(Ports(other).reserved)
    assert bool(shared) == (abs(one - other) < 20)


# ---- the halves


def test_the_client_half_is_what_ipcontroller_writes():
    assert IDENTITY.text("client") == json.dumps(
        {
            "ssh": "",
            "interface": "tcp://10.0.0.5",
            "registration": 10100,
            "control": 10109,
            "mux": 10110,
            "task": 10111,
            "task_scheme": "lru",
            "iopub": 10112,
            "notification": 10113,
            "broadcast": 10114,
            "key": IDENTITY.key,
            "curve_serverkey": IDENTITY.curve_publickey,
            "location": "10.0.0.5",
            "pack": "msgpack",
            "unpack": "msgpack",
            "signature_scheme": "hmac-sha256",
        },
        indent=2,
    )


def test_the_engine_half_is_what_ipcontroller_writes():
    assert IDENTITY.text("engine") == json.dumps(
        {
            "ssh": "",
            "interface": "tcp://10.0.0.5",
            "registration": 10100,
            "control": 10101,
            "mux": 10102,
            "task": 10103,
            "iopub": 10104,
            "hb_ping": 10105,
            "hb_pong": 10106,
            "broadcast": [10107, 10108],
            "key": IDENTITY.key,
            "curve_serverkey": IDENTITY.curve_publickey,
            "location": "10.0.0.5",
            "pack": "msgpack",
            "unpack": "msgpack",
            "signature_scheme": "hmac-sha256",
        },
        indent=2,
    )


@given(identities)
def test_halves_use_every_port_of_their_pool_and_no_secret_key(identity):
    client, engine = identity.half("client"), identity.half("engine")

    def ports(half):
        values = [value if isinstance(value, list) else [value] for value in half.values()]
        return sorted(port for value in values for port in value if isinstance(port, int))

    assert ports(engine) == identity.ports.engine
    assert ports(client) == [identity.ports.engine[0], *identity.ports.client]
    for half in (client, engine):
        assert half["curve_serverkey"] == (identity.curve_publickey if identity.encryption == "curve" else None)
        assert identity.curve_secretkey not in half.values() or identity.curve_secretkey == identity.curve_publickey


@given(identities, st.sampled_from(["client", "engine"]))
def test_a_half_reads_back(identity, which):
    assert connector.parse_half(identity.text(which), which, "x.json") == identity.half(which)


# ---- keys and fingerprint


def test_new_keys_are_new_and_a_pair():
    one, other = connector.new_keys(), connector.new_keys()
    for name in one:
        assert one[name] != other[name]
    assert zmq.curve_public(one["curve_secretkey"].encode()).decode() == one["curve_publickey"]
    assert len(bytes.fromhex(one["key"])) == 32
    connector.parse_identity(connector.identity_text(dataclasses.replace(IDENTITY, **one)), "identity.json")


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Identity)])
def test_the_fingerprint_is_of_everything(field):
    value = getattr(IDENTITY, field)
    other = dataclasses.replace(IDENTITY, **{field: value + 1 if field == "port_base" else f"{value}x"})
    assert other.fingerprint != IDENTITY.fingerprint
    assert dataclasses.replace(IDENTITY).fingerprint == IDENTITY.fingerprint


def test_what_may_be_shown_has_no_key():
    shown = json.dumps(IDENTITY.public)
    assert IDENTITY.public["fingerprint"] == IDENTITY.fingerprint
    for secret in (IDENTITY.key, IDENTITY.curve_publickey, IDENTITY.curve_secretkey):
        assert secret not in shown


# ---- settings: given, remembered, default


def test_given_comes_before_remembered_before_default():
    remembered = {"packer": "pickle", "port_base": 10200, "address": "10.0.0.1", "key": "k"}
    merged = connector.merge("alpha", {**NOTHING, "packer": "orjson"}, remembered, "10.9.9.9")
    assert merged == {
        "cluster": "alpha",
        "packer": "orjson",
        "port_base": 10200,
        "address": "10.0.0.1",
        "encryption": "curve",
        "scheduler": "leastload",
    }


def test_the_default_address_is_for_a_new_identity_only():
    assert connector.merge("alpha", NOTHING, None, "10.9.9.9")["address"] == "10.9.9.9"
    assert connector.merge("alpha", NOTHING, {"address": "10.0.0.1"}, "10.9.9.9")["address"] == "10.0.0.1"


@pytest.mark.parametrize(
    ("name", "value", "names"),
    [
        ("packer", "yaml", ["ipyparallel_controller_packer", *connector.PACKERS]),
        ("packer", "", ["ipyparallel_controller_packer"]),
        ("encryption", "tls", ["ipyparallel_controller_encryption", "curve", "none"]),
        ("scheduler", "pure", ["ipyparallel_controller_scheduler", *connector.SCHEDULERS]),
        ("port_base", 1023, ["ipyparallel_controller_port_base", "1024", "65516"]),
        ("port_base", 65517, ["ipyparallel_controller_port_base", "65516"]),
        ("port_base", True, ["ipyparallel_controller_port_base"]),
        ("port_base", "10100", ["ipyparallel_controller_port_base"]),
        ("address", "node1", ["ipyparallel_address", "IPv4 address"]),
        ("address", "::1", ["ipyparallel_address", "IPv4 address"]),
        ("address", "10.0.0.256", ["ipyparallel_address"]),
        ("address", "0.0.0.0", ["ipyparallel_address", "one host"]),
        ("address", "224.0.0.1", ["ipyparallel_address", "one host"]),
        ("address", 5, ["ipyparallel_address"]),
    ],
)
def test_a_bad_setting_names_variable_value_and_what_is_allowed(name, value, names):
    with pytest.raises(ConnectorError) as caught:
        connector.merge("alpha", {**NOTHING, name: value}, None, "127.0.0.1")
    assert str(value) in str(caught.value)
    assert [part for part in names if part not in str(caught.value)] == []


@pytest.mark.parametrize("base", [1024, 65516])
def test_the_first_and_the_last_start_of_the_ports(base):
    connector.check_settings({**SETTINGS, "port_base": base})


# ---- the identity on disk


@given(identities)
def test_an_identity_reads_back(identity):
    assert connector.parse_identity(connector.identity_text(identity), "x") == identity


def broken(**changes):
    return {**dataclasses.asdict(IDENTITY), **changes}


@pytest.mark.parametrize(
    ("values", "names"),
    [
        *[
            ({key: value for key, value in dataclasses.asdict(IDENTITY).items() if key != field.name}, [field.name])
            for field in dataclasses.fields(Identity)
        ],
        *[(broken(**{field.name: None}), [field.name]) for field in dataclasses.fields(Identity)],
        (broken(port_base="10100"), ["port_base"]),
        (broken(port_base=True), ["port_base"]),
        (broken(packer="yaml"), ["yaml", "ipyparallel_controller_packer"]),
        (broken(key="short"), ["'key'"]),
        (broken(curve_secretkey="s" * 39), ["curve_secretkey"]),
        (broken(curve_publickey="s" * 41), ["curve_publickey"]),
        (broken(extra=1), ["extra"]),
        ([], ["JSON object"]),
        (None, ["JSON object"]),
    ],
)
def test_a_broken_identity_names_file_key_and_remedy(values, names):
    with pytest.raises(ConnectorError) as caught:
        connector.parse_identity(json.dumps(values), "/state/identity.json")
    message = str(caught.value)
    assert [
        part
        for part in ["/state/identity.json", "ipyparallel_controller_identity=rotated", *names]
        if part not in message
    ] == []
    for secret in (IDENTITY.key, IDENTITY.curve_publickey, IDENTITY.curve_secretkey):
        assert secret not in message


def parse(which, text):
    if which == "identity":
        return connector.parse_identity(text, "/x.json")
    return connector.parse_half(text, which, "/x.json")


@pytest.mark.parametrize("which", ["identity", "client", "engine"])
def test_no_part_of_a_file_is_taken_for_the_whole(which):
    whole = connector.identity_text(IDENTITY).rstrip() if which == "identity" else IDENTITY.text(which)
    for length in range(len(whole)):
        with pytest.raises(ConnectorError, match=r"/x\.json"):
            parse(which, whole[:length])


def test_an_identity_that_is_not_there_is_none(tmp_path):
    assert connector.load_identity(str(tmp_path)) is None
    assert connector.salvage(str(tmp_path)) == {}


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00", b"", b"[]"])
def test_a_broken_identity_is_an_error_unless_it_is_to_be_replaced(tmp_path, content):
    path = tmp_path / "identity.json"
    path.write_bytes(content)
    with pytest.raises(ConnectorError, match="rotated") as caught:
        connector.load_identity(str(tmp_path))
    assert str(path) in str(caught.value)
    assert connector.load_identity(str(tmp_path), broken_is_none=True) is None
    assert connector.salvage(str(tmp_path)) == {}


def test_a_repair_keeps_what_is_legible(tmp_path):
    values = {"port_base": 10200, "packer": "yaml", "encryption": "none", "address": 5, "key": "k", "scheduler": []}
    (tmp_path / "identity.json").write_text(json.dumps(values))
    assert connector.salvage(str(tmp_path)) == {"port_base": 10200, "encryption": "none"}


# ---- the halves on disk


@pytest.mark.parametrize("which", ["client", "engine"])
def test_a_half_without_a_key_is_refused_and_the_key_named(which):
    whole = IDENTITY.half(which)
    optional = {"ssh", "task_scheme"}
    for name in set(whole) - optional:
        half = {key: value for key, value in whole.items() if key != name}
        with pytest.raises(ConnectorError) as caught:
            connector.parse_half(json.dumps(half), which, "/x.json")
        assert "/x.json" in str(caught.value)
        assert repr(name) in str(caught.value)
        assert "ipyparallel.cluster.deploy" in str(caught.value)


@pytest.mark.parametrize(
    ("which", "name", "value"),
    [
        ("client", "registration", "10100"),
        ("client", "mux", True),
        ("client", "broadcast", [1]),
        ("client", "key", None),
        ("engine", "broadcast", 10107),
        ("engine", "hb_ping", None),
        ("engine", "pack", 1),
    ],
)
def test_a_half_with_a_wrong_value_is_refused_and_the_key_named(which, name, value):
    with pytest.raises(ConnectorError, match=f"/x.json: '{name}' is not"):
        connector.parse_half(json.dumps({**IDENTITY.half(which), name: value}), which, "/x.json")


def test_one_half_is_not_taken_for_the_other():
    with pytest.raises(ConnectorError):
        connector.parse_half(IDENTITY.text("client"), "engine", "/x.json")
    with pytest.raises(ConnectorError):
        connector.parse_half(IDENTITY.text("engine"), "client", "/x.json")

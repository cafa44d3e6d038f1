# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The table of the firewall: what is let in, how it is written, and that every difference is found."""

from __future__ import annotations

import copy
import ipaddress
import itertools
import json

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils import nftables
from ansible_collections.ipyparallel.cluster.plugins.module_utils.connector import Ports
from ansible_collections.ipyparallel.cluster.plugins.module_utils.nftables import FirewallError, Member
from hypothesis import given
from hypothesis import strategies as st

PORTS = Ports(10100)
MEMBERS = {
    "node1": Member("10.0.0.1", ("controller", "engines", "notebook")),
    "node2": Member("10.0.0.2", ("engines",)),
    "node6": Member("fd00::6", ("engines",)),
}
ALLOWED = nftables.parse_cidrs(["10.0.8.0/24", "192.0.2.7", "2001:db8::/32"])
# as nft 1.0.6 lists what wanted_blocks(PORTS, MEMBERS, ALLOWED, 8888) makes; a test with nft itself is beside this one
LISTING = json.loads("""{"nftables":[
{"metainfo":{"version":"1.0.6","release_name":"Lester Gooch #5","json_schema_version":1}},
{"table":{"family":"inet","name":"ipyparallel_c","handle":3}},
{"set":{"family":"inet","name":"engines4","table":"ipyparallel_c","type":"ipv4_addr","handle":1,"elem":[
 {"elem":{"val":"10.0.0.2","comment":"node2"}},{"elem":{"val":"10.0.0.1","comment":"node1"}}]}},
{"set":{"family":"inet","name":"notebooks4","table":"ipyparallel_c","type":"ipv4_addr","handle":2,"elem":[
 {"elem":{"val":"10.0.0.1","comment":"node1"}}]}},
{"set":{"family":"inet","name":"allowed4","table":"ipyparallel_c","type":"ipv4_addr","handle":3,"flags":["interval"],
 "elem":[{"prefix":{"addr":"10.0.8.0","len":24}},"192.0.2.7"]}},
{"set":{"family":"inet","name":"engines6","table":"ipyparallel_c","type":"ipv6_addr","handle":4,"elem":[
 {"elem":{"val":"fd00::6","comment":"node6"}}]}},
{"set":{"family":"inet","name":"allowed6","table":"ipyparallel_c","type":"ipv6_addr","handle":5,"flags":"interval",
 "elem":[{"prefix":{"addr":"2001:db8::","len":32}}]}},
{"chain":{"family":"inet","table":"ipyparallel_c","name":"input","handle":6,"type":"filter","hook":"input","prio":0,
 "policy":"accept"}},
{"chain":{"family":"inet","table":"ipyparallel_c","name":"guard","handle":7}},
{"rule":{"family":"inet","table":"ipyparallel_c","chain":"input","handle":8,"expr":[
 {"match":{"op":"==","left":{"payload":{"protocol":"tcp","field":"dport"}},"right":{"set":[8888,{"range":[10100,10119]}]}}},
 {"jump":{"target":"guard"}}]}},
{"rule":{"family":"inet","table":"ipyparallel_c","chain":"guard","handle":9,"expr":[
 {"match":{"op":"==","left":{"meta":{"key":"iif"}},"right":"lo"}},{"accept":null}]}},
{"rule":{"family":"inet","table":"ipyparallel_c","chain":"guard","handle":10,"expr":[
 {"match":{"op":"==","left":{"payload":{"protocol":"tcp","field":"dport"}},"right":{"range":[10100,10108]}}},
 {"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"saddr"}},"right":"@engines4"}},{"accept":null}]}},
{"rule":{"family":"inet","table":"ipyparallel_c","chain":"guard","handle":11,"expr":[
 {"match":{"op":"==","left":{"payload":{"protocol":"tcp","field":"dport"}},
  "right":{"set":[10100,{"range":[10109,10114]}]}}},
 {"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"saddr"}},"right":"@notebooks4"}},{"accept":null}]}},
{"rule":{"family":"inet","table":"ipyparallel_c","chain":"guard","handle":12,"expr":[
 {"match":{"op":"==","left":{"payload":{"protocol":"tcp","field":"dport"}},
  "right":{"set":[8888,10100,{"range":[10109,10114]}]}}},
 {"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"saddr"}},"right":"@allowed4"}},{"accept":null}]}},
{"rule":{"family":"inet","table":"ipyparallel_c","chain":"guard","handle":13,"expr":[
 {"match":{"op":"==","left":{"payload":{"protocol":"tcp","field":"dport"}},"right":{"range":[10100,10108]}}},
 {"match":{"op":"==","left":{"payload":{"protocol":"ip6","field":"saddr"}},"right":"@engines6"}},{"accept":null}]}},
{"rule":{"family":"inet","table":"ipyparallel_c","chain":"guard","handle":14,"expr":[
 {"match":{"op":"==","left":{"payload":{"protocol":"tcp","field":"dport"}},
  "right":{"set":[8888,10100,{"range":[10109,10114]}]}}},
 {"match":{"op":"==","left":{"payload":{"protocol":"ip6","field":"saddr"}},"right":"@allowed6"}},{"accept":null}]}},
{"rule":{"family":"inet","table":"ipyparallel_c","chain":"guard","handle":15,"expr":[
 {"match":{"op":"==","left":{"meta":{"key":"l4proto"}},"right":"tcp"}},
 {"counter":{"packets":7,"bytes":420}},{"reject":{"type":"tcp reset"}}]}}
]}""")


def wanted(**changed):
    arguments = {"ports": PORTS, "members": MEMBERS, "allowed": ALLOWED, "notebook_port": 8888, **changed}
    return nftables.wanted_blocks(**arguments)


def is_network(text):
    try:
        return bool(ipaddress.ip_network(text))
    except ValueError:
        return False


def rules(blocks):
    return blocks["chain guard"]


# ---- rules ----------------------------------------------------------------------------------------------------------


def test_nobody_comes_from_outside_by_default():
    blocks = wanted(members={}, allowed=[], notebook_port=None)
    assert list(blocks) == ["chain input", "chain guard"]
    assert blocks["chain input"][1:] == ["tcp dport 10100-10119 jump guard"]
    assert rules(blocks) == ['iif "lo" accept', "meta l4proto tcp counter reject with tcp reset"]


def test_who_may_connect_to_what():
    assert rules(wanted())[1:-1] == [
        "tcp dport 10100-10108 ip saddr @engines4 accept",
        "tcp dport { 10100, 10109-10114 } ip saddr @notebooks4 accept",
        "tcp dport { 8888, 10100, 10109-10114 } ip saddr @allowed4 accept",
        "tcp dport 10100-10108 ip6 saddr @engines6 accept",
        "tcp dport { 8888, 10100, 10109-10114 } ip6 saddr @allowed6 accept",
    ]


def test_internal_and_kept_ports_are_open_to_nobody():
    everyone = nftables.parse_cidrs(["0.0.0.0/0", "::/0"])
    accepted = " ".join(rule for rule in rules(wanted(allowed=everyone)) if "accept" in rule)
    for port in (*PORTS.internal, 10118, 10119):
        assert str(port) not in accepted


def test_a_notebook_on_a_host_without_the_controller():
    blocks = wanted(ports=None)
    assert blocks["chain input"][1:] == ["tcp dport 8888 jump guard"]
    assert [rule for rule in rules(blocks) if "saddr" in rule] == [
        "tcp dport 8888 ip saddr @allowed4 accept",
        "tcp dport 8888 ip6 saddr @allowed6 accept",
    ]
    assert wanted(ports=None, notebook_port=None) == {}


def test_a_further_host_is_a_further_line():
    before = nftables.body("c", wanted()).splitlines()
    after = nftables.body("c", wanted(members={**MEMBERS, "node3": Member("10.0.0.3", ("engines",))})).splitlines()
    assert [line.strip() for line in after if line not in before] == ['10.0.0.3 comment "node3",']
    assert [line for line in before if line not in after] == []


def test_loopback_is_no_element_and_one_address_is_one_element():
    members = {
        "a": Member("127.0.0.1", ("engines",)),
        "b": Member("10.0.0.9", ("engines",)),
        "c": Member("10.0.0.9", ("engines",)),
    }
    assert wanted(members=members)["set engines4"][2:-1] == ['\t10.0.0.9 comment "b, c",']
    assert nftables.shared_addresses(members) == [["b", "c"]]


@pytest.mark.parametrize(
    ("name", "expected"), [('a"; drop', "a?? drop"), ("x" * 500, "x" * 120), ("n\nm", "n?m"), ("node-1.x", "node-1.x")]
)
def test_no_name_ends_a_comment(name, expected):
    assert nftables.comment([name]) == expected


@given(st.sets(st.integers(1, 65535), max_size=60))
def test_ranges_are_the_ports(ports):
    found = nftables.ranges(ports)
    assert {port for first, last in found for port in range(first, last + 1)} == ports
    assert all(last + 1 < first for (_one, last), (first, _other) in itertools.pairwise(found))


def test_the_file_replaces_this_table_and_no_other():
    text = nftables.file_text("c", wanted())
    commands = [line for line in text.splitlines() if not line.startswith(("#", "\t", "}"))]
    assert commands == [
        "add table inet ipyparallel_c; delete table inet ipyparallel_c",
        "table inet ipyparallel_c {",
    ]
    assert "flush" not in text


# ---- what is loaded -------------------------------------------------------------------------------------------------


def test_a_listing_is_what_was_loaded():
    assert nftables.parse_listing(json.dumps(LISTING)) == wanted()


def test_a_protocol_may_be_listed_by_its_number():
    text = json.dumps(LISTING).replace('"right": "tcp"', '"right": 6')
    assert text != json.dumps(LISTING)
    assert nftables.parse_listing(text) == wanted()


@pytest.mark.parametrize(
    "elements",
    [
        [{"prefix": {"addr": "10.0.8.0", "len": 23}}],
        [{"prefix": {"addr": "10.0.8.0", "len": 24}}, {"prefix": {"addr": "10.0.9.0", "len": 24}}],
        [{"range": ["10.0.8.0", "10.0.9.254"]}, "10.0.9.255"],
    ],
)
def test_a_network_may_be_listed_in_parts(elements):
    listing = copy.deepcopy(LISTING)
    part_of("set", "allowed4")(listing)["elem"] = elements
    blocks = wanted(allowed=nftables.parse_cidrs(["10.0.8.0/24", "10.0.9.0/24"]))
    assert nftables.parse_listing(json.dumps(listing))["set allowed4"] == blocks["set allowed4"]


def rule_of(chain, number):
    def found(listing):
        return [entry["rule"] for entry in listing["nftables"] if entry.get("rule", {}).get("chain") == chain][number]

    return found


def part_of(kind, name):
    return lambda listing: next(entry[kind] for entry in listing["nftables"] if entry.get(kind, {}).get("name") == name)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        pytest.param(rule_of("guard", -1), {"expr": [{"accept": None}]}, id="reject became accept"),
        pytest.param(rule_of("guard", -1), {"expr": [{"drop": None}]}, id="another verdict"),
        pytest.param(rule_of("input", 0), {"expr": [{"accept": None}]}, id="no jump"),
        pytest.param(rule_of("guard", 1), {"expr": [{"limit": {"rate": 1, "per": "day"}}]}, id="something unknown"),
        pytest.param(rule_of("guard", 1), {"chain": "other"}, id="in another chain"),
        pytest.param(part_of("chain", "input"), {"policy": "drop"}, id="policy"),
        pytest.param(part_of("chain", "input"), {"hook": "output"}, id="hook"),
        pytest.param(part_of("chain", "input"), {"prio": 5}, id="priority"),
        pytest.param(part_of("set", "engines4"), {"elem": []}, id="elements gone"),
        pytest.param(part_of("set", "engines4"), {"elem": ["10.0.0.1", "10.0.0.2"]}, id="comments gone"),
        pytest.param(part_of("set", "allowed4"), {"elem": ["10.0.8.0"]}, id="another network"),
        pytest.param(part_of("set", "allowed4"), {"flags": ["interval", "timeout"]}, id="a flag"),
        pytest.param(part_of("set", "engines4"), {"timeout": 60}, id="a timeout"),
        pytest.param(part_of("set", "engines4"), {"type": "mark"}, id="another type"),
    ],
)
def test_every_difference_is_found(part, change):
    listing = copy.deepcopy(LISTING)
    part(listing).update(change)
    assert nftables.parse_listing(json.dumps(listing)) != wanted()


@pytest.mark.parametrize(
    "extra", [{"chain": {"name": "x"}}, {"map": {"name": "m"}}, {"set": {"name": "s", "type": "?"}}]
)
def test_what_someone_added_is_found(extra):
    assert nftables.parse_listing(json.dumps({"nftables": [*LISTING["nftables"], extra]})) != wanted()


@pytest.mark.parametrize("text", ["", "table inet x {}", "[]", "{}", '{"nftables": 1}', '{"nftables": [1]}'])
def test_no_listing(text):
    with pytest.raises(FirewallError, match="JSON"):
        nftables.parse_listing(text)


# ---- what is given --------------------------------------------------------------------------------------------------


@given(st.ip_addresses(), st.integers(0, 128), st.booleans())
def test_a_cidr_is_its_network_or_names_what_is_wrong(address, length, single):
    length = min(length, address.max_prefixlen)
    text = str(address) if single else f"{address}/{length}"
    network = ipaddress.ip_network((address, address.max_prefixlen if single else length), strict=False)
    if not getattr(address, "scope_id", None) and network.network_address == address and not network.is_multicast:
        assert nftables.parse_cidr(text) == network
    else:
        with pytest.raises(FirewallError, match="ipyparallel_allowed_cidrs") as raised:
            nftables.parse_cidr(text)
        assert text in str(raised.value)


@given(st.text(max_size=20).filter(lambda text: not is_network(text.strip())))
def test_whatever_is_no_cidr_is_refused_by_name(text):
    with pytest.raises(FirewallError) as raised:
        nftables.parse_cidr(text)
    assert repr(text.strip()) in str(raised.value)


@given(
    st.lists(st.ip_addresses(v=4).map(lambda address: ipaddress.ip_network((address, 20), strict=False)), max_size=8)
)
def test_networks_do_not_overlap(networks):
    found = nftables.parse_cidrs(str(network) for network in networks if not network.is_multicast)
    assert all(not one.overlaps(other) for one in found for other in found if one is not other)
    assert all(any(network.subnet_of(one) for one in found) for network in networks if not network.is_multicast)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("10.0.0.5/24", "write 10.0.0.0/24 for the whole network, or 10.0.0.5 for the one address"),
        ("example.org", "neither an address nor a CIDR"),
        ("10.0.0.0/33", "neither an address nor a CIDR"),
        ("10", "neither an address nor a CIDR"),
        ("fe80::1%eth0", "neither an address nor a CIDR"),
        ("", "neither an address nor a CIDR"),
        ("224.0.0.0/4", "multicast"),
    ],
)
def test_bad_cidrs(text, says):
    with pytest.raises(FirewallError) as raised:
        nftables.parse_cidrs(["10.1.0.0/16", text])
    assert says in str(raised.value)
    assert f"{text!r} in ipyparallel_allowed_cidrs" in str(raised.value)


@pytest.mark.parametrize("address", ["node2", "10.0.0", "0.0.0.0", "224.0.0.1", "fe80::1%eth0", "", "10.0.0.0/24"])
def test_an_address_that_is_none_is_refused_with_its_host(address):
    with pytest.raises(FirewallError) as raised:
        nftables.parse_members({"node2": {"address": address}}, "hosts")
    assert f"{address!r}, the address of host node2" in str(raised.value)
    assert "set ipyparallel_address of node2" in str(raised.value)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "host node2 has no address"),
        ("10.0.0.2", "host node2 has no address"),
        ({"address": "10.0.0.2", "roles": ["engine"]}, "the roles of host node2"),
        ({"address": "10.0.0.2", "roles": "engines"}, "the roles of host node2"),
        ({"address": "10.0.0.2", "notebook_port": 0}, "is not a port"),
        ({"address": "10.0.0.2", "notebook_port": "x"}, "is not a port"),
    ],
)
def test_a_host_that_is_not_described(values, says):
    with pytest.raises(FirewallError) as raised:
        nftables.parse_members({"node2": values}, "hosts")
    assert says in str(raised.value)


def test_an_ipv4_address_in_ipv6_is_ipv4():
    assert nftables.parse_members({"a": {"address": "::ffff:10.0.0.2"}}, "hosts")["a"].address == "10.0.0.2"


# ---- what is remembered ---------------------------------------------------------------------------------------------


def test_memory_is_what_was_remembered():
    assert nftables.parse_memory(nftables.memory_text(MEMBERS), "f") == MEMBERS


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"hosts": 1}', '{"hosts": {"a": 1}}', '{"hosts": {"a": {"address": "x"}}}']
)
def test_broken_memory_is_refused_with_a_remedy(text):
    with pytest.raises(FirewallError, match=r"/f\.json is broken: remove it, and run playbook"):
        nftables.parse_memory(text, "/f.json")


def test_a_run_over_one_host_keeps_the_others_and_drops_those_that_left():
    new = {"node3": Member("10.0.0.3", ("engines",))}
    members, unknown = nftables.merge(MEMBERS, new, ["node1", "node2", "node3"], partial=True)
    assert members == {"node1": MEMBERS["node1"], "node2": MEMBERS["node2"], **new}
    assert unknown == []


def test_what_is_given_counts_before_what_is_remembered():
    moved = {"node2": Member("10.0.0.22", ("engines",))}
    assert nftables.merge(MEMBERS, moved, MEMBERS, partial=False)[0]["node2"].address == "10.0.0.22"


def test_hosts_that_were_never_reached_are_named():
    assert nftables.merge(None, {"node1": MEMBERS["node1"]}, ["node1", "node2"], partial=False)[1] == ["node2"]
    assert nftables.merge({}, {"node1": MEMBERS["node1"]}, ["node1", "node2"], partial=True)[1] == ["node2"]


def test_a_partial_run_cuts_nobody_off_that_it_does_not_know():
    with pytest.raises(FirewallError, match=r"node2, node6 are not known yet.*without --limit"):
        nftables.merge(None, {"node1": MEMBERS["node1"]}, MEMBERS, partial=True)


def test_a_stranger_is_refused():
    with pytest.raises(FirewallError, match="host node6 is not one of the cluster's: node1"):
        nftables.merge(None, {"node6": MEMBERS["node6"]}, ["node1"], partial=False)

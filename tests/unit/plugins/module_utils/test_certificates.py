# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import base64

import making_certificates
import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils.certificates import (
    HostNameError,
    Own,
    authority_problem,
    certificate_days,
    names_of_notebook,
    own_problem,
    permitted_names,
    problem,
    subtree,
)
from making_certificates import pem

NAMES = ("DNS:localhost", "DNS:node1", "IP:127.0.0.1", "IP:::1")


KEY, OTHER, AUTHORITY, STRANGER = (making_certificates.make_key() for number in range(4))


def issue(names=NAMES, key=KEY, **details):
    """Return a certificate that will do, but for the *details*."""
    return making_certificates.issue(names, key, **details)


def test_one_that_will_do():
    assert problem(issue(), pem(KEY), NAMES, 30) == ""


@pytest.mark.parametrize("names", [["DNS:NODE1"], ["IP:0:0:0:0:0:0:0:1"], [], ["DNS:localhost", "IP:127.0.0.1"]])
def test_names_have_more_than_one_spelling_and_may_be_fewer(names):
    assert problem(issue(), pem(KEY), names, 30) == ""


@pytest.mark.parametrize(
    ("certificate", "key", "why"),
    [
        (None, None, "there is no private key yet"),
        (None, pem(KEY), "there is no certificate yet"),
        (issue(), None, "there is no private key yet"),
        (issue(), "nonsense", "the private key cannot be read"),
        (issue(), "", "the private key cannot be read"),
        (issue(), pem(KEY, b"secret"), "the private key cannot be read"),
        ("nonsense", pem(KEY), "the certificate cannot be read"),
        ("", pem(KEY), "the certificate cannot be read"),
        (issue(), pem(OTHER), "the certificate is another key's"),
        (issue(names=NAMES[2:]), pem(KEY), "the certificate is not for DNS:localhost, DNS:node1"),
        (issue(names=NAMES[:3]), pem(KEY), "the certificate is not for IP:::1"),
        (issue(names=()), pem(KEY), "the certificate is not for DNS:localhost, DNS:node1, IP:127.0.0.1, IP:::1"),
    ],
)
def test_what_is_wrong_is_told(certificate, key, why):
    assert problem(certificate, key, NAMES, 30) == why


def test_damaged_ones_are_named_whatever_is_wrong_with_them():
    good = base64.b64decode("".join(issue().splitlines()[1:-1]))
    for place in range(len(good)):
        damaged = bytes([*good[:place], good[place] ^ 1, *good[place + 1 :]])
        text = f"-----BEGIN CERTIFICATE-----\n{base64.b64encode(damaged).decode()}\n-----END CERTIFICATE-----\n"
        said = problem(text, pem(KEY), NAMES, 30)
        assert said == "" or said.startswith("the certificate "), said


def test_a_key_of_a_kind_that_is_unknown():
    strange = pem(KEY).splitlines()
    body = bytearray(base64.b64decode("".join(strange[1:-1])))
    place = body.index(bytes.fromhex("2a8648ce3d0301"))  # the curve
    body[place + 6] = 99
    text = f"{strange[0]}\n{base64.b64encode(body).decode()}\n{strange[-1]}\n"
    assert problem(issue(), text, NAMES, 30) == "the private key cannot be read"


def test_a_host_with_a_number_for_a_name():
    assert problem(issue(), pem(KEY), ["IP:42"], 30) == "the certificate is not for IP:42"


def test_one_that_ends_or_has_not_begun():
    assert "in less than 30 days" in problem(issue(end=29), pem(KEY), NAMES, 30)
    assert problem(issue(end=31), pem(KEY), NAMES, 30) == ""
    assert "the certificate ended on " in problem(issue(begin=-20, end=-1), pem(KEY), NAMES, 30)
    assert "is valid from" in problem(issue(begin=1), pem(KEY), NAMES, 30)


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_without_a_certificate_there_are_no_days(tmp_path, content):
    path = tmp_path / "certificate.pem"
    if content is not None:
        path.write_text(content)
    assert certificate_days(str(path)) is None


@pytest.mark.parametrize("days", [30.5, -2])
def test_days_of_a_certificate(tmp_path, days):
    path = tmp_path / "certificate.pem"
    path.write_text(issue(begin=-10, end=days))
    assert certificate_days(str(path)) == pytest.approx(days, abs=0.1)


# ---- the cluster's authority

SUBTREES = [subtree(name) for name in NAMES]
ROOT = issue(names=(), key=AUTHORITY, end=3600, permitted=SUBTREES)


def test_one_that_the_authority_signed():
    assert problem(issue(by=AUTHORITY), pem(KEY), NAMES, 30, ROOT) == ""


@pytest.mark.parametrize(
    ("certificate", "authority"),
    [
        (issue(), ROOT),
        (issue(by=STRANGER), ROOT),
        (issue(by=AUTHORITY, issuer="beta"), ROOT),
        (issue(by=AUTHORITY), issue(names=(), key=STRANGER)),
        (issue(by=AUTHORITY), ""),
        (issue(by=AUTHORITY), "nonsense"),
    ],
    ids=["self-signed", "by a stranger", "another issuer", "another authority", "no authority", "a damaged authority"],
)
def test_one_that_the_authority_did_not_sign(certificate, authority):
    assert (
        problem(certificate, pem(KEY), NAMES, 30, authority) == "the cluster's authority has not signed the certificate"
    )


def test_an_authority_that_will_do():
    assert authority_problem(ROOT, NAMES, 825) == ""
    assert permitted_names(ROOT) == {"DNS:localhost", "DNS:node1", "IP:127.0.0.1/32", "IP:::1/128"}


@pytest.mark.parametrize(
    ("authority", "why"),
    [
        ("", "there is no authority yet"),
        ("nonsense", "the authority's certificate cannot be read"),
        (issue(key=AUTHORITY, end=3600), "may not sign for DNS:localhost, DNS:node1, IP:127.0.0.1/32, IP:::1/128"),
        (issue(key=AUTHORITY, end=3600, permitted=SUBTREES[1:]), "the authority may not sign for DNS:localhost"),
        (issue(key=AUTHORITY, end=800, permitted=SUBTREES), "in less than 825 days"),
    ],
)
def test_what_is_wrong_with_an_authority_is_told(authority, why):
    assert why in authority_problem(authority, NAMES, 825)


@pytest.mark.parametrize("authority", ["", "nonsense", issue()])
def test_an_authority_without_constraints_permits_nothing_that_is_known(authority):
    assert permitted_names(authority) == set()


# ---- names

HOST = ["", "node1", "node1.example.org", "10.0.0.5", "no name"]
HERE = ["DNS:localhost", "IP:127.0.0.1", "IP:::1"]
THERE = ["DNS:node1", "DNS:node1.example.org", "IP:10.0.0.5"]


@pytest.mark.parametrize(
    ("address", "given", "names", "reached"),
    [
        ("127.0.0.1", [], [*HERE, *THERE], HERE),
        ("localhost", [], [*HERE, *THERE], HERE),
        ("0.0.0.0", [], [*HERE, *THERE], THERE),
        ("10.0.0.9", [], [*HERE, "IP:10.0.0.9", *THERE], ["IP:10.0.0.9", *THERE]),
        ("0.0.0.0", [" Lab.example.org", ""], [*HERE, *THERE, "DNS:lab.example.org"], ["DNS:lab.example.org"]),
        ("127.0.0.1", ["2001:DB8::5"], [*HERE, *THERE, "IP:2001:db8::5"], ["IP:2001:db8::5"]),
    ],
)
def test_names_of_a_notebook(address, given, names, reached):
    assert names_of_notebook(address, HOST, given) == (names, reached)


@pytest.mark.parametrize("name", ["two words", "https://node1", "node1:8888", "*.example.org", "node1."])
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(HostNameError, match="ipyparallel_notebook_names") as caught:
        names_of_notebook("127.0.0.1", HOST, [name])
    assert repr(name) in str(caught.value)


# ---- the user's own

REACHED = ("DNS:node1.example.org", "IP:10.0.0.5")


def own(certificate, key, reached=REACHED):
    return own_problem(Own("/x/cert.pem", certificate), Own("/x/key.pem", key), reached)


@pytest.mark.parametrize("name", ["DNS:node1.example.org", "IP:10.0.0.5", "DNS:*.example.org", "DNS:NODE1.example.org"])
def test_an_own_one_that_will_do(name):
    assert own(issue(names=["DNS:other", name]), pem(KEY)) == ""
    assert own(issue(names=[name]) + issue(key=OTHER), pem(KEY)) == "", "with the chain"


@pytest.mark.parametrize(
    ("certificate", "key", "said"),
    [
        (issue(), pem(OTHER), ["/x/cert.pem", "/x/key.pem", "is not the certificate of", "comes first"]),
        (issue(key=OTHER) + issue(), pem(KEY), ["/x/cert.pem", "is not the certificate of", "comes first"]),
        (issue(begin=-9, end=-1), pem(KEY), ["/x/cert.pem", "ended on 20", "valid now"]),
        (issue(begin=1), pem(KEY), ["/x/cert.pem", "is valid from 20", "valid now"]),
        (issue(), pem(KEY), ["/x/cert.pem", "127.0.0.1", "10.0.0.5, node1.example.org", "ipyparallel_notebook_names"]),
        (issue(names=()), pem(KEY), ["/x/cert.pem", "no name at all"]),
        (issue(names=["DNS:*.org"]), pem(KEY), ["*.org"]),
        (issue(names=["DNS:*.0.0.5"]), pem(KEY), ["*.0.0.5"]),
        (issue(), pem(KEY, b"correct horse"), ["/x/key.pem", "passphrase", "openssl pkey", "ansible-vault"]),
        (issue(), "0\x82", ["/x/key.pem", "no private key in PEM", "BEGIN PRIVATE KEY"]),
        ("0\x82", pem(KEY), ["/x/cert.pem", "no certificate in PEM", "-inform DER"]),
        (
            issue() + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            pem(KEY),
            ["no certificate in PEM"],
        ),
        (pem(KEY), issue(), ["/x/key.pem", "no private key in PEM"]),
    ],
)
def test_what_is_wrong_with_an_own_one_is_told_with_its_file_and_the_remedy(certificate, key, said):
    found = own(certificate, key)
    assert [words for words in said if words not in found] == [], found
    variable = "ipyparallel_notebook_key" if "/x/key.pem" in said[:1] else "ipyparallel_notebook_certificate"
    assert variable in found


def test_the_text_of_a_key_is_not_shown():
    assert "secret" not in repr(Own("/x/key.pem", "secret"))

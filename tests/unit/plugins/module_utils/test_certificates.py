# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import base64
import datetime
import ipaddress

import pytest
from ansible_collections.ipyparallel.cluster.plugins.module_utils.certificates import certificate_days, problem
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

NAMES = ("DNS:localhost", "DNS:node1", "IP:127.0.0.1", "IP:::1")


def make_key():
    return ec.generate_private_key(ec.SECP256R1())


KEY, OTHER = make_key(), make_key()


def pem(key, passphrase=None):
    encryption = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase)
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, encryption).decode()


def issue(names=NAMES, key=KEY, begin=-1, end=800):
    """Return a certificate in PEM that is valid from *begin* to *end*, in days from now."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "alpha")])
    now = datetime.datetime.now(datetime.timezone.utc)
    first, last = (now + datetime.timedelta(days=days) for days in (begin, end))
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), 1, first, last)
    if names:
        found = [
            x509.DNSName(name[4:]) if name[0] == "D" else x509.IPAddress(ipaddress.ip_address(name[3:]))
            for name in names
        ]
        builder = builder.add_extension(x509.SubjectAlternativeName(found), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


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
    assert "in less than 30 days" in problem(issue(begin=-20, end=-1), pem(KEY), NAMES, 30)
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

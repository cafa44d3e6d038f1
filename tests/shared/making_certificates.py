# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Certificates and keys of any kind, good and bad, for tests."""

from __future__ import annotations

import datetime
import ipaddress

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


def make_key():
    """Return a private key."""
    return ec.generate_private_key(ec.SECP256R1())


def pem(key, passphrase=None):
    """Return *key* in PEM."""
    encryption = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase)
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, encryption).decode()


def issue(names, key, begin=-1, end=800, by=None, permitted=(), issuer="alpha"):
    """Return a certificate in PEM that is valid from *begin* to *end*, in days from now.

    It is for *names*, as in ``DNS:node1``, and of *key*; signed by the key *by* of *issuer*, else by its own; and, as
    an authority's, for what is *permitted*, as in ``DNS:node1`` and ``IP:10.0.0.5/32``.
    """
    subject, signer = (x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]) for name in ("alpha", issuer))
    now = datetime.datetime.now(datetime.timezone.utc)
    first, last = (now + datetime.timedelta(days=days) for days in (begin, end))
    builder = x509.CertificateBuilder(signer, subject, key.public_key(), 1, first, last)
    if names:
        found = [
            x509.DNSName(name[4:]) if name[0] == "D" else x509.IPAddress(ipaddress.ip_address(name[3:]))
            for name in names
        ]
        builder = builder.add_extension(x509.SubjectAlternativeName(found), critical=False)
    if permitted:
        subtrees = [
            x509.DNSName(name[4:]) if name[0] == "D" else x509.IPAddress(ipaddress.ip_network(name[3:]))
            for name in permitted
        ]
        builder = builder.add_extension(x509.NameConstraints(subtrees, None), critical=True)
    return builder.sign(by or key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()

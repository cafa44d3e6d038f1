# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether a certificate and its private key will do, before a browser says that they do not."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import ssl
import time
import typing as t

if t.TYPE_CHECKING:
    from cryptography.x509 import Certificate


def problem(certificate: str | None, key: str | None, names: t.Iterable[str], days: int) -> str:
    """Return why a certificate has to be issued, or an empty text where the one that is there will do.

    It will do when it belongs to the key, has every name (one that the host has lost does no harm), is valid already,
    and lasts. Needs package cryptography.

    Args:
        certificate: the certificate in PEM, or None where there is none.
        key: its private key in PEM, without a passphrase, or None where there is none.
        names: what it has to be valid for, as in ``DNS:node1`` and ``IP:10.0.0.5``.
        days: for how many days from now it has to be valid.
    """
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from cryptography.x509 import load_pem_x509_certificate

    if key is None or certificate is None:
        return f"there is no {'private key' if key is None else 'certificate'} yet"
    try:
        public = load_pem_private_key(key.encode(), None).public_key()
    except Exception:  # noqa: BLE001 - of a damaged one the library raises errors of many kinds, some of them its own
        return "the private key cannot be read"
    try:
        found = load_pem_x509_certificate(certificate.encode())
        certified, having = found.public_key(), names_of(found)
    except Exception:  # noqa: BLE001 - as above
        return "the certificate cannot be read"
    if certified != public:
        return "the certificate is another key's"
    if missing := {normal(name) for name in names} - having:
        return f"the certificate is not for {', '.join(sorted(missing))}"
    now = datetime.datetime.now(datetime.timezone.utc)
    if now < found.not_valid_before_utc:
        return f"the certificate is valid from {found.not_valid_before_utc:%Y-%m-%d %H:%M} UTC only"
    if found.not_valid_after_utc < now + datetime.timedelta(days=days):
        return f"the certificate ends on {found.not_valid_after_utc:%Y-%m-%d}, in less than {days} days"
    return ""


def names_of(certificate: Certificate) -> set[str]:
    """Return the subject's alternative names, as in ``DNS:node1`` and ``IP:10.0.0.5``."""
    from cryptography.x509 import DNSName, ExtensionNotFound, IPAddress, SubjectAlternativeName

    try:
        names = certificate.extensions.get_extension_for_class(SubjectAlternativeName).value
    except ExtensionNotFound:
        return set()
    return {f"DNS:{name.lower()}" for name in names.get_values_for_type(DNSName)} | {
        f"IP:{address}" for address in names.get_values_for_type(IPAddress)
    }


def normal(name: str) -> str:
    """Return *name* as ``names_of`` spells it: an address has more than one spelling."""
    kind, _colon, value = name.partition(":")
    with contextlib.suppress(ValueError):
        return f"{kind}:{ipaddress.ip_address(value) if kind == 'IP' else value.lower()}"
    return name


def certificate_days(path: str) -> float | None:
    """Return for how many days the certificate *path* is valid, None where there is none that can be read."""
    try:
        # of the standard library, and without the 10 MB that a library for certificates takes
        found = ssl._ssl._test_decode_cert(path)  # type: ignore[attr-defined]
        return (ssl.cert_time_to_seconds(found["notAfter"]) - time.time()) / 86400
    except (OSError, ValueError, KeyError, AttributeError):
        return None

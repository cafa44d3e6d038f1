# Copyright: (c) 2026, the ipyparallel.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether a certificate and its private key will do, before a browser says that they do not.

Most of it needs package cryptography, which the environment of a cluster has, and Ansible itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import ipaddress
import re
import ssl
import time
import typing as t

if t.TYPE_CHECKING:
    from cryptography.x509 import Certificate

AUTHORITY_FILE = "authority.pem"
"""The certificate of the cluster's authority, in the state directory of the controller host."""
CERTIFICATE_VARIABLE = "ipyparallel_notebook_certificate"
KEY_VARIABLE = "ipyparallel_notebook_key"
HERE = ("localhost", "127.0.0.1", "::1")
EVERYWHERE = ("", "*", "0.0.0.0", "::")  # noqa: S104 - these are what is left out
HOST_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")


class HostNameError(ValueError):
    """What is to be a name of a host is none; the message names it, the variable and the remedy."""


def problem(
    certificate: str | None, key: str | None, names: t.Iterable[str], days: int, authority: str | None = None
) -> str:
    """Return why a certificate has to be issued, or an empty text where the one that is there will do.

    It will do when it belongs to the key, is signed by the authority, has every name (one that the host has lost does
    no harm), is valid already, and lasts.

    Args:
        certificate: the certificate in PEM, or None where there is none.
        key: its private key in PEM, without a passphrase, or None where there is none.
        names: what it has to be valid for, as in ``DNS:node1`` and ``IP:10.0.0.5``.
        days: for how many days from now it has to be valid.
        authority: the certificate in PEM of who has to have signed it; None where anybody may.
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
    if authority is not None and not is_signed_by(found, authority):
        return "the cluster's authority has not signed the certificate"
    if missing := {normal(name) for name in names} - having:
        return f"the certificate is not for {', '.join(sorted(missing))}"
    now = datetime.datetime.now(datetime.timezone.utc)
    if now < found.not_valid_before_utc:
        return f"the certificate is valid from {found.not_valid_before_utc:%Y-%m-%d %H:%M} UTC only"
    if found.not_valid_after_utc < now:
        return f"the certificate ended on {found.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    if found.not_valid_after_utc < now + datetime.timedelta(days=days):
        return f"the certificate ends on {found.not_valid_after_utc:%Y-%m-%d}, in less than {days} days"
    return ""


def is_signed_by(certificate: Certificate, authority: str) -> bool:
    """Return whether the *authority*, a certificate in PEM, has signed *certificate*."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.x509 import load_pem_x509_certificate

    try:
        certificate.verify_directly_issued_by(load_pem_x509_certificate(authority.encode()))
    except (InvalidSignature, TypeError, ValueError):
        return False
    return True


def authority_problem(authority: str | None, names: t.Iterable[str], days: int) -> str:
    """Return why the certificate of the authority has to be issued, or an empty text where what is there will do.

    It will do when it outlasts what it signs, and may sign for every name.

    Args:
        authority: its certificate in PEM, or empty where there is none.
        names: what it has to sign for, as in ``DNS:node1`` and ``IP:10.0.0.5``.
        days: for how many days from now it has to be valid.
    """
    from cryptography.x509 import load_pem_x509_certificate

    if not authority:
        return "there is no authority yet"
    try:
        found = load_pem_x509_certificate(authority.encode())
    except ValueError:
        return "the authority's certificate cannot be read"
    if missing := {subtree(name) for name in names} - permitted_names(authority):
        return f"the authority may not sign for {', '.join(sorted(missing))}"
    if found.not_valid_after_utc < datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=days):
        return f"the authority ends on {found.not_valid_after_utc:%Y-%m-%d}, in less than {days} days"
    return ""


def permitted_names(authority: str) -> set[str]:
    """Return what an authority may sign for, as in ``DNS:node1`` and ``IP:10.0.0.5/32``; nothing of a damaged one."""
    from cryptography.x509 import DNSName, ExtensionNotFound, IPAddress, NameConstraints, load_pem_x509_certificate

    try:
        found = load_pem_x509_certificate(authority.encode()).extensions.get_extension_for_class(NameConstraints)
    except (ExtensionNotFound, ValueError):
        return set()
    names = found.value.permitted_subtrees or []
    return {f"DNS:{name.value.lower()}" for name in names if isinstance(name, DNSName)} | {
        f"IP:{name.value}" for name in names if isinstance(name, IPAddress)
    }


def subtree(name: str) -> str:
    """Return *name* as the constraint of an authority has it."""
    spelt = normal(name)
    return f"{spelt}/{128 if ':' in spelt[3:] else 32}" if spelt.startswith("IP:") else spelt


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


def typed(name: str) -> str:
    """Return the name or the address of a host as certificates have it, in ``DNS:node1`` or ``IP:10.0.0.5``.

    Raises:
        HostNameError: it is neither.
    """
    with contextlib.suppress(ValueError):
        return f"IP:{ipaddress.ip_address(name)}"
    if not HOST_NAME.fullmatch(name.lower()):
        raise HostNameError(
            f"{name!r} in ipyparallel_notebook_names is neither the name nor the address of a host: give it as "
            "browsers have it between https:// and the port"
        )
    return f"DNS:{name.lower()}"


def names_of_notebook(address: str, host: t.Iterable[str], given: t.Iterable[str]) -> tuple[list[str], list[str]]:
    """Return what the certificate of a notebook has to be for, and of that where browsers come to it.

    Args:
        address: at which it listens.
        host: names and addresses of its host, without those that are no names for a certificate.
        given: by the user, as those by which browsers reach it.

    Raises:
        HostNameError: one that was given is no name of a host.
    """
    told = [typed(name.strip()) for name in given if name.strip()]
    here = [typed(name) for name in HERE]
    there = []
    for name in (address, *host):
        with contextlib.suppress(HostNameError):
            there += [typed(name)] if name not in EVERYWHERE else []
    reached = here if is_loopback(address) else [name for name in there if name not in here]
    return list(dict.fromkeys([*here, *there, *told])), list(dict.fromkeys(told or reached))


def is_loopback(address: str) -> bool:
    """Return whether what listens at *address* is reached from its own host only."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


@dataclasses.dataclass(frozen=True)
class Own:
    """A certificate that the user gives, or its private key: the file on the operator's machine, and its text."""

    path: str
    text: str = dataclasses.field(repr=False)


def own_problem(certificate: Own, key: Own, reached: t.Collection[str]) -> str:
    """Return what is wrong with the user's own certificate and its key, or an empty text.

    Args:
        certificate: it, and after it those that lead to an authority which browsers know.
        key: of the certificate.
        reached: where browsers come to the notebook, as in ``DNS:node1`` and ``IP:10.0.0.5``; one of them will do.
    """
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from cryptography.x509 import load_pem_x509_certificates

    which = f"{certificate.path} ({CERTIFICATE_VARIABLE})"
    try:
        load_pem_private_key(key.text.encode(), None)
    except TypeError:
        return (
            f"{key.path} ({KEY_VARIABLE}) has a passphrase, which nobody would type when the notebook starts: take it "
            "away (openssl pkey -in KEY -out NEW), and keep the file as one of ansible-vault"
        )
    except Exception:  # noqa: BLE001 - of a damaged one the library raises errors of many kinds, some of them its own
        return (
            f"{key.path} ({KEY_VARIABLE}) is no private key in PEM: give one that begins with -----BEGIN PRIVATE "
            "KEY-----"
        )
    try:
        chain = load_pem_x509_certificates(certificate.text.encode())
    except Exception:  # noqa: BLE001 - as above
        return (
            f"{which} is no certificate in PEM: give one that begins with -----BEGIN CERTIFICATE----- (openssl x509 "
            "-inform DER -in FILE -out NEW)"
        )
    if wrong := problem(certificate.text, key.text, (), 0):
        if "another key" in wrong:
            return (
                f"{which} is not the certificate of {key.path} ({KEY_VARIABLE}): give the two that belong together; in "
                "a file with a chain, the notebook's own certificate comes first"
            )
        return f"{which}: {wrong}: give one that is valid now"
    having = names_of(chain[0])
    if not any(covers(name, wanted) for wanted in reached for name in having):
        return (
            f"{which} is for {plain(having) or 'no name at all'}, and browsers come to the notebook at "
            f"{plain(reached)}: give a certificate for one of these, or say in ipyparallel_notebook_names by which "
            "names they come"
        )
    return ""


def plain(names: t.Iterable[str]) -> str:
    """Return *names* as a message has them."""
    return ", ".join(sorted(name.partition(":")[2] for name in names))


def covers(name: str, wanted: str) -> bool:
    """Return whether *name* of a certificate, which may begin with ``*.``, stands for *wanted*."""
    if not name.startswith("DNS:*."):
        return name == wanted
    label, _dot, rest = wanted.removeprefix("DNS:").partition(".")
    return wanted.startswith("DNS:") and bool(label) and rest == name.removeprefix("DNS:*.")


def certificate_days(path: str) -> float | None:
    """Return for how many days the certificate *path* is valid, None where there is none that can be read."""
    try:
        # of the standard library, and without the 10 MB that a library for certificates takes
        found = ssl._ssl._test_decode_cert(path)  # type: ignore[attr-defined]
        return (ssl.cert_time_to_seconds(found["notAfter"]) - time.time()) / 86400
    except (OSError, ValueError, KeyError, AttributeError):
        return None

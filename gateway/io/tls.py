"""TLS towards clients: several certificates chosen by name, taken up again when their files change.

How this works: each certificate has its own context; the listener's context answers every
handshake by its `sni_callback`, which looks the name up in one table. Reading the files again
makes a new table and replaces the old one in one assignment, so connections go on and a bad file
changes nothing.
"""

import logging
import ssl
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509

from config.io.named_files import may_also_read
from config.model import Certificate

_log = logging.getLogger(__name__)


class _NamedObject(ssl.SSLObject):
    """A TLS connection that remembers which name its client asked for."""

    asked_name = ""


def asked_name(tls: object) -> str:
    """Return the name (RFC 6066 3) that the client of *tls* asked for; empty without one."""
    return tls.asked_name if isinstance(tls, _NamedObject) else ""


class CertificateError(Exception):
    """A certificate or key cannot be used; the message names the file and says why."""


class Certificates:
    """The certificates of the public address.

    Raises:
        CertificateError: at the start, if any of them cannot be used.
    """

    def __init__(self, certificates: Sequence[Certificate]) -> None:
        if not certificates:
            raise CertificateError("server.tls.certificates is empty: name at least one")
        self._certificates = tuple(certificates)
        self._seen = self._times()
        self._by_name = _load_all(self._certificates)
        self._default = _load(self._certificates[0])[0]
        self.context = _new_context(self._certificates[0])
        """What to listen with."""
        self.context.sni_callback = self._choose
        self.context.sslobject_class = _NamedObject
        self.failures = 0
        """Reloads that were refused; the old certificates stayed."""

    def reload_if_changed(self) -> bool:
        """Take up changed files; return whether new certificates are in force. Reads files."""
        times = self._times()
        if times == self._seen:
            return False
        self._seen = times
        try:
            by_name = _load_all(self._certificates)
            default = _load(self._certificates[0])[0]
        except CertificateError as error:
            self.failures += 1
            _log.error("the changed certificates are refused, the old ones stay: %s", error)
            return False
        self._by_name, self._default = by_name, default
        _log.info("certificates read again")
        # Of the files that the route file was read with, whoever read it has told.
        for certificate in self._certificates:
            if who := may_also_read(certificate.key_file):
                _log.warning("%s may read the key %s", who, certificate.key_file)
        return True

    def use(self, certificates: Sequence[Certificate]) -> None:
        """Serve with *certificates* from the next handshake on.

        Raises:
            CertificateError: one of them cannot be used; the old ones stay.
        """
        if tuple(certificates) == self._certificates or not certificates:
            return
        by_name, default = _load_all(certificates), _load(certificates[0])[0]
        self._certificates = tuple(certificates)
        self._seen = self._times()
        self._by_name, self._default = by_name, default

    def _choose(self, tls: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        """Pick the certificate for *name* (RFC 6066 3): exact, else one label's wildcard."""
        name = (name or "").lower().removesuffix(".")
        if isinstance(tls, _NamedObject):
            tls.asked_name = name
        wildcard = f"*.{name.partition('.')[2]}"
        tls.context = self._by_name.get(name) or self._by_name.get(wildcard) or self._default

    def _times(self) -> tuple[tuple[int, int], ...]:
        times = []
        for certificate in self._certificates:
            for file in (certificate.cert_file, certificate.key_file):
                try:
                    status = Path(file).stat()
                    times.append((status.st_mtime_ns, status.st_ino))
                except OSError:
                    times.append((0, 0))
        return tuple(times)


def _load_all(certificates: Sequence[Certificate]) -> dict[str, ssl.SSLContext]:
    by_name: dict[str, ssl.SSLContext] = {}
    for certificate in certificates:
        context, names = _load(certificate)
        for name in names:
            by_name.setdefault(name, context)
    return by_name


def _load(certificate: Certificate) -> tuple[ssl.SSLContext, list[str]]:
    return _new_context(certificate), _names(certificate)


def _new_context(certificate: Certificate) -> ssl.SSLContext:
    # RFC 9325: TLS 1.2 at least. The default context of `PROTOCOL_TLS_SERVER` has no weak ciphers.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    # A ticket is for one connection (RFC 8446 C.4), and each of a client's connections brings one
    # of its own. OpenSSL's second one costs a twelfth of a handshake; Go sends one, too.
    context.num_tickets = 1
    try:
        # An encrypted key must fail, not ask for a password on the terminal.
        context.load_cert_chain(certificate.cert_file, certificate.key_file, password=_no_password)
    except (OSError, ValueError) as error:
        raise CertificateError(
            f"cannot use {certificate.cert_file} with {certificate.key_file}: {error}"
        ) from error
    return context


def _no_password() -> bytes:
    return b""


def _names(certificate: Certificate) -> list[str]:
    """Return the DNS names (and addresses) that *certificate* is for."""
    try:
        parsed = x509.load_pem_x509_certificate(Path(certificate.cert_file).read_bytes())
        extension = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (OSError, ValueError) as error:
        raise CertificateError(f"cannot read {certificate.cert_file}: {error}") from error
    except x509.ExtensionNotFound:
        return []
    return [name.lower() for name in extension.value.get_values_for_type(x509.DNSName)]

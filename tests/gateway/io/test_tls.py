import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from config.model import Certificate, Endpoint, Upstream
from gateway.io.tls import CertificateError, Certificates
from tests.gateway.io.harness import (
    ALL,
    OK,
    Gateway,
    Upstreams,
    answering,
    configuration,
    gateway,
    one_upstream,
    upstream,
)

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def make_certificate(directory: Path, name: str, *hosts: str) -> Certificate:
    """Write a self-signed certificate for *hosts* and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([_alternative(host) for host in hosts]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = directory / f"{name}.pem", directory / f"{name}.key"
    cert_file.write_bytes(certificate.public_bytes(Encoding.PEM))
    key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return Certificate(str(cert_file), str(key_file))


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def trusting(*certificates: Certificate) -> ssl.SSLContext:
    context = ssl.create_default_context()
    for certificate in certificates:
        context.load_verify_locations(certificate.cert_file)
    return context


@asynccontextmanager
async def serving(certificates: Certificates) -> AsyncIterator[Gateway]:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [ALL]), tls=certificates.context) as running,
    ):
        yield running


async def common_name(running: Gateway, server_name: str, context: ssl.SSLContext) -> str:
    """Return whose certificate the gateway shows to who asks for *server_name*."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", running.port, ssl=context, server_hostname=server_name
    )
    writer.write(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % server_name.encode())
    assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    with suppress(OSError, ssl.SSLError):
        await writer.wait_closed()
    subject = x509.load_der_x509_certificate(der).subject
    return str(subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


@pytest.mark.wire
async def test_the_certificate_is_chosen_by_the_name_asked_for(tmp_path: Path) -> None:
    one = make_certificate(tmp_path, "one", "one.example", "localhost")
    two = make_certificate(tmp_path, "two", "two.example", "*.two.example")
    context = trusting(one, two)
    async with serving(Certificates([one, two])) as running:
        assert await common_name(running, "one.example", context) == "one"
        assert await common_name(running, "two.example", context) == "two"
        assert await common_name(running, "TWO.example", context) == "two"
        assert await common_name(running, "a.two.example", context) == "two"
        context.check_hostname = False
        assert await common_name(running, "a.b.two.example", context) == "one"
        assert await common_name(running, "unknown.example", context) == "one"


@pytest.mark.wire
async def test_a_changed_certificate_is_taken_up_and_a_bad_one_is_not(tmp_path: Path) -> None:
    old = make_certificate(tmp_path, "one", "one.example")
    certificates = Certificates([old])
    async with serving(certificates) as running:
        assert await common_name(running, "one.example", trusting(old)) == "one"
        assert not certificates.reload_if_changed()

        new = make_certificate(tmp_path, "new", "one.example")
        Path(new.cert_file).replace(old.cert_file)
        assert not certificates.reload_if_changed()  # certificate and key do not fit yet
        assert certificates.failures == 1
        assert running.events
        Path(new.key_file).replace(old.key_file)
        assert certificates.reload_if_changed()
        assert await common_name(running, "one.example", trusting(old)) == "new"

        Path(old.cert_file).write_text("nonsense")
        assert not certificates.reload_if_changed()
        Path(old.cert_file).unlink()
        assert not certificates.reload_if_changed()


@pytest.mark.wire
async def test_a_new_list_of_certificates_serves_the_next_handshake(tmp_path: Path) -> None:
    one = make_certificate(tmp_path, "one", "one.example")
    two = make_certificate(tmp_path, "two", "one.example")
    certificates = Certificates([one])
    async with serving(certificates) as running:
        certificates.use([two])
        assert await common_name(running, "one.example", trusting(one, two)) == "two"
        with pytest.raises(CertificateError):
            certificates.use([Certificate("/nowhere.pem", "/nowhere.key")])
        assert await common_name(running, "one.example", trusting(one, two)) == "two"


@pytest.mark.wire
async def test_tls_1_1_is_refused(tmp_path: Path) -> None:
    one = make_certificate(tmp_path, "one", "one.example")
    context = trusting(one)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    async with serving(Certificates([one])) as running:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await common_name(running, "one.example", context)


@pytest.mark.wire
async def test_http_1_1_is_the_protocol_that_is_negotiated(tmp_path: Path) -> None:
    one = make_certificate(tmp_path, "one", "one.example")
    context = trusting(one)
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with serving(Certificates([one])) as running:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", running.port, ssl=context, server_hostname="one.example"
        )
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        writer.close()
        with suppress(OSError, ssl.SSLError):
            await writer.wait_closed()


@pytest.mark.wire
async def test_a_handshake_that_does_not_come_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.io.accepting.HANDSHAKE_SECONDS", 0.2)
    one = make_certificate(tmp_path, "one", "one.example")
    async with serving(Certificates([one])) as running:
        client = await running.connect()
        await client.send(b"\x16\x03\x01")

        assert await client.at_end(2)


@pytest.mark.wire
async def test_the_upstream_is_told_that_the_client_spoke_https(tmp_path: Path) -> None:
    one = make_certificate(tmp_path, "one", "one.example")
    async with (
        upstream() as backend,
        gateway(
            configuration(one_upstream(backend), [ALL]), tls=Certificates([one]).context
        ) as running,
    ):
        await common_name(running, "one.example", trusting(one))

        assert b"X-Forwarded-Proto: https\r\n" in backend.requests[0]


def encrypted_key(directory: Path) -> Certificate:
    certificate = make_certificate(directory, "locked", "locked.example")
    key = ec.generate_private_key(ec.SECP256R1())
    Path(certificate.key_file).write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    )
    return certificate


def test_an_encrypted_key_is_refused_and_never_asked_about(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match="locked"):
        Certificates([encrypted_key(tmp_path)])


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    one = make_certificate(tmp_path, "one", "one.example")
    two = make_certificate(tmp_path, "two", "two.example")
    with pytest.raises(CertificateError, match=r"one\.pem"):
        Certificates([Certificate(one.cert_file, two.key_file)])


def test_no_certificates_are_refused() -> None:
    with pytest.raises(CertificateError, match="at least one"):
        Certificates([])


# Towards upstreams ------------------------------------------------------------------------------


@asynccontextmanager
async def secure_upstream(certificate: Certificate) -> AsyncIterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert_file, certificate.key_file)
    backend = Upstreams(answering(OK))
    server = await asyncio.start_server(backend, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:  # else a failed test leaves its connections to the end of the loop, which waits
        server.close()
        for task in tuple(backend.tasks):
            task.cancel()
        if backend.tasks:
            await asyncio.wait(backend.tasks)


@pytest.mark.wire
@pytest.mark.parametrize(
    ("host", "trusted", "status"),
    [("localhost", True, 200), ("localhost", False, 502), ("127.0.0.1", True, 502)],
    ids=["trusted", "unknown-authority", "other-name"],
)
async def test_an_https_upstream_must_prove_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, *, trusted: bool, status: int
) -> None:
    certificate = make_certificate(tmp_path, "backend", "localhost")
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", certificate.cert_file)
    async with secure_upstream(certificate) as port:
        upstreams = {"app": Upstream("app", (Endpoint("https", host, port),))}
        async with gateway(configuration(upstreams, [ALL])) as running:
            assert (await running.ask(GET)).status == status
            if status == 200:
                assert (await running.ask(GET)).status == 200


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o644, True)])
def test_a_new_key_that_everybody_on_the_machine_may_read_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, *, warned: bool
) -> None:
    certificates = Certificates([make_certificate(tmp_path, "one", "a.example")])
    renewed = make_certificate(tmp_path, "one", "a.example")
    Path(renewed.key_file).chmod(mode)
    assert certificates.reload_if_changed()
    assert (f"everybody on this machine may read the key {renewed.key_file}" in caplog.text) is (
        warned
    )

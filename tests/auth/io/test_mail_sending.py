"""Letters to a real mail server and a real webhook."""

import hashlib
import hmac
import ssl
from base64 import b64decode, b64encode
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from auth.io.mail_sending import NotSent, send_letter, signature
from auth.login.mail import Letter
from config.model import Address, Mail, Secret, Smtp, Webhook
from tests.gateway.io.test_tls import make_certificate
from tests.mail import running_mailbox

LETTER = Letter(
    "reset", "ada@example.com", "Ein Päckchen", "Grüße\nhttps://a/b\n", "https://a/b", "de"
)
SENDER = "Doorward <no-reply@example.com>"


def by_smtp(address: Address, **more: object) -> Mail:
    settings = {"security": "none"} | more
    return Mail(SENDER, smtp=Smtp(address, **settings))  # type: ignore[arg-type]


async def test_a_letter_reaches_a_mail_server() -> None:
    async with running_mailbox() as mailbox:
        await send_letter(by_smtp(mailbox.address), LETTER, letter_id="abc.0")
    (message,) = mailbox.messages
    assert mailbox.recipients == [["ada@example.com"]]
    assert (message["From"], message["To"], message["Subject"]) == (
        SENDER,
        "ada@example.com",
        "Ein Päckchen",
    )
    assert (message["Message-ID"], message["Auto-Submitted"]) == (
        "<abc.0@example.com>",
        "auto-generated",
    )
    assert message.get_content().replace("\r\n", "\n") == LETTER.text


async def test_starttls_is_used_and_the_certificate_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = make_certificate(tmp_path, "mail", "localhost")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate.cert_file, certificate.key_file)
    async with running_mailbox(tls, asks_who=True) as mailbox:
        address = Address("localhost", mailbox.address.port)
        mail = by_smtp(address, security="starttls", username="doorward", password=Secret("post"))
        with pytest.raises(NotSent, match="SSLCertVerificationError"):
            await send_letter(mail, LETTER, letter_id="abc.0")
        monkeypatch.setenv("SSL_CERT_FILE", certificate.cert_file)
        await send_letter(mail, LETTER, letter_id="abc.1")
        nobody = by_smtp(address, security="starttls")
        with pytest.raises(NotSent, match="530"):
            await send_letter(nobody, LETTER, letter_id="abc.2")
    assert mailbox.was_encrypted == [True]


async def test_a_server_that_lacks_starttls_gets_nothing() -> None:
    """Whoever is on the way could take the offer out, and read the link."""
    async with running_mailbox() as mailbox:
        mail = by_smtp(mailbox.address, security="starttls")
        with pytest.raises(NotSent, match="SMTPNotSupportedError"):
            await send_letter(mail, LETTER, letter_id="abc.0")
    assert mailbox.messages == []


@pytest.mark.parametrize(
    ("refusal", "for_good"),
    [("451 later", False), ("550 nobody here", True)],
    ids=["later", "never"],
)
async def test_a_refused_address_is_told_with_whether_to_try_again(
    refusal: str, *, for_good: bool
) -> None:
    async with running_mailbox() as mailbox:
        mailbox.refusal = refusal
        with pytest.raises(NotSent) as caught:
            await send_letter(by_smtp(mailbox.address), LETTER, letter_id="abc.0")
    assert caught.value.for_good is for_good
    assert "ada" not in str(caught.value)


async def test_a_server_that_is_not_there_is_told() -> None:
    async with running_mailbox() as mailbox:
        pass
    with pytest.raises(NotSent, match="ConnectionRefusedError") as caught:
        await send_letter(by_smtp(mailbox.address), LETTER, letter_id="abc.0")
    assert not caught.value.for_good


@pytest.mark.parametrize(
    "to", ["ada@example.com\r\nBcc: eve@example.com", "ada@example.com\nSubject: x"]
)
async def test_an_address_adds_no_field(to: str) -> None:
    letter = msgspec.structs.replace(LETTER, to=to)
    async with running_mailbox() as mailbox:
        mail = by_smtp(mailbox.address)
        with pytest.raises(NotSent, match="cannot stand"):
            await send_letter(mail, letter, letter_id="abc.0")
    assert mailbox.messages == []


class Hook:
    def __init__(self, status: int = 204) -> None:
        self.status = status
        self.got: list[tuple[dict[str, str], bytes]] = []

    async def handle(self, request: web.Request) -> web.Response:
        fields = {name.lower(): value for name, value in request.headers.items()}
        self.got.append((fields, await request.read()))
        return web.Response(status=self.status, headers={"Location": "/elsewhere"})


@pytest.mark.parametrize(
    "secret", ["a secret of the hook", "whsec_" + b64encode(b"k" * 24).decode()]
)
async def test_a_webhook_gets_the_letter_signed(secret: str) -> None:
    hook = Hook()
    application = web.Application()
    application.router.add_post("/mail", hook.handle)
    async with TestServer(application) as server:
        webhook = Webhook(str(server.make_url("/mail")), Secret(secret))
        await send_letter(Mail(webhook=webhook), LETTER, letter_id="abc.0")
    ((fields, body),) = hook.got
    assert msgspec.json.decode(body) == {
        "kind": "reset",
        "to": "ada@example.com",
        "subject": "Ein Päckchen",
        "text": LETTER.text,
        "link": "https://a/b",
        "language": "de",
    }
    # Computed here by the words of Standard Webhooks, not by our own function.
    key = b"k" * 24 if secret.startswith("whsec_") else secret.encode()
    signed = f"abc.0.{fields['webhook-timestamp']}.".encode() + body
    version, _, mac = fields["webhook-signature"].partition(",")
    assert (fields["webhook-id"], version) == ("abc.0", "v1")
    assert b64decode(mac) == hmac.new(key, signed, hashlib.sha256).digest()


@pytest.mark.parametrize(("status", "for_good"), [(500, False), (302, False), (410, True)])
async def test_a_webhook_that_does_not_take_it_is_told(status: int, *, for_good: bool) -> None:
    hook = Hook(status)
    application = web.Application()
    application.router.add_route("*", "/{any}", hook.handle)
    async with TestServer(application) as server:
        webhook = Webhook(str(server.make_url("/mail")), Secret("s"))
        with pytest.raises(NotSent, match=str(status)) as caught:
            await send_letter(Mail(webhook=webhook), LETTER, letter_id="abc.0")
    assert caught.value.for_good is for_good
    assert len(hook.got) == 1  # no redirect was followed


async def test_a_webhook_that_is_not_there_is_told() -> None:
    webhook = Webhook("http://127.0.0.1:1/mail", Secret("s"))
    with pytest.raises(NotSent, match="the webhook failed"):
        await send_letter(Mail(webhook=webhook), LETTER, letter_id="abc.0")


def test_a_signature_depends_on_everything() -> None:
    base = ("secret", "id", "1", b"body")
    others = [("other", "id", "1", b"body"), ("secret", "x", "1", b"body")]
    others += [("secret", "id", "2", b"body"), ("secret", "id", "1", b"bode")]
    assert len({signature(*each) for each in [base, *others]}) == 5

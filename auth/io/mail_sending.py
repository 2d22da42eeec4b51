"""Handing a letter on: to a mail server, or to a service of the operator's that writes to people.

The webhook is signed as in Standard Webhooks 1.0.0: `webhook-id` is the same however often a letter
is sent, `webhook-timestamp` says when, and `webhook-signature` is `v1,` and the base64 of an
HMAC-SHA-256 of `id.timestamp.body`.
"""

import asyncio
import hashlib
import hmac
import smtplib
import ssl
import time
from base64 import b64decode, b64encode
from contextlib import closing, suppress
from email.message import EmailMessage
from email.utils import formatdate, parseaddr

import aiohttp
import msgspec

from auth.login.mail import Letter
from config.model import Mail, Smtp, Webhook

_SECONDS = 20.0
"""For all of one letter; mail servers may look a stranger over for some seconds (greylisting)."""


class NotSent(Exception):
    """The letter was not taken; the text is fit for a log. `for_good`: trying again is no use."""

    def __init__(self, message: str, *, for_good: bool = False) -> None:
        super().__init__(message)
        self.for_good = for_good


async def send_letter(mail: Mail, letter: Letter, *, letter_id: str) -> None:
    """Hand *letter* on as *mail* says; *letter_id* stays the same when it is tried again.

    Raises:
        NotSent: it was not taken.
    """
    if mail.webhook:
        await _post(mail.webhook, letter, letter_id)
    elif mail.smtp:
        message = _message(mail.sender, letter, letter_id)
        await asyncio.to_thread(_submit, mail.smtp, message)


async def _post(webhook: Webhook, letter: Letter, letter_id: str) -> None:
    body = msgspec.json.encode(letter)
    now = str(int(time.time()))
    fields = {
        "Content-Type": "application/json",
        "webhook-id": letter_id,
        "webhook-timestamp": now,
        "webhook-signature": signature(webhook.secret.value, letter_id, now, body),
    }
    timeout = aiohttp.ClientTimeout(total=_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as http,
            # A redirect would take the link to somebody whom the operator has not named.
            http.post(webhook.url, data=body, headers=fields, allow_redirects=False) as answer,
        ):
            status = answer.status
    except TimeoutError as error:
        raise NotSent("the webhook did not answer in time") from error
    except (aiohttp.ClientError, OSError) as error:
        raise NotSent(f"the webhook failed: {type(error).__name__}") from error
    if not 200 <= status < 300:
        raise NotSent(f"the webhook answered with status {status}", for_good=status == 410)


def signature(secret: str, letter_id: str, timestamp: str, body: bytes) -> str:
    """Return the value of `webhook-signature`; a *secret* in the form `whsec_…` is base64."""
    key = secret.encode()
    if secret.startswith("whsec_"):
        key = b64decode(secret.removeprefix("whsec_"))
    signed = f"{letter_id}.{timestamp}.".encode() + body
    return f"v1,{b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()}"


def _message(sender: str, letter: Letter, letter_id: str) -> EmailMessage:
    message = EmailMessage()
    try:
        # It refuses a line break in any of them; none may add a field or a recipient.
        message["From"], message["To"], message["Subject"] = sender, letter.to, letter.subject
    except ValueError as error:
        raise NotSent("the address or the subject cannot stand in a message", for_good=True) from (
            error
        )
    message["Date"] = formatdate()
    domain = parseaddr(sender)[1].rpartition("@")[2]
    message["Message-ID"] = f"<{letter_id}@{domain}>"
    # RFC 3834 section 5: no out-of-office message comes back.
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(letter.text)
    message["Content-Language"] = letter.language
    return message


def _submit(smtp: Smtp, message: EmailMessage) -> None:
    tls = ssl.create_default_context()
    host, port = smtp.server.host, smtp.server.port
    try:
        connection: smtplib.SMTP
        if smtp.security == "tls":
            connection = smtplib.SMTP_SSL(host, port, timeout=_SECONDS, context=tls)
        else:
            connection = smtplib.SMTP(host, port, timeout=_SECONDS)
        # Not `with`: after a failed handshake it would say QUIT, and wait for an answer.
        with closing(connection):
            if smtp.security == "starttls":
                # Raises where the server does not offer it: nobody on the way may take it out.
                connection.starttls(context=tls)
            if smtp.username:
                connection.login(smtp.username, smtp.password.value if smtp.password else "")
            connection.send_message(message)
            with suppress(smtplib.SMTPException):
                connection.quit()  # the letter is theirs already
    except smtplib.SMTPRecipientsRefused as error:
        codes = [code for code, _ in error.recipients.values()]
        for_good = all(500 <= code < 600 for code in codes)
        raise NotSent(f"the mail server refused the address ({codes})", for_good=for_good) from (
            error
        )
    except smtplib.SMTPResponseException as error:
        raise NotSent(f"the mail server answered with {error.smtp_code}") from error
    except (smtplib.SMTPException, OSError, ValueError) as error:
        raise NotSent(f"the mail server failed: {type(error).__name__}") from error

"""A real SMTP server that keeps what it gets, and one that says no."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from config.model import Address


class Mailbox:
    """Keeps every message; answers `refusal` instead while there is one."""

    def __init__(self) -> None:
        self.messages: list[EmailMessage] = []
        self.recipients: list[list[str]] = []
        self.was_encrypted: list[bool] = []
        self.refusal = ""
        self.address = Address("127.0.0.1", 0)

    async def handle_RCPT(  # noqa: N802 - the library's name
        self, server: SMTP, session: Session, envelope: Envelope, to: str, options: list[str]
    ) -> str:
        if self.refusal:
            return self.refusal
        envelope.rcpt_tos.append(to)
        return "250 OK"

    async def handle_DATA(  # noqa: N802 - the library's name
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        content = envelope.content
        assert isinstance(content, bytes)
        message = message_from_bytes(content, policy=policy.default)
        assert isinstance(message, EmailMessage)
        self.messages.append(message)
        self.recipients.append(list(envelope.rcpt_tos))
        self.was_encrypted.append(session.ssl is not None)
        return "250 OK"


def _checks(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
    assert isinstance(data, LoginPassword)
    return AuthResult(success=(data.login, data.password) == (b"doorward", b"post"))


@asynccontextmanager
async def running_mailbox(
    tls: ssl.SSLContext | None = None, *, asks_who: bool = False
) -> AsyncIterator[Mailbox]:
    """Run one on a free port of 127.0.0.1; with *tls* it offers STARTTLS, and insists on it."""
    mailbox = Mailbox()
    server = await asyncio.get_running_loop().create_server(
        lambda: SMTP(
            mailbox,
            hostname="mail.test",
            tls_context=tls,
            require_starttls=tls is not None,
            authenticator=_checks,
            auth_required=asks_who,
            auth_require_tls=tls is not None,
        ),
        "127.0.0.1",
        0,
    )
    mailbox.address = Address("127.0.0.1", server.sockets[0].getsockname()[1])
    try:
        yield mailbox
    finally:
        server.close()
        await server.wait_closed()

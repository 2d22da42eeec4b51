"""Writing what is wanted: real store, real accounts, a real mail server."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email.message import EmailMessage
from pathlib import Path

import msgspec
import pytest
from argon2 import PasswordHasher
from redis.asyncio import Redis

from auth.io.mail_queue import KEY, MailQueue, Wanted
from auth.login.accounts import Accounts
from auth.login.mailing import Mailing, letter_for, origin_of_links
from auth.login.one_time import PASSWORDS, REGISTRATION, OneTimeLinks
from config.model import Configuration, Login, Mail, Registration, Smtp
from tests.auth.login.conftest import configured
from tests.conftest import Valkey
from tests.mail import Mailbox, running_mailbox

NOW = 1_795_345_561.0


def wanted(to: str, kind: str = "reset", *, asked_at: float = 9e9) -> Wanted:
    return msgspec.convert(
        {
            "id": f"id-{to}", "kind": kind, "to": to, "name": "Eve", "language": "de",
            "asked_at": asked_at,
        },
        Wanted,
    )  # fmt: skip


def writing(mailbox: Mailbox | None, **login: object) -> Configuration:
    mail = mailbox and Mail("no-reply@example.com", Smtp(mailbox.address, security="none"))
    return configured(login=Login(mail=mail, **login))  # type: ignore[arg-type]


@pytest.fixture
def accounts(tmp_path: Path) -> Accounts:
    hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    accounts = Accounts(tmp_path / "accounts.sqlite3", hasher=hasher)
    accounts.add("ada", "correct horse battery", email="Ada@example.com")
    accounts.add("bob", "correct horse battery")
    accounts.add("eve", "correct horse battery", email="eve@example.com")
    accounts.set_disabled("eve", disabled=True)
    return accounts


@asynccontextmanager
async def running(
    valkey: Valkey, accounts: Accounts, configuration: Callable[[], Configuration]
) -> AsyncIterator[tuple[Mailing, MailQueue]]:
    async with Redis.from_url(valkey.url, protocol=2) as commands:
        queue = MailQueue(commands)
        mailing = Mailing(queue, configuration, lambda: accounts, backoff=(0.01,))
        await mailing.start()
        try:
            yield mailing, queue
        finally:
            await mailing.close()


async def counted(mailing: Mailing, kind: str, result: str) -> None:
    async with asyncio.timeout(10):
        while not mailing.counters[kind, result]:
            await asyncio.sleep(0.01)


def secret_in(message: EmailMessage) -> str:
    found = re.search(r"https://app\.example\.com/\S*\?token=(\S+)", message.get_content())
    assert found
    return found[1]


@pytest.mark.parametrize("name", ["ada", "ADA", "ada@example.com"])
async def test_who_forgot_a_password_gets_a_link(
    valkey: Valkey, accounts: Accounts, name: str
) -> None:
    links = OneTimeLinks(accounts)
    async with (
        running_mailbox() as mailbox,
        running(valkey, accounts, lambda: writing(mailbox)) as (mailing, queue),
    ):
        await queue.put(wanted(name))
        await counted(mailing, "reset", "sent")
        ((recipient,),) = mailbox.recipients
        assert recipient.lower() == "ada@example.com"
        issued = links.find(secret_in(mailbox.messages[0]), PASSWORDS)
        assert issued.subject == accounts.find("ada").subject
        assert mailbox.messages[0]["Content-Language"] == "de"
    assert valkey.client.zcard(KEY) == 0


@pytest.mark.parametrize("name", ["nobody", "bob", "eve", "eve@example.com", "", "\x00"])
async def test_nobody_is_written_to_who_may_not_set_a_password(
    valkey: Valkey, accounts: Accounts, name: str
) -> None:
    async with (
        running_mailbox() as mailbox,
        running(valkey, accounts, lambda: writing(mailbox)) as (mailing, queue),
    ):
        await queue.put(wanted(name))
        await counted(mailing, "reset", "nobody")
        assert mailbox.messages == []
    assert valkey.client.zcard(KEY) == 0


async def test_a_letter_that_is_not_taken_is_tried_again_and_told_to_the_operator(
    valkey: Valkey, accounts: Accounts, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        running_mailbox() as mailbox,
        running(valkey, accounts, lambda: writing(mailbox)) as (mailing, queue),
    ):
        mailbox.refusal = "451 later"
        await queue.put(wanted("ada"))
        await counted(mailing, "reset", "failed")
        mailbox.refusal = ""
        await counted(mailing, "reset", "sent")
        assert len(mailbox.messages) == 1
    assert "letters are not sent" in caplog.text
    assert "ada" not in caplog.text


@pytest.mark.parametrize("asked_at", [9e9, 0.0], ids=["refused for good", "for too long"])
async def test_a_letter_is_given_up_with_an_error_in_the_log(
    valkey: Valkey, accounts: Accounts, caplog: pytest.LogCaptureFixture, asked_at: float
) -> None:
    async with (
        running_mailbox() as mailbox,
        running(valkey, accounts, lambda: writing(mailbox)) as (mailing, queue),
    ):
        mailbox.refusal = "550 nobody" if asked_at else "451 later"
        await queue.put(wanted("ada", asked_at=asked_at))
        await counted(mailing, "reset", "given_up")
    (record,) = [each for each in caplog.records if each.levelno == logging.ERROR
                 and each.name == "doorward.mail"]  # fmt: skip
    assert "id-ada" in record.getMessage()
    assert "@" not in record.getMessage()
    assert valkey.client.zcard(KEY) == 0


async def test_what_waits_is_written_when_the_configuration_says_how(
    valkey: Valkey, accounts: Accounts
) -> None:
    async with running_mailbox() as mailbox:
        now = [writing(None)]
        async with running(valkey, accounts, lambda: now[0]) as (mailing, queue):
            await queue.put(wanted("ada"))
            await asyncio.sleep(0.05)
            assert valkey.client.zcard(KEY) == 1
            now[0] = writing(mailbox)
            await counted(mailing, "reset", "sent")


def test_who_registers_gets_a_link_and_who_is_known_is_told_so(accounts: Accounts) -> None:
    configuration = writing(None, registration=Registration())
    new = letter_for(wanted("new@example.com", "registration"), accounts, configuration)
    assert new is not None
    secret = new.link.partition("?token=")[2]
    assert OneTimeLinks(accounts).find(secret, REGISTRATION).email == "new@example.com"
    for address in ("ada@example.com", "ADA@EXAMPLE.COM", "eve@example.com"):
        known = letter_for(wanted(address, "registration"), accounts, configuration)
        assert known is not None
        assert (known.kind, known.to) == ("registered_already", address)
        assert known.link == "https://app.example.com/.doorward/login"
    accounts.close()


def test_a_letter_repeats_nothing_that_a_stranger_chose(accounts: Accounts) -> None:
    """Else anybody could have us write anything to anybody."""
    configuration = writing(None, registration=Registration())
    asked = msgspec.structs.replace(
        wanted("new@example.com", "registration"), name="Buy at https://evil.example"
    )
    letter = letter_for(asked, accounts, configuration)
    assert letter is not None
    assert "evil" not in letter.text + letter.subject
    accounts.close()


def test_without_registration_nothing_is_written_to_strangers(accounts: Accounts) -> None:
    asked = wanted("new@example.com", "registration")
    assert letter_for(asked, accounts, writing(None)) is None
    accounts.close()


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("/.doorward/login", "https://app.example.com"),
        ("https://login.example.com/.doorward/login", "https://login.example.com"),
    ],
)
def test_links_lead_to_what_the_operator_wrote(url: str, origin: str) -> None:
    assert origin_of_links(configured(login=Login(url=url))) == origin

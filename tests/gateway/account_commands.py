"""For tests of `doorward accounts`: a route file, and a look at what the commands did."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

from auth.io.session_store import open_session_store
from auth.login.accounts import Accounts
from auth.session import SessionRecord
from config.model import SessionSettings

PASSWORD = "correct horse battery"
ROUTES = """\
version: 1
server: {listen: 127.0.0.1:8080, public_url: http://127.0.0.1:8080}
admin: {listen: 127.0.0.1:8081}
store: {url: %s}
upstreams: {notes: http://127.0.0.1:9001}
routes:
  - {id: all, match: {path: /*}, upstream: notes, access: signed-in}
"""

Doorward = Callable[..., Result]


def accounts_of(directory: Path) -> Accounts:
    return Accounts(directory / ".doorward" / "accounts.sqlite3")


def signs_in(directory: Path, login: str, password: str) -> bool:
    accounts = accounts_of(directory)
    try:
        return asyncio.run(accounts.sign_in(login, password)) is not None
    finally:
        accounts.close()


async def begin_session(url: str, subject: str) -> None:
    store = await open_session_store(url, SessionSettings("doorward", secure=False), worker=False)
    now = time.time()
    await store.create(SessionRecord(1, subject, created_at=now, expires_at=now + 600))
    await store.close()


async def count_sessions(url: str, subject: str) -> int:
    store = await open_session_store(url, SessionSettings("doorward", secure=False), worker=False)
    sessions = await store.sessions_of(subject)
    await store.close()
    return len(sessions)

"""What every stand-in for the session store leaves to the real one."""

from collections.abc import Sequence

from auth.ports import Change, Ended, SessionSummary
from auth.session import SessionRecord


class NothingWritten:
    """The port `SessionStore` without looking up: subclasses do that, and nothing else is asked."""

    async def create(self, record: SessionRecord) -> str:
        raise NotImplementedError

    async def end(self, session_digest: str, *, reason: str) -> Ended:
        raise NotImplementedError

    async def end_subject(self, subject: str, *, reason: str, keep: str = "") -> Ended:
        raise NotImplementedError

    async def update(self, digest: str, change: Change) -> bool:
        raise NotImplementedError

    async def settle(self) -> Ended:
        raise NotImplementedError

    async def end_all(self, *, reason: str) -> Ended:
        raise NotImplementedError

    async def sessions_of(self, subject: str) -> Sequence[SessionSummary]:
        raise NotImplementedError

"""What a worker does when there is more to do than it can: refuse a share for next to nothing.

How this works: `gateway.shedding` says how much is to be refused. A request is refused when its
head has been read and before anything else is done for it. An answer that is worked out for each
request, with a page in the reader's language and an id of its own, costs as much as serving it
would; so this one is made once a second (for its Date) in each form that is asked for: a problem
for programs, a page for people, without content for HEAD. It has no request id, as no log line is
its own: one event tells of all that were refused since the last beat (`ExchangeFinished.times`).
Then the connection is not read for a while, whatever its client was told.
"""

from collections import deque
from collections.abc import Callable
from random import Random
from time import time
from typing import TYPE_CHECKING

from auth.decision import Reason
from gateway.events import ExchangeFinished
from gateway.head import RequestHead
from gateway.io.answering import answer_bytes
from gateway.io.endpoints import ENDS_SESSIONS
from gateway.page import RefusalPages
from gateway.responses import answer_error
from gateway.shedding import REST_SECONDS, Shedder

if TYPE_CHECKING:
    from gateway.io.connection import ClientConnection
    from gateway.snapshot import Snapshot

MOST_FORMS = 64
"""Forms that are made in one second. Whoever asks for yet another one gets the one for programs."""


class Overload:
    """Refuses requests; *observe* is told of them, and *random* (0 to 1) which ones they are."""

    def __init__(self, random: Random, observe: Callable[[ExchangeFinished], None]) -> None:
        self.shedder = Shedder()
        self.count = 0
        """Requests refused."""
        self._random = random
        self._observe = observe
        self._answers = _Answers()
        self._generation = 0
        self._event: ExchangeFinished | None = None
        self._resting: deque[tuple[float, ClientConnection]] = deque()

    def use(self, snapshot: "Snapshot") -> None:
        """Answer as *snapshot* has it from now on."""
        self._answers.use(snapshot.pages)
        self._generation = snapshot.generation

    def refuses(self, connection: "ClientConnection", head: RequestHead, *, last: bool) -> bool:
        """Refuse *head* if it is of the share to be refused; return whether it was.

        Ending a session must always be possible. *last*: nothing more is read on the connection.
        """
        if self._random.random() >= self.shedder.share or head.target.path in ENDS_SESSIONS:
            return False
        # Content would have to be read before another request can be.
        keep = head.keep_alive and not head.has_body and not last
        now = time()
        data, content = self._answers.to(head, int(now), keep=keep)
        self.count += 1
        event = self._event
        if event is None:
            event = self._event = self._first(head, now, connection.remote)
        else:
            event.times += 1
        event.bytes_out += content
        if connection.turn_down(data, keep=keep):
            self._resting.append((now + REST_SECONDS, connection))
        return True

    def beat(self, late: float) -> None:
        """Take note of a beat (`gateway.shedding`); read on where it is time, tell of refusals."""
        self.shedder.beat(late)
        now, resting = time(), self._resting
        # A clock that was set back lets nobody rest for longer than REST_SECONDS.
        while resting and not now < resting[0][0] <= now + REST_SECONDS:
            resting.popleft()[1].read_on()
        event, self._event = self._event, None
        if event is not None:
            self._observe(event)

    def _first(self, head: RequestHead, now: float, remote: str) -> ExchangeFinished:
        return ExchangeFinished(
            now,
            method=head.method,
            host=head.host,
            path=head.target.path,
            status=503,
            reason=Reason.OVERLOADED,
            generation=self._generation,
            remote=remote,
            error=Reason.OVERLOADED,
        )


class _Answers:
    """The answer in the forms in which it was asked for in the present second."""

    def __init__(self) -> None:
        self._pages: RefusalPages | None = None
        self._second = 0
        self._forms: dict[tuple[object, ...], tuple[bytes, int]] = {}

    def use(self, pages: RefusalPages) -> None:
        self._pages = pages
        self._forms.clear()

    def to(self, head: RequestHead, second: int, *, keep: bool) -> tuple[bytes, int]:
        """Return the whole message for *head*, and how much of it is content."""
        if second != self._second:
            self._second = second
            self._forms.clear()
        fields, method = head.by_name, head.method
        form = (fields.get("accept"), fields.get("accept-language"), method == "HEAD", keep)
        made = self._forms.get(form)
        if made is not None:
            return made
        asked: RequestHead | None = head
        if len(self._forms) >= MOST_FORMS:
            asked, form = None, (None, None, method == "HEAD", keep)
            if form in self._forms:
                return self._forms[form]
        assert self._pages is not None
        answer = answer_error(Reason.OVERLOADED, request_id="", head=asked, pages=self._pages)
        made = self._forms[form] = answer_bytes(answer, method=method, keep=keep)
        return made

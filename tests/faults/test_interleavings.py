"""Every order in which a worker, the store and a logout can take their steps, up to a bound.

How this works. The worker is the product's own `Reader` with its cache, flights and lease; the
store is a model that executes what arrives and sends replies and pushes in one order, as the real
one does for a connection; time is a number. A *world* offers the steps that are possible now, and
the search takes each of them, from the beginning, until no step is left. Two paths that lead to the
same state are followed once. A pause needs no step of its own: it is an order in which the worker
does nothing while time passes.

Checked at every admission: it did not start after the logout's answer (promise 1), nor more than a
lease after the deletion, or after somebody wrote an epoch by hand (promise 2).
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import hiredis
import msgspec
import pytest

from auth.io.barrier import MARGIN, Ending
from auth.io.connection import Command, Connection, OnReply, Reply, StoreLost
from auth.io.flight import SessionFlight
from auth.io.reader import Reader
from auth.io.session_cache import SessionCache
from auth.revocation import epoch_key, epoch_name
from auth.session import SessionRecord, encode_record, session_key
from config.model import SessionSettings
from tests.faults.defences import EndlessLease, TicketlessCache

LEASE = 1.0
STEP = 1.1
HALF = 0.6
STEPS = ("use", "beat", "advance", "half", "cut", "delete", "epoch", "publish", "answer")
NAME, OTHER = "d" * 64, "e" * 64
RECORD = SessionRecord(1, "u1", 0.0, 1e9)
EPOCH = epoch_key(epoch_name("", "u1"))
Budget = dict[str, int]
"""How often each step may be taken; `exec` and `deliver` as often as there is something to do."""
BARE_DELETE: Budget = {"use": 2, "beat": 1, "delete": 1, "advance": 1}
LOGOUT: Budget = {"use": 2, "beat": 1, "delete": 1, "publish": 1, "answer": 1}
# From a worker that knows the epoch: another session of the same person is cached.
BY_HAND: Budget = {"use": 2, "beat": 1, "epoch": 1, "half": 2}
LONG: dict[str, Budget] = {
    "a connection that breaks": LOGOUT | {"cut": 1},
    "a lease that runs out": LOGOUT | {"advance": 1},
}


class Wire(Connection):
    """A connection whose two directions are queues of the model."""

    def __init__(self, world: "World") -> None:
        # Nothing of the real one is used: it would want a socket.
        self.lost = False
        self.tracking = True
        self._world = world

    def send(
        self, command: Command, on_reply: OnReply, expect: type | tuple[type, ...] = object
    ) -> None:
        if self.lost:
            raise StoreLost("not connected")
        self._world.to_store.append((command, on_reply))


class Link:
    """What the reader needs of a link."""

    def __init__(self, connection: Connection) -> None:
        self.connection: Connection | None = connection


class World:
    """One worker, the store, and somebody who logs out. *barrier*: whether the answer waits."""

    def __init__(
        self,
        budget: Budget,
        cache: Callable[[], SessionCache],
        *,
        barrier: bool,
        flight: type[SessionFlight] = SessionFlight,
    ) -> None:
        settings = SessionSettings(cookie_name="d", secure=False, lease=LEASE)
        self.reader = Reader(settings, name="w")
        self.reader.cache = cache()
        self.reader._session_flight = flight
        self.reader.clock = lambda: self.now
        self.reader.wall = lambda: 1000.0 + self.now
        self.reader._next_sweep = 1e9
        # What is under way in a session's name is not the subject here.
        self.reader._doubt = lambda *_: None  # type: ignore[method-assign]
        self.barrier = barrier
        self.now = 100.0
        self.left = dict.fromkeys(STEPS, 0) | budget
        self.alive = True
        self.registered = self.acknowledged = False
        self.deleted_at = self.published_at = self.answered_at = 1e9
        self.tracked: set[str] = set()
        self.held_lease = True
        self.to_store: list[tuple[Command, OnReply]] = []
        self.unanswered: list[tuple[Command, OnReply]] = []
        self.from_store: list[Sequence[Callable[[], None]]] = []
        self.shape: list[str] = []
        """Of `from_store`, for `fingerprint`."""
        self.epoch: bytes | None = None
        self.wrong = ""
        self.connect()
        if self.left["epoch"]:
            self._know_epoch()

    def _know_epoch(self) -> None:
        """Read another session under a lease; whose NAME is, is known from long ago."""
        self.reader.last_records.parse(NAME, encode_record(RECORD))
        self._beat()
        self._use(OTHER)
        while self.to_store:  # its record, and then the epoch of its subject
            self._exec()
            self._deliver()
        assert len(self.reader.cache.epochs) == 2

    def connect(self) -> None:
        self.wire = Wire(self)
        self.reader.link = Link(self.wire)  # type: ignore[assignment]
        with contextlib.suppress(StopIteration):
            self.reader.meet(self.wire, replaced=False).send(None)

    def steps(self) -> Iterator[str]:
        """Yield what can happen now."""
        if self.to_store:
            yield "exec"
        if self.from_store:
            yield "deliver"
        for step in ("use", "beat", "advance", "half", "cut", "epoch"):
            if self.left[step]:
                yield step
        if self.left["delete"]:
            yield "delete"
        elif self.left["publish"]:
            yield "publish"
        elif self.left["answer"] and self._may_answer():
            yield "answer"

    def _may_answer(self) -> bool:
        """The barrier's rule: nobody, everybody has confirmed, or a lease has passed."""
        waited = self.now >= self.published_at + LEASE + MARGIN
        return not self.barrier or self.acknowledged or not self.held_lease or waited

    def take(self, step: str) -> None:
        if step in self.left:
            self.left[step] -= 1
        getattr(self, f"_{step}")()

    def _use(self, name: str = NAME) -> None:
        started = self.now, self.answered_at <= self.now
        record = self.reader.peek(name)
        if record is not None:
            self._judge(started, record)
        else:
            self.reader.ask(name, partial(self._judge, started))

    def _judge(self, started: tuple[float, bool], found: SessionRecord | str | None) -> None:
        if not isinstance(found, SessionRecord):
            return
        at, after_answer = started
        if after_answer:
            self.wrong = "admitted after the answer"
        elif at > self.deleted_at + LEASE:
            self.wrong = "admitted a lease after the deletion"

    def _beat(self) -> None:
        with contextlib.suppress(StoreLost):
            self.reader.tick(self.wire)

    def _advance(self) -> None:
        self.now += STEP

    def _half(self) -> None:
        self.now += HALF

    def _cut(self) -> None:
        """The connection breaks: what was under way is lost, and there is a new one at once."""
        wire, waiting = self.wire, self.to_store + self.unanswered
        self.to_store, self.from_store, self.shape = [], [], []
        self.unanswered = []
        self.tracked.clear()
        wire.lost = True
        self.reader.lose()
        for _, on_reply in waiting:
            on_reply(StoreLost("cut"))
        self.connect()

    def _exec(self) -> None:
        """What was sent arrives and is executed, all of it."""
        batch, self.to_store = self.to_store, []
        replies = []
        for command, on_reply in batch:
            reply = self._execute(command)
            replies.append(partial(on_reply, reply))
        self.unanswered = self.unanswered + batch
        self._send(replies, f"{len(batch)} {batch[0][0][0]!r} {self.alive}")

    def _send(self, items: Sequence[Callable[[], None]], shape: str) -> None:
        self.from_store.append(items)
        self.shape.append(shape)

    def _execute(self, command: Command) -> Reply:
        name, *arguments = (str(part) for part in command)
        if name == "MGET":
            self.tracked.update(arguments)
            return [encode_record(RECORD), None] if self.alive else [None, None]
        if name == "PTTL":
            self.tracked.update(arguments)
            return -1 if self.alive else -2
        if name == "GET":
            self.tracked.update(arguments)
            return self.epoch if arguments == [EPOCH] else None
        if name == "EVAL":
            self.registered = True
        elif name == "PUBLISH":
            self.acknowledged = True
        return 1

    def _deliver(self) -> None:
        """The next of what the store sent arrives."""
        items = self.from_store.pop(0)
        self.shape.pop(0)
        self.unanswered = self.unanswered[sum(item.func is not self._push for item in items) :]  # type: ignore[attr-defined]
        for item in items:
            item()

    def _push(self, push: list[object]) -> None:
        self.wire.on_push(hiredis.PushNotification(push))

    def _delete(self) -> None:
        self.alive = False
        self.deleted_at = self.now
        self._invalidate(session_key(NAME))

    def _epoch(self) -> None:
        """Somebody ends all of the subject's sessions by a bare write."""
        self.epoch = b"1000000"
        self.deleted_at = self.now
        self._invalidate(EPOCH)

    def _invalidate(self, key: str) -> None:
        if key in self.tracked:
            self.tracked.discard(key)
            self._send([partial(self._push, [b"invalidate", [key.encode()]])], "invalidate")

    def _publish(self) -> None:
        self.published_at = self.now
        self.held_lease = self.registered
        ending = msgspec.json.encode(Ending("b:1", "channel", 0.0, {NAME: 60.0}))
        self._send([partial(self._push, [b"message", b"ended", ending])], "message")

    def _answer(self) -> None:
        self.answered_at = self.now

    def fingerprint(self) -> object:
        """Return what two paths must have in common to have the same future."""
        reader, cache = self.reader, self.reader.cache
        flight = cache.flights.get(NAME)
        return (
            tuple(self.left.values()),
            tuple((command, self._kind(on_reply)) for command, on_reply in self.to_store),
            tuple(self.shape),
            tuple((command[0], self._kind(on_reply)) for command, on_reply in self.unanswered),
            tuple(sorted(self.tracked)),
            (self.registered, self.acknowledged, self.held_lease, self.now),
            (self.deleted_at, self.published_at, self.answered_at),
            (round(cache.lease_until, 3), round(reader.fresh_as_of, 3), NAME in reader.endings),
            (tuple(cache.sessions), tuple(cache.absences), tuple(cache.epochs)),
            isinstance(flight, SessionFlight)
            and (flight._outstanding, len(flight._waiters), tuple(flight._epochs)),
        )

    def _kind(self, on_reply: OnReply) -> object:
        """A flight that has lost its ticket is another one than that which has it."""
        owner = getattr(getattr(on_reply, "func", None), "__self__", None)
        holds = self.reader.cache.flights.get(NAME) is owner
        details = getattr(on_reply, "args", ())[1:2]
        return holds, details if owner is self.reader else len(getattr(owner, "_waiters", ()))


def search(
    budget: Budget,
    cache: Callable[[], SessionCache] = SessionCache,
    *,
    barrier: bool = True,
    flight: type[SessionFlight] = SessionFlight,
    most: int = 10_000,
) -> tuple[str, list[str], int]:
    """Return what goes wrong (empty: nothing), on which path, and how many states there were."""
    seen: set[object] = set()
    paths: list[list[str]] = [[]]
    while paths:
        path = paths.pop()
        world = World(budget, cache, barrier=barrier, flight=flight)
        for step in path:
            world.take(step)
        if world.wrong:
            return world.wrong, path, len(seen)
        state = world.fingerprint()
        if state not in seen:
            seen.add(state)
            assert len(seen) < most, "the bound is too large"
            paths.extend([*path, step] for step in world.steps())
    return "", [], len(seen)


class JoinedByItsTicket(SessionFlight):
    """Who comes later does not ask whether its epochs are still known."""

    def is_joinable(self, now: float) -> bool:
        return now < self._reading.cache.lease_until


@pytest.mark.parametrize(
    "budget", [BARE_DELETE, LOGOUT, BY_HAND], ids=["a bare delete", "a logout", "a bare epoch"]
)
def test_no_order_of_the_steps_breaks_a_promise(budget: Budget) -> None:
    wrong, path, states = search(budget)
    assert not wrong, (wrong, path)
    assert states > 1000


@pytest.mark.parametrize(
    ("budget", "cache", "barrier"),
    [
        (BARE_DELETE, TicketlessCache, True),
        (LOGOUT, TicketlessCache, True),
        (BARE_DELETE, EndlessLease, True),
        (LOGOUT, EndlessLease, True),
        (LOGOUT, SessionCache, False),
    ],
    ids=["no ticket", "no ticket, logout", "no lease", "no lease, logout", "no barrier"],
)
def test_without_a_defence_some_order_breaks_a_promise(
    budget: Budget,
    cache: Callable[[], SessionCache],
    barrier: bool,  # noqa: FBT001 - a table's column
) -> None:
    wrong, path, _ = search(budget, cache, barrier=barrier)
    assert wrong.startswith("admitted"), path


def test_a_read_that_is_joined_after_its_epoch_was_written_breaks_a_promise() -> None:
    wrong, path, _ = search(BY_HAND, flight=JoinedByItsTicket)
    assert wrong == "admitted a lease after the deletion", path


@pytest.mark.soak
@pytest.mark.skipif("DOORWARD_SOAK" not in os.environ, reason="takes minutes: make soak")
@pytest.mark.parametrize("budget", LONG.values(), ids=LONG.keys())
def test_no_order_of_more_steps_breaks_a_promise(budget: Budget) -> None:
    wrong, path, states = search(budget, most=1_000_000)
    assert not wrong, (wrong, path)
    assert states > 5000

"""What happened, as the clients saw it: the only thing the checker reads.

All times are seconds of one monotonic clock. An operation is recorded when it has ended, also when
it failed or nobody knows whether it took effect.
"""

import time
from typing import Literal

import msgspec

Kind = Literal[
    "create",
    "put",
    "issue",
    "use",
    "end",
    "end_subject",
    "end_all",
    "delete",
    "epoch",
    "replace",
    "flush",
    "rollback",
]
Result = Literal["ok", "admitted", "refused", "unavailable", "unknown"]
"""`unavailable`: the answer said so; `unknown`: there was none. Neither says what took effect."""

clock = time.monotonic


class Operation(msgspec.Struct, frozen=True):
    """One thing that a client did. A bearer token is a session that no record stands for: it is
    `issue`d, and lives unless something says otherwise.
    """

    kind: Kind
    started: float
    ended: float
    result: Result
    session: str = ""
    subject: str = ""
    """Whose it is that was made, or ended by `end_subject`; who an admitted `use` was taken for."""
    version: int = 0
    """Of `put` and `replace`: of the record; of an admitted `use`: which one was in force."""
    gateway: str = ""
    reason: str = ""
    """Of a refused `use`."""
    confirmed: bool = False
    """Of an end: whether every gateway there is acknowledged it."""
    expires_at: float = float("inf")
    """Of `create` and `put`."""
    idles_at: float = float("inf")
    """Of `create` and `put`: from then on it may be over, if it was not used meanwhile."""
    since: float = 0.0
    """Of `rollback`: what was written after this is lost."""
    cleared_cookie: bool = False
    """Of `use`: whether the answer took the client's cookie away."""

    def __str__(self) -> str:
        what = [self.kind, self.session[:8] or self.subject, self.result, self.reason]
        where = f" at {self.gateway}" if self.gateway else ""
        return f"{self.started:.4f}-{self.ended:.4f} {' '.join(filter(None, what))}{where}"


class Fault(msgspec.Struct, frozen=True):
    """One thing that the nemesis did."""

    name: str
    started: float
    ended: float

    def __str__(self) -> str:
        return f"{self.started:.4f}-{self.ended:.4f} {self.name}"


class History(msgspec.Struct, frozen=True):
    """Everything of one run."""

    lease: float
    operations: tuple[Operation, ...]
    faults: tuple[Fault, ...] = ()
    healed_at: float = float("inf")
    """When the last fault was over."""
    recovery: float = 1.0
    """Seconds after which everything must work again."""
    one_worker_each: bool = False
    """Whether each gateway is one worker: what it saw to have ended it never admits again."""

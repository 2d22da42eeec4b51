"""What happened, as facts: one `ExchangeFinished` per exchange, handed to every observer."""

from typing import Protocol

import msgspec


class ExchangeFinished(msgspec.Struct):
    """One request and its answer are over, however they ended.

    Filled while the exchange runs; observers read it once, when it is done. Times are seconds on
    the clock of `time.time` (`started_at`) and a monotonic one (`duration`). In the order of the
    access log's keys.
    """

    started_at: float
    request_id: str = ""
    method: str = ""
    host: str = ""
    path: str = ""
    """The canonical path, never the query."""
    status: int = 0
    """As sent to the client; 0 when nothing could be sent."""
    duration: float = 0.0
    route: str = ""
    upstream: str = ""
    subject: str = ""
    tenant: str = ""
    auth: str = ""
    """How the caller proved who they are: `session`, `bearer` or empty."""
    decision: str = ""
    """`allow`, `challenge`, `deny`, or empty when it never came to one."""
    reason: str = ""
    generation: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    remote: str = ""
    error: str = ""
    """The code of `X-Doorward-Error`, or what went wrong after the head had been sent."""
    times: int = 1
    """How many such exchanges it stands for: more than one only for requests that an overloaded
    worker refused one after the other. Its numbers of bytes are of all of them."""


class Observer(Protocol):
    """Told of every exchange, after it; must not block and must not raise."""

    def __call__(self, event: ExchangeFinished) -> None:
        """Take note of *event*."""
        ...

"""A request that nobody sent, taken through the steps of a real one with a caller who is given.

`doorward explain`, the admin API and the route file's own tests use it. Only two things differ from
a live request: its bytes are composed here, and the caller is presumed instead of looked up.
"""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from auth.authentication import Credentials
from auth.identity import Caller
from gateway.bad_request import BadRequest
from gateway.head import RequestHead
from gateway.outcome import Outcome, Waiting
from gateway.pipeline import decide_at_once
from gateway.reading import read_request_head

if TYPE_CHECKING:
    from gateway.snapshot import Snapshot

_ABSOLUTE = re.compile(r"(https?)://([^/?#]*)([^#]*)", re.IGNORECASE)
# Every printable ASCII character stays as it was typed, for the strict reading to judge.
_AS_TYPED = "".join(chr(code) for code in range(0x21, 0x7F))


class Presumed:
    """An `Authenticator` that takes the caller for granted."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def peek(self, credentials: Credentials, now: float) -> Caller:  # noqa: ARG002 - the protocol's
        """Return the presumed caller."""
        return self._caller

    async def authenticate(
        self,
        credentials: Credentials,
        now: float,
        serve_cached: float = 0.0,  # noqa: ARG002 - the protocol's
    ) -> Caller:
        """Return the presumed caller."""
        return self.peek(credentials, now)


class Rehearsal(msgspec.Struct, frozen=True):
    """What became of a rehearsed request: refused by the reading, or an outcome."""

    outcome: Outcome | None = None
    head: RequestHead | None = None
    refused: BadRequest | None = None


def rehearse(
    snapshot: "Snapshot",
    method: str,
    url: str,
    *,
    caller: Caller,
    fields: Iterable[tuple[str, str]] = (),
) -> Rehearsal:
    """Take *method* *url* through the pipeline as if *caller* had sent it.

    *url* is absolute, or a path with query on the host of `public_url`. A field `Host` among
    *fields* replaces the one that the URL gives.
    """
    try:
        head = compose_head(snapshot, method, url, fields)
    except BadRequest as refused:
        return Rehearsal(refused=refused)
    outcome = decide_at_once(snapshot, head, Presumed(caller), now=0.0)
    assert not isinstance(outcome, Waiting)  # a presumed caller is always at hand
    return Rehearsal(outcome, head)


def compose_head(
    snapshot: "Snapshot", method: str, url: str, fields: Iterable[tuple[str, str]]
) -> RequestHead:
    """Return the head of a request as a browser would send it, through the one strict reading.

    Raises:
        BadRequest: a client that sent this would be refused.
    """
    absolute = _ABSOLUTE.match(url)
    public_scheme, _, public_authority = snapshot.origins.public.partition("://")
    if absolute:
        scheme, authority, target = absolute[1].lower(), absolute[2], absolute[3]
    else:
        # Port 0 is one that the system chooses when the gateway starts; nobody can ask for it.
        authority = public_authority.removesuffix(":0")
        scheme, target = public_scheme, url.partition("#")[0]
    if not target.startswith("/"):
        target = f"/{target}"
    lines = [*fields]
    if not any(name.lower() == "host" for name, _ in lines):
        lines.insert(0, ("Host", authority))
    text = "".join(f"{name}: {value}\r\n" for name, value in lines)
    head = f"{method} {quote(target, safe=_AS_TYPED)} HTTP/1.1\r\n{text}\r\n"
    return read_request_head(
        head.encode("latin-1", "replace"),
        scheme=scheme,
        limits=snapshot.configuration.server.limits,
        allow_encoded_slash=snapshot.table.allows_encoded_slash,
    )

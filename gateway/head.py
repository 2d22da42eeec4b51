"""The head of a request: read once, strictly, and the same for every caller of the pipeline."""

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from gateway.target import Target

if TYPE_CHECKING:
    from auth.authentication import Credentials
    from auth.identity import Rejected
    from gateway.forwarded import Client

Fields = tuple[tuple[str, str], ...]

CLIENT_FIELDS = (
    *("host", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"),
    "x-request-id",
)
"""All that `gateway.forwarded` reads of a section to say who the client is."""
_OF_PROXIES = frozenset(CLIENT_FIELDS) - {"host"}


class FieldSection:
    """The fields of a head by name, and what has been worked out of them.

    Most clients send the same fields again and again; then `gateway.reading.HeadReader` hands out
    the same section. Those who draw a conclusion from nothing but the fields leave it here, beside
    what they drew it for (a memo: "for this, that"), and use it while that is the same object.
    """

    __slots__ = ("by_name", "client", "credentials", "lines")

    def __init__(self, by_name: Mapping[str, tuple[str, ...]]) -> None:
        self.by_name = by_name
        """The field values by lower-case name, in order of arrival."""
        self.credentials: tuple[object, Credentials | Rejected] | None = None
        """Memo of `gateway.pipeline`."""
        self.client: tuple[object, object, object, Client] | None = None
        """Memo of `gateway.forwarded`."""
        self.lines: tuple[object, object, bytes] | None = None
        """Memo of `gateway.forwarding`."""

    def take_over(self, before: "FieldSection") -> None:
        """Keep what *before* says of credentials and client if the fields that say it are equal."""
        mine, theirs = self.by_name.get, before.by_name.get
        if mine("cookie") == theirs("cookie") and mine("authorization") == theirs("authorization"):
            self.credentials = before.credentials
        if mine("host") == theirs("host") and (
            # As nearly always: then there is nothing to compare.
            (_OF_PROXIES.isdisjoint(self.by_name) and _OF_PROXIES.isdisjoint(before.by_name))
            or [*map(mine, CLIENT_FIELDS)] == [*map(theirs, CLIENT_FIELDS)]
        ):
            self.client = before.client


def section_of(fields: Fields) -> FieldSection:
    """Return *fields* by name."""
    by_name: dict[str, tuple[str, ...]] = {}
    for name, value in fields:
        key = name.lower()
        by_name[key] = (*by_name.get(key, ()), value)
    return FieldSection(by_name)


class RequestHead(msgspec.Struct, frozen=True, dict=True):
    """A request head that passed the strict reading (`gateway.reading`).

    Field names are as the client wrote them; values have no leading or trailing white space.
    Both are latin-1 text, so that no byte is lost.
    """

    method: str
    target: Target
    host: str
    """Lower case, without port and trailing dot; an IPv6 literal without brackets."""
    authority: str
    """As it is sent on: canonical host, with a port when the client gave one."""
    version: tuple[int, int]
    fields: Fields
    keep_alive: bool
    """Whether the client may send another request on the connection."""
    content_length: int | None = None
    """Bytes of the body; None when there is none or it is chunked."""
    chunked: bool = False
    expects_continue: bool = False
    upgrade: str = ""
    """`websocket`, or empty."""
    ends_here: bool = False
    """Whether the gateway answers by itself: `OPTIONS *`, and OPTIONS with `Max-Forwards: 0`."""

    def __repr__(self) -> str:
        """Leave out the fields and the query, among which cookies and tokens are."""
        return f"RequestHead({self.method} {self.authority} {self.target.path})"

    @cached_property
    def section(self) -> FieldSection:
        """The fields by name, and what was worked out of them."""
        return section_of(self.fields)

    @property
    def by_name(self) -> Mapping[str, tuple[str, ...]]:
        """The field values by lower-case name, in order of arrival."""
        return self.section.by_name

    def field(self, name: str) -> str:
        """Return the only value of the field called *name* (lower case), or an empty string.

        A field that came more than once has no single value and counts as not there.
        """
        values = self.by_name.get(name, ())
        return values[0] if len(values) == 1 else ""

    @property
    def has_body(self) -> bool:
        """Whether content follows the head."""
        return self.chunked or bool(self.content_length)

"""The head of a request: read once, strictly, and the same for every caller of the pipeline."""

from functools import cached_property

import msgspec

from gateway.target import Target


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
    fields: tuple[tuple[str, str], ...]
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

    @cached_property
    def by_name(self) -> dict[str, tuple[str, ...]]:
        """The field values by lower-case name, in order of arrival."""
        values: dict[str, tuple[str, ...]] = {}
        for name, value in self.fields:
            key = name.lower()
            values[key] = (*values.get(key, ()), value)
        return values

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

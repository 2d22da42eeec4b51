"""An answer that the gateway itself gives, as a value; `gateway.responses` makes them."""

import msgspec


class Answer(msgspec.Struct, frozen=True):
    """A complete response, small and in memory."""

    status: int
    fields: tuple[tuple[str, str], ...] = ()
    """Without Content-Length, Date and Connection: the server writes those."""
    body: bytes = b""
    error: str = ""
    """The code for `X-Doorward-Error` and the log; empty for an answer that is no error."""
    close: bool = False
    """Whether the connection must not be used again."""

    def __repr__(self) -> str:
        """Leave out the fields and the content, among which a session may be."""
        return f"Answer({self.status} {self.error})"

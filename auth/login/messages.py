"""What the login service is asked and what it answers: plain values, no type of a web framework."""

from collections.abc import Mapping

import msgspec

from auth.identity import Caller


class LoginRequest(msgspec.Struct, frozen=True):
    """A request for one of the service's own pages, read and authenticated by whoever serves it."""

    method: str
    path: str
    """The canonical path, `/.doorward/login` for instance."""
    query: Mapping[str, str]
    form: Mapping[str, str]
    """The decoded `application/x-www-form-urlencoded` content; empty for anything else."""
    cookies: Mapping[str, str]
    """Name to value; a name that came more than once is left out (nobody can say which is ours)."""
    fields: Mapping[str, str]
    """Lower-case field name to value; what came more than once is joined with a comma."""
    client_address: str
    caller: Caller
    origin: str = ""
    """Scheme and authority that the client used (`https://example.com`), as far as known.

    Empty: taken from the `Host` field and the scheme of `public_url`.
    """
    request_id: str = ""
    """Shown on pages about a failure, so that a person can quote it."""

    def __repr__(self) -> str:
        """Leave out what holds passwords, codes and cookies."""
        return f"LoginRequest({self.method} {self.path})"


class LoginAnswer(msgspec.Struct, frozen=True):
    """A complete answer, small and in memory; the same shape as `gateway.answer.Answer`."""

    status: int
    fields: tuple[tuple[str, str], ...] = ()
    """Complete but for Content-Length, Date and Connection; `X-Doorward-Error` is among them."""
    body: bytes = b""
    """Also there for HEAD: whoever serves it leaves the body out and keeps its length."""
    error: str = ""
    """The code of `X-Doorward-Error`, for the log; empty for an answer that is no error."""

    def __repr__(self) -> str:
        """Leave out the fields, among which a session may be."""
        return f"LoginAnswer({self.status} {self.error})"


class SentForm(msgspec.Struct, frozen=True):
    """A form that met no session, as the gateway got it."""

    target: str
    """Canonical path and query."""
    content: bytes
    cookies: Mapping[str, str]
    client_address: str
    subject: str = ""
    """Of the session, if there is one that was too weak or too old for the route."""

    def __repr__(self) -> str:
        """Leave out cookies and what was typed."""
        return f"SentForm({len(self.content)} bytes)"


class WayBack(msgspec.Struct, frozen=True):
    """How the browser gets to its form after the sign-in."""

    path: str
    """With a query."""
    fields: tuple[tuple[str, str], ...]
    """For the answer to the form: the cookie that it is bound to."""

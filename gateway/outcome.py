"""What the pipeline concluded about a request, with every fact that an observer may want."""

from typing import Literal

import msgspec

from auth.authentication import Credentials
from auth.decision import Allow, Challenge, Decision, Deny, Reason
from auth.identity import Authenticated, Caller, Identity
from gateway.routing import EncodedSlash, Matched, MethodNotAllowed, NoRoute


class Unavailable(msgspec.Struct, frozen=True):
    """Who is calling could not be found out: an outage, never "not signed in"."""

    reason: Reason
    """`store_unavailable` or `keys_unavailable`."""
    retry_after: int
    """Whole seconds after which trying again makes sense."""


Verdict = Decision | NoRoute | MethodNotAllowed | EncodedSlash | Unavailable


class Outcome(msgspec.Struct, frozen=True):
    """The end of the pipeline. Only an `Allow` as the verdict lets the request go on."""

    verdict: Verdict
    generation: int
    """Of the snapshot that decided."""
    matched: Matched | None = None
    """None when there is no route."""
    caller: Caller | None = None
    """None when nobody was looked up: no route, a public one, or an outage."""

    @property
    def reason(self) -> Reason:
        """Why, as the access log says it."""
        verdict = self.verdict
        if isinstance(verdict, Allow | Challenge | Deny | Unavailable):
            return verdict.reason
        if isinstance(verdict, NoRoute):
            return Reason.NO_ROUTE
        if isinstance(verdict, MethodNotAllowed):
            return Reason.METHOD_NOT_ALLOWED
        return Reason.BAD_REQUEST

    @property
    def decision(self) -> Literal["allow", "challenge", "deny", ""]:
        """The answer to "may they?", empty when it never came to one."""
        verdict = self.verdict
        return verdict.outcome if isinstance(verdict, Allow | Challenge | Deny) else ""

    @property
    def route(self) -> str:
        """The id of the route, or an empty string."""
        return self.matched.route.route.id if self.matched else ""

    @property
    def upstream(self) -> str:
        """The name of the route's upstream, or an empty string."""
        return self.matched.route.upstream.name if self.matched else ""

    @property
    def identity(self) -> Identity | None:
        """Who was recognised, whether or not they may."""
        return self.caller.identity if isinstance(self.caller, Authenticated) else None


class Waiting(msgspec.Struct, frozen=True):
    """All that can be said without asking the store or an issuer."""

    matched: Matched
    credentials: Credentials

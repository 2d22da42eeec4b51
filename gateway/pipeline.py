"""The life of a request, as one pure decision. Read this first.

A live request, `doorward explain`, the forward-auth endpoint and the route file's own tests all
take these steps. Only an outcome whose verdict is an `Allow` has what `gateway.forwarding.plan`
asks for; every other one becomes an answer in `gateway.responses`.
"""

from typing import TYPE_CHECKING, Protocol

from auth.authentication import Credentials, find_credentials
from auth.decision import Allow
from auth.identity import ABSENT, Authenticated, Caller, Identity, Rejected
from auth.ports import AuthUnavailable
from gateway.head import RequestHead
from gateway.outcome import Outcome, Unavailable, Waiting
from gateway.permits import conclude
from gateway.routing import NO_ROUTE, Matched, MatchResult, is_own

if TYPE_CHECKING:  # a snapshot runs its file's tests through this module before it is one
    from gateway.snapshot import Snapshot


class Authenticator(Protocol):
    """Who a credential speaks for; `auth.authentication.Authenticator` is the one in use."""

    def peek(self, credentials: Credentials, now: float) -> Caller | None:
        """Return the caller if the answer is at hand, without waiting; None says nothing."""
        ...

    async def authenticate(
        self, credentials: Credentials, now: float, serve_cached: float = 0.0
    ) -> Caller:
        """Return the caller; raise `AuthUnavailable` when it cannot be found out."""
        ...


def decide_at_once(
    snapshot: "Snapshot", head: RequestHead, authenticator: Authenticator, now: float
) -> Outcome | Waiting:
    """Decide without waiting, if what that needs is at hand. *now* is epoch seconds."""
    # 1. Which route takes it? None: the table's own answer (not found, method not allowed).
    matched = match(snapshot, head)
    if not isinstance(matched, Matched):
        return Outcome(matched, snapshot.generation)
    # 2. A public route looks nobody up, so it needs no store and no key.
    if matched.route.policy.rule.level == "public":
        return Outcome(conclude(matched, ABSENT, head, now), snapshot.generation, matched)
    # 3. What does the client show? Two different sessions, say, are a credential that is no good.
    credentials = credentials_in(head, snapshot)
    if isinstance(credentials, Rejected):
        decision = conclude(matched, credentials, head, now)
        return Outcome(decision, snapshot.generation, matched, credentials)
    # 4. Who is it? A session under a live lease or a token seen before is known by now.
    caller = authenticator.peek(credentials, now)
    if caller is None:
        return Waiting(matched, credentials)
    # 5. May they?
    decision = snapshot.permits.conclude(matched, caller, head, now)
    return Outcome(decision, snapshot.generation, matched, caller)


async def decide(
    snapshot: "Snapshot", head: RequestHead, authenticator: Authenticator, now: float
) -> Outcome:
    """Decide, and wait for the store or an issuer's keys where step 4 needs them."""
    step = decide_at_once(snapshot, head, authenticator, now)
    if isinstance(step, Outcome):
        return step
    try:
        caller = await authenticator.authenticate(
            step.credentials, now, serve_cached=step.matched.route.route.serve_cached
        )
    except AuthUnavailable as outage:
        # An outage is neither "signed in" nor "not signed in": the cookie stays, nothing passes.
        verdict = Unavailable(outage.reason, outage.retry_after)
        return Outcome(verdict, snapshot.generation, step.matched)
    return conclude_waiting(snapshot, step, caller, head, now)


def conclude_waiting(
    snapshot: "Snapshot", step: Waiting, caller: Caller, head: RequestHead, now: float
) -> Outcome:
    """Take step 5 for a caller who had to be waited for."""
    decision = snapshot.permits.conclude(step.matched, caller, head, now)
    return Outcome(decision, snapshot.generation, step.matched, caller)


def is_allowed(snapshot: "Snapshot", head: RequestHead, identity: Identity) -> bool:
    """Tell whether *snapshot* too would let in *identity* with a request that is under way.

    Whether the identity is still good is for the store to say, not for this; and `max_age` is about
    beginning something: what began in time may go on.
    """
    matched = match(snapshot, head)
    if not isinstance(matched, Matched):
        return False
    began = float(identity.auth_time)
    return isinstance(conclude(matched, Authenticated(identity), head, began), Allow)


def match(snapshot: "Snapshot", head: RequestHead) -> MatchResult:
    """Return what the route table says; the gateway's own paths are nobody's route."""
    # The same head may come again; what a generation said of it is kept with it.
    known: tuple[Snapshot, MatchResult] | None = head.__dict__.get("matched")
    if known is not None and known[0] is snapshot:
        return known[1]
    path = head.target.path
    found = NO_ROUTE if is_own(path) else snapshot.table.match(head.host, path, head.method)
    head.__dict__["matched"] = (snapshot, found)
    return found


def credentials_in(head: RequestHead, snapshot: "Snapshot") -> Credentials | Rejected:
    """Return the credentials of *head*; its fields are read once for a section and a generation."""
    known = head.section.credentials
    if known is not None and known[0] is snapshot:
        found = known[1]
        # The section's fields may be another request's, for another host.
        return found if isinstance(found, Rejected) else found.shown_at(head.host)
    by_name = head.by_name
    found = find_credentials(
        by_name.get("cookie", ()),
        by_name.get("authorization", ()),
        snapshot.configuration.session.cookie_name,
        issuers_configured=bool(snapshot.configuration.tokens),
        host=head.host,
    )
    head.section.credentials = (snapshot, found)
    return found

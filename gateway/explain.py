"""What the gateway would do with a request, and why: an `Explanation` that reads as text or JSON.

The verdict, the answer and the request to the upstream are not worked out here: they come from the
pipeline, from `gateway.responses` and from `gateway.forwarding`, as for a live request. Only the
words about the routes that were not chosen are this module's own.
"""

import msgspec

from auth.decision import Allow, Reason
from auth.identity import Authenticated, Caller, Identity
from config.model import AccessRule
from gateway.answer import Answer
from gateway.bad_request import BadRequest
from gateway.forwarded import read_client
from gateway.forwarding import identity_block, plan
from gateway.head import RequestHead
from gateway.near_misses import NearMiss, near_misses
from gateway.outcome import Outcome
from gateway.precedence import CompiledRoute
from gateway.rehearsal import rehearse
from gateway.responses import answer_bad_request, answer_outcome
from gateway.route_tests import verdict_word
from gateway.routing import Matched, is_own
from gateway.snapshot import Snapshot

EXIT_CODES = {"allow": 0, "challenge": 3, "deny": 4}
NO_ROUTE_EXIT_CODE = 5
REQUEST_ID = "explained"
CLIENT_ADDRESS = "192.0.2.1"
"""Stands for any client (RFC 5737); no trusted proxy has it."""


class AccessLine(msgspec.Struct, frozen=True):
    """One requirement of the route's access rule, and whether it holds for this caller."""

    requirement: str
    holds: bool | None
    """None: not looked at, because one before it decided."""


class ChosenRoute(msgspec.Struct, frozen=True):
    """The route that takes the request."""

    id: str
    line: int
    match: str
    params: dict[str, str]
    upstream: str
    endpoints: list[str]


class GivenAnswer(msgspec.Struct, frozen=True):
    """What the client gets from the gateway itself."""

    status: int
    fields: list[tuple[str, str]]


class Explanation(msgspec.Struct, frozen=True):
    """Everything that `doorward explain` says; the JSON has these names."""

    method: str
    url: str
    verdict: str
    """`allow`, `challenge`, `deny`, or `not-found` for what reaches no route."""
    reason: str
    generation: int
    detail: str = ""
    host: str = ""
    path: str = ""
    """In the canonical form that is matched and sent on; empty when the request is refused."""
    route: ChosenRoute | None = None
    others: list[NearMiss] = []
    """Why not the other routes: the nearest ones."""
    others_left_out: int = 0
    caller: dict[str, object] | None = None
    """None: nobody is signed in."""
    access: list[AccessLine] = []
    answer: GivenAnswer | None = None
    """None when the upstream answers."""
    upstream_request: list[str] = []
    """The request line and fields that go upstream, if they may."""

    @property
    def exit_code(self) -> int:
        """The exit code of the command."""
        return EXIT_CODES.get(self.verdict, NO_ROUTE_EXIT_CODE)


def explain(
    snapshot: Snapshot,
    method: str,
    url: str,
    *,
    caller: Caller,
    fields: tuple[tuple[str, str], ...] = (),
) -> Explanation:
    """Explain what *method* *url* of *caller*, with *fields* of the client's, would come to.

    *url* is absolute, or a path on the host of `public_url`. Never raises for what a client sends.
    """
    rehearsal = rehearse(snapshot, method, url, caller=caller, fields=fields)
    if rehearsal.refused is not None:
        return _explain_refusal(snapshot, method, url, rehearsal.refused)
    head, outcome = rehearsal.head, rehearsal.outcome
    assert head is not None
    assert outcome is not None
    matched, verdict = outcome.matched, outcome.verdict
    upstream_request: list[str] = []
    if isinstance(verdict, Allow) and matched is not None:
        try:
            upstream_request = _upstream_lines(snapshot, verdict, matched, head)
        except BadRequest as refused:  # the rewritten path is none
            return _explain_refusal(snapshot, method, url, refused)
    chosen = matched.route if matched else None
    others, left_out = near_misses(snapshot.table, head.host, head.target.path, method, chosen)
    return Explanation(
        method=method,
        url=url,
        host=head.host,
        path=head.target.path,
        verdict=verdict_word(rehearsal),
        reason=outcome.reason.value,
        detail=_detail(outcome, head),
        route=_chosen_route(matched) if matched else None,
        others=others,
        others_left_out=left_out,
        caller=_caller_facts(caller),
        access=_access_lines(outcome),
        answer=_given_answer(snapshot, outcome, head),
        upstream_request=upstream_request,
        generation=snapshot.generation,
    )


def _explain_refusal(snapshot: Snapshot, method: str, url: str, refused: BadRequest) -> Explanation:
    answer = answer_bad_request(refused, request_id=REQUEST_ID)
    return Explanation(
        method=method,
        url=url,
        verdict="not-found",
        reason=Reason.BAD_REQUEST.value,
        detail=f"refused as a malformed request: {refused.detail}",
        answer=_shown(answer),
        generation=snapshot.generation,
    )


def _detail(outcome: Outcome, head: RequestHead) -> str:
    if is_own(head.target.path):
        return "below /.doorward the gateway answers itself: see the reference for its own paths"
    return str(getattr(outcome.verdict, "detail", ""))


def _chosen_route(matched: Matched) -> ChosenRoute:
    route, upstream = matched.route.route, matched.route.upstream
    return ChosenRoute(
        id=route.id,
        line=route.line,
        match=describe_match(matched.route),
        params=dict(matched.params),
        upstream=upstream.name,
        endpoints=[str(endpoint) for endpoint in upstream.endpoints],
    )


def describe_match(compiled: CompiledRoute) -> str:
    """Return what a route takes, in one line: methods, hosts and path."""
    match = compiled.route.match
    methods = ",".join(match.methods) or "any method"
    return f"{methods} {','.join(match.hosts) or '(any host)'}{match.path}"


def _caller_facts(caller: Caller) -> dict[str, object] | None:
    """Return the parts of the identity that are not empty."""
    if not isinstance(caller, Authenticated):
        return None
    facts = msgspec.to_builtins(caller.identity)
    return {name: value for name, value in facts.items() if value}


# In the order in which `auth.policy.authorize` applies a rule; each with the reason it denies for.
_ORDER = (
    ("tenants", "tenant is one of: ", Reason.TENANT_MISMATCH),
    ("groups", "is in one of the groups: ", Reason.GROUP_MISSING),
    ("roles", "has one of the roles: ", Reason.ROLE_MISSING),
    ("scopes", "has all of the scopes: ", Reason.SCOPE_MISSING),
)


def _access_lines(outcome: Outcome) -> list[AccessLine]:
    """Return the requirements in the order they are applied, up to the one that decided."""
    if outcome.matched is None:
        return []
    rule = outcome.matched.route.policy.rule
    requirements = _requirements(rule, outcome.identity)
    lines: list[AccessLine] = []
    decided = False
    for text, reasons in requirements:
        failed = outcome.decision != "allow" and outcome.reason in reasons
        holds = None if decided else not failed
        lines.append(AccessLine(text, holds))
        decided = decided or failed
    return lines


def _requirements(
    rule: AccessRule, identity: Identity | None
) -> list[tuple[str, frozenset[Reason]]]:
    if rule.level == "public":
        first = "public: nobody is looked up"
    elif rule.level == "optional":
        first = "optional: an identity is passed on when there is one"
    else:
        first = "signed in"
    challenges = frozenset(
        reason
        for reason in Reason
        if reason.startswith(("session_", "token_", "no_credential", "cookie_", "credentials_"))
    )
    requirements = [(first, challenges)]
    nobody_needed = rule.level == "optional" and identity is None
    for key, text, reason in _ORDER:
        wanted: frozenset[str] = getattr(rule, key)
        if wanted and not nobody_needed:
            requirements.append((text + ", ".join(sorted(wanted)), frozenset({reason})))
    if rule.when is not None:
        conditions = frozenset({Reason.CONDITION_FALSE, Reason.CONDITION_FAILED})
        requirements.append((f"when: {' '.join(rule.when.split())}", conditions))
    if rule.acr:
        text = f"signed in as strongly as one of: {', '.join(rule.acr)}"
        requirements.append((text, frozenset({Reason.ACR_MISSING})))
    if rule.max_age is not None:
        text = f"signed in no longer than {rule.max_age:g} s ago"
        requirements.append((text, frozenset({Reason.AUTH_TIME_TOO_OLD})))
    return requirements


def _given_answer(snapshot: Snapshot, outcome: Outcome, head: RequestHead) -> GivenAnswer | None:
    if isinstance(outcome.verdict, Allow) or is_own(head.target.path):
        return None
    return _shown(
        answer_outcome(
            outcome,
            head,
            login=snapshot.configuration.login,
            origins=snapshot.origins,
            request_id=REQUEST_ID,
        )
    )


def _shown(answer: Answer) -> GivenAnswer:
    names = ("location", "allow", "www-authenticate", "x-doorward-error", "content-type")
    fields = [(name, value) for name, value in answer.fields if name.lower() in names]
    return GivenAnswer(answer.status, fields)


def _upstream_lines(
    snapshot: Snapshot, permit: Allow, matched: Matched, head: RequestHead
) -> list[str]:
    """Return the request head for the upstream; what only a live one has is named in brackets."""
    headers = snapshot.configuration.identity
    sent = plan(
        permit,
        matched,
        head,
        read_client(CLIENT_ADDRESS, head, scheme=snapshot.origins.scheme),
        rules=snapshot.field_rules,
        identity_block=identity_block(headers, permit.identity, "(signed when sent)"),
        request_id="(new for each request)",
        traceparent="(new for each request)",
        base_path=matched.route.upstream.endpoints[0].base_path,
        access_token=(
            "(the provider's)"
            if matched.route.route.access_token and permit.identity and not permit.identity.issuer
            else ""
        ),
    )
    return sent.decode("latin-1").rstrip("\r\n").split("\r\n")

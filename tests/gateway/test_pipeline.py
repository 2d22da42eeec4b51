"""The steps of a decision, with a caller that is known, looked up, or not to be had."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from auth.authentication import Credentials
from auth.decision import Allow, Challenge, Deny, Reason
from auth.identity import ABSENT, Authenticated, Caller, Identity, Rejected
from auth.ports import AuthUnavailable
from config.model import Limits
from gateway.head import RequestHead
from gateway.outcome import Outcome, Unavailable, Waiting
from gateway.pipeline import decide, decide_at_once, is_allowed
from gateway.reading import read_request_head
from gateway.routing import ENCODED_SLASH, NO_ROUTE
from gateway.snapshot import Snapshot
from tests.gateway.decision_table import CALLERS, CASES, ROUTES, Case
from tests.gateway.loading import BASE, snapshot_of

SNAPSHOT = snapshot_of(ROUTES)
ROOT = Path(__file__).parents[2]


class Known:
    """An authenticator that knows at once, or only after being awaited, or not at all."""

    def __init__(
        self, caller: Caller, *, at_hand: bool = True, outage: Exception | None = None
    ) -> None:
        self.caller = caller
        self.at_hand = at_hand
        self.outage = outage
        self.asked: list[tuple[Credentials, float, float]] = []

    def peek(self, credentials: Credentials, now: float) -> Caller | None:
        self.asked.append((credentials, now, -1.0))
        return self.caller if self.at_hand and self.outage is None else None

    async def authenticate(
        self, credentials: Credentials, now: float, serve_cached: float = 0.0
    ) -> Caller:
        self.asked.append((credentials, now, serve_cached))
        await asyncio.sleep(0)
        if self.outage is not None:
            raise self.outage
        return self.caller


def head(method: str, target: str, host: str = "", fields: str = "") -> RequestHead:
    raw = f"{method} {target} HTTP/1.1\r\nHost: {host or '127.0.0.1:8080'}\r\n{fields}\r\n"
    return read_request_head(raw.encode(), scheme="http", limits=Limits(), allow_encoded_slash=True)


def caller_called(name: str) -> Caller:
    record = CALLERS[name]
    if record is None:
        return ABSENT
    parts = {key: tuple(x) if isinstance(x, list) else x for key, x in record.items()}
    return Authenticated(Identity(**parts))  # type: ignore[arg-type] # the table's own keys


REACHABLE = [case for case in CASES if case.reason != "bad_request"]


@pytest.mark.parametrize("case", REACHABLE, ids=lambda case: "-".join(map(str, case[:3])))
async def test_the_decision_is_as_the_table_says_with_and_without_waiting(case: Case) -> None:
    request = head(case.method, case.target, case.host)
    caller = caller_called(case.caller)
    for at_hand in (True, False):
        outcome = await decide(SNAPSHOT, request, Known(caller, at_hand=at_hand), 0.0)
        said = (outcome.decision or "not-found", outcome.route, outcome.reason.value)
        assert said == (case.verdict, case.route, case.reason)


def test_a_public_route_looks_nobody_up() -> None:
    authenticator = Known(ABSENT, outage=AuthUnavailable("down"))
    request = head("GET", "/", fields="Cookie: doorward=x\r\nAuthorization: Bearer y\r\n")
    outcome = decide_at_once(SNAPSHOT, request, authenticator, 0.0)
    assert isinstance(outcome, Outcome)
    assert outcome.verdict == Allow(Reason.PUBLIC)
    assert authenticator.asked == []


def test_what_is_not_at_hand_is_waited_for_and_nothing_is_decided_before() -> None:
    step = decide_at_once(SNAPSHOT, head("GET", "/notes"), Known(ABSENT, at_hand=False), 0.0)
    assert isinstance(step, Waiting)
    assert step.matched.route.route.id == "notes"


OUTAGES = [
    (AuthUnavailable("down", retry_after=4), Unavailable(Reason.STORE_UNAVAILABLE, 4)),
    (
        AuthUnavailable("no keys", reason=Reason.KEYS_UNAVAILABLE),
        Unavailable(Reason.KEYS_UNAVAILABLE, 1),
    ),
]


@pytest.mark.parametrize(("outage", "verdict"), OUTAGES, ids=["store", "keys"])
@pytest.mark.parametrize("target", ["/notes", "/hello"], ids=["signed-in", "optional"])
async def test_an_outage_is_neither_signed_in_nor_anonymous(
    outage: AuthUnavailable, verdict: Unavailable, target: str
) -> None:
    outcome = await decide(SNAPSHOT, head("GET", target), Known(ABSENT, outage=outage), 0.0)
    assert outcome.verdict == verdict
    assert outcome.caller is None


@pytest.mark.parametrize(
    "fault", [ValueError("odd"), KeyError("x"), RecursionError(), TimeoutError()], ids=repr
)
async def test_a_fault_while_authenticating_never_becomes_a_decision(fault: Exception) -> None:
    with pytest.raises(type(fault)):
        await decide(SNAPSHOT, head("GET", "/hello"), Known(ABSENT, outage=fault), 0.0)


async def test_the_routes_own_patience_with_a_lost_store_is_passed_on() -> None:
    snapshot = snapshot_of(
        BASE + "routes:\n"
        "  - {id: a, match: {path: /a}, upstream: notes, access: signed-in,"
        " on_store_outage: {serve_cached: 60s}}\n"
    )
    authenticator = Known(ABSENT, at_hand=False)
    await decide(snapshot, head("GET", "/a"), authenticator, 5.0)
    assert [asked[1:] for asked in authenticator.asked] == [(5.0, -1.0), (5.0, 60.0)]


def test_two_session_cookies_are_a_credential_that_is_no_good() -> None:
    authenticator = Known(Authenticated(Identity("u1")))
    request = head("GET", "/notes", fields="Cookie: doorward=a; doorward=b\r\n")
    outcome = decide_at_once(SNAPSHOT, request, authenticator, 0.0)
    assert isinstance(outcome, Outcome)
    assert outcome.verdict == Challenge(Reason.COOKIE_AMBIGUOUS)
    assert isinstance(outcome.caller, Rejected)
    assert authenticator.asked == []


def test_a_condition_reads_the_request_as_it_was_read_once() -> None:
    snapshot = snapshot_of(
        BASE + "routes:\n  - id: a\n    match: {path: '/a/{x}/*'}\n    upstream: notes\n"
        "    access:\n      when: >-\n"
        "        request.method == 'PUT' && request.host == 'h' && request.path == '/a/~/y'\n"
        "        && request.params.x == '~' && request.headers['x-many'] == '1, 2'\n"
    )
    person = Known(Authenticated(Identity("u1")))
    fields = "X-Many: 1\r\nX-MANY: 2\r\n"
    for host, target, expected in [("H.:8080", "/a/%7e/b/../y", Allow), ("h", "/a/~/z", Deny)]:
        outcome = decide_at_once(snapshot, head("PUT", target, host, fields), person, 0.0)
        assert isinstance(outcome, Outcome)
        assert isinstance(outcome.verdict, expected)


@pytest.mark.parametrize("path", ["/.doorward/me", "/.doorward", "/.doorward/auth/x"])
def test_no_route_takes_the_gateways_own_paths(path: str) -> None:
    snapshot = snapshot_of(
        BASE + "routes:\n  - {id: all, match: {path: /*}, upstream: notes, access: public}\n"
    )
    outcome = decide_at_once(snapshot, head("GET", path), Known(ABSENT), 0.0)
    assert isinstance(outcome, Outcome)
    assert outcome.verdict is NO_ROUTE


def test_no_route_takes_the_asterisk_or_an_encoded_slash_unasked() -> None:
    snapshot = snapshot_of(
        BASE + "routes:\n  - {id: all, match: {path: /*}, upstream: notes, access: public}\n"
    )
    for method, target, verdict in [
        ("OPTIONS", "*", NO_ROUTE),
        ("GET", "/a%2Fb", ENCODED_SLASH),
    ]:
        outcome = decide_at_once(snapshot, head(method, target), Known(ABSENT), 0.0)
        assert isinstance(outcome, Outcome)
        assert outcome.verdict is verdict


def test_an_outcome_says_which_generation_decided() -> None:
    later = Snapshot(
        SNAPSHOT.configuration, 9, SNAPSHOT.table, SNAPSHOT.origins, SNAPSHOT.field_rules
    )
    outcome = decide_at_once(later, head("GET", "/"), Known(ABSENT), 0.0)
    assert isinstance(outcome, Outcome)
    assert outcome.generation == 9


def test_only_an_allow_type_checks_as_a_permit(tmp_path: Path) -> None:
    """The proof that a request cannot go upstream on anything else (ADR 0002)."""
    call = "plan({0}, matched, head, client, rules=rules, identity_block=b'', **words)"
    verdicts = ["Allow", "Challenge", "Deny", "NoRoute", "Unavailable", "Outcome", "Decision"]
    lines = [
        "from typing import TypedDict",
        "from auth.decision import Allow, Challenge, Decision, Deny",
        "from gateway.fields import FieldRules",
        "from gateway.forwarded import Client",
        "from gateway.forwarding import plan",
        "from gateway.head import RequestHead",
        "from gateway.outcome import Outcome, Unavailable",
        "from gateway.routing import Matched, NoRoute",
        "class Words(TypedDict):",
        "    request_id: str",
        "    traceparent: str",
        "def go(matched: Matched, head: RequestHead, client: Client, rules: FieldRules,",
        "       words: Words,",
        *(f"       a{name}: {name}," for name in verdicts),
        ") -> None:",
    ]
    first = len(lines) + 1
    lines += [f"    {call.format('a' + name)}" for name in verdicts]
    snippet = tmp_path / "snippet.py"
    snippet.write_text("\n".join(lines) + "\n")
    result = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", str(snippet)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    refused = {
        int(line.split(":")[1]) for line in result.stdout.splitlines() if "[arg-type]" in line
    }
    allowed_line, *others = range(first, first + len(verdicts))
    assert refused == set(others), result.stdout + result.stderr
    assert allowed_line not in refused


def test_a_head_that_comes_again_is_matched_by_the_table_of_its_generation() -> None:
    again = head("GET", "/a")
    for name in ("one", "two"):
        route = f"  - {{id: {name}, match: {{path: /a}}, upstream: notes, access: public}}\n"
        snapshot = snapshot_of(f"{ROUTES.partition('routes:')[0]}routes:\n{route}")
        for _ in range(2):
            outcome = decide_at_once(snapshot, again, Known(ABSENT), 0.0)
            assert isinstance(outcome, Outcome)
            assert outcome.route == name


SIGNED_IN = [
    case
    for case in CASES
    if isinstance(caller_called(case.caller), Authenticated) and case.status != 400
]


@pytest.mark.parametrize("case", SIGNED_IN)
def test_who_goes_on_with_a_request_is_who_would_be_let_in_with_it(case: Case) -> None:
    caller = caller_called(case.caller)
    assert isinstance(caller, Authenticated)
    asked = head(case.method, case.target, case.host)
    assert is_allowed(SNAPSHOT, asked, caller.identity) is (case.verdict == "allow")


def test_the_cases_of_who_goes_on_have_both_kinds() -> None:
    assert {case.verdict == "allow" for case in SIGNED_IN} == {True, False}


def test_what_began_within_max_age_may_go_on_after_it() -> None:
    identity = Identity("u2", roles=("editor",), acr="mfa", auth_time=1000)
    asked = head("GET", "/vault/x")
    late = decide_at_once(SNAPSHOT, asked, Known(Authenticated(identity)), 1000.0 + 3601)
    assert isinstance(late, Outcome)
    assert late.reason is Reason.AUTH_TIME_TOO_OLD
    assert is_allowed(SNAPSHOT, asked, identity)


def test_a_cookie_is_a_sites_for_the_host_of_each_request_though_its_fields_were_read_once() -> (
    None
):
    """A connection may ask several hosts with the same fields, and an absolute target names one."""
    snapshot = snapshot_of(
        BASE
        + """
routes:
  - {id: all, match: {path: /*}, upstream: notes, access: signed-in}
"""
    )
    cookie = f"Cookie: doorward=site.{'f' * 64}.{'s' * 43}\r\n"
    one = head("GET", "/", "shop.example", cookie)
    other = head("GET", "http://help.example/", "help.example", cookie)
    other.section.take_over(one.section)
    known = Known(ABSENT)
    for each in (one, other, one):
        other.section.take_over(one.section)
        decide_at_once(snapshot, each, known, 0.0)
    assert [asked.host for asked, *_ in known.asked] == [
        "shop.example",
        "help.example",
        "shop.example",
    ]

"""Who x rule -> decision."""

from typing import Any

import pytest

from auth.decision import Allow, Challenge, Deny, Reason, StepUp
from auth.identity import ABSENT, Authenticated, Caller, Identity, Rejected
from auth.policy import PolicyError, RequestFacts, authorize, compile_rule
from config.model import AccessRule

ALICE = Identity(
    subject="alice",
    tenant="acme",
    roles=("editor", "author"),
    groups=("staff",),
    scopes=("video.read", "video.write"),
    claims={"level": 3},
)
FACTS = RequestFacts(
    method="GET",
    path="/users/alice/video",
    host="example.com",
    params={"user": "alice"},
    headers={"x-tier": "gold"},
)


def rule(level: Any = "signed-in", when: str | None = None, **parts: set[str]) -> AccessRule:
    sets: dict[str, Any] = {name: frozenset(part) for name, part in parts.items()}
    return AccessRule(level, when=when, **sets)


SIGNED_IN, OPTIONAL, PUBLIC = rule(), rule("optional"), rule("public")
GOOD = Authenticated(ALICE)
EXPIRED = Rejected(Reason.SESSION_EXPIRED)


@pytest.mark.parametrize(
    ("asked", "caller", "outcome", "reason"),
    [
        (PUBLIC, ABSENT, Allow, Reason.PUBLIC),
        (PUBLIC, EXPIRED, Allow, Reason.PUBLIC),
        (PUBLIC, GOOD, Allow, Reason.PUBLIC),
        (OPTIONAL, ABSENT, Allow, Reason.ANONYMOUS_ALLOWED),
        (OPTIONAL, EXPIRED, Allow, Reason.ANONYMOUS_ALLOWED),
        (OPTIONAL, GOOD, Allow, Reason.ALLOWED),
        (rule("optional", roles={"admin"}), ABSENT, Challenge, Reason.NO_CREDENTIAL),
        (rule("optional", roles={"admin"}), GOOD, Deny, Reason.ROLE_MISSING),
        (rule("optional", "identity.subject == ''"), ABSENT, Challenge, Reason.NO_CREDENTIAL),
        (rule("optional", "request.method == 'GET'"), ABSENT, Allow, Reason.ANONYMOUS_ALLOWED),
        (rule("optional", "request.method == 'PUT'"), ABSENT, Deny, Reason.CONDITION_FALSE),
        (rule("public", "request.host == 'x'"), GOOD, Deny, Reason.CONDITION_FALSE),
        (SIGNED_IN, ABSENT, Challenge, Reason.NO_CREDENTIAL),
        (SIGNED_IN, EXPIRED, Challenge, Reason.SESSION_EXPIRED),
        (SIGNED_IN, Rejected("no such reason"), Challenge, Reason.NO_CREDENTIAL),
        (SIGNED_IN, GOOD, Allow, Reason.ALLOWED),
        (rule(roles={"admin", "editor"}), GOOD, Allow, Reason.ALLOWED),
        (rule(roles={"admin"}), GOOD, Deny, Reason.ROLE_MISSING),
        (rule(roles={"edit"}), GOOD, Deny, Reason.ROLE_MISSING),
        (rule(roles={"Editor"}), GOOD, Deny, Reason.ROLE_MISSING),
        (rule(roles={"admin"}), ABSENT, Challenge, Reason.NO_CREDENTIAL),
        (rule(groups={"staff", "x"}), GOOD, Allow, Reason.ALLOWED),
        (rule(groups={"x"}), GOOD, Deny, Reason.GROUP_MISSING),
        (rule(scopes={"video.read", "video.write"}), GOOD, Allow, Reason.ALLOWED),
        (rule(scopes={"video.read", "video.delete"}), GOOD, Deny, Reason.SCOPE_MISSING),
        (rule(tenants={"acme", "x"}), GOOD, Allow, Reason.ALLOWED),
        (rule(tenants={"x"}), GOOD, Deny, Reason.TENANT_MISMATCH),
        (rule(tenants={"x"}, roles={"x"}, scopes={"x"}), GOOD, Deny, Reason.TENANT_MISMATCH),
        (rule(when="true", roles={"x"}), GOOD, Deny, Reason.ROLE_MISSING),
        (rule(when="request.params.user == identity.subject"), GOOD, Allow, Reason.ALLOWED),
        (rule(when="request.params.user == 'bob'"), GOOD, Deny, Reason.CONDITION_FALSE),
        (rule(when="request.params.tenant == 'a'"), GOOD, Deny, Reason.CONDITION_FAILED),
        (rule(when="identity.claims.level >= 3"), GOOD, Allow, Reason.ALLOWED),
        (rule(when="identity.claims.level"), GOOD, Deny, Reason.CONDITION_FAILED),
        (rule(when="identity.claims.none == true"), GOOD, Deny, Reason.CONDITION_FAILED),
    ],
)
def test_a_rule_decides(asked: AccessRule, caller: Caller, outcome: type, reason: Reason) -> None:
    decision = authorize(compile_rule(asked), caller, FACTS)
    assert type(decision) is outcome
    assert decision.reason is reason


def test_the_permit_carries_the_identity_only_of_a_route_that_asked_for_one() -> None:
    assert authorize(compile_rule(SIGNED_IN), GOOD, None) == Allow(Reason.ALLOWED, ALICE)
    assert authorize(compile_rule(PUBLIC), GOOD, None) == Allow(Reason.PUBLIC, None)


def test_a_refusal_says_what_was_missing_for_the_log() -> None:
    decision = authorize(compile_rule(rule(scopes={"a", "video.read", "b"})), GOOD, None)
    assert decision == Deny(Reason.SCOPE_MISSING, "scopes missing: a, b", ALICE)


@pytest.mark.parametrize(
    "asked",
    [
        rule("public", roles={"admin"}),
        rule("public", scopes={"a"}),
        rule("public", groups={"a"}),
        rule("public", tenants={"a"}),
        rule("public", when="identity.subject == 'a'"),
    ],
)
def test_a_public_rule_that_asks_something_of_the_caller_is_an_error(asked: AccessRule) -> None:
    with pytest.raises(PolicyError, match="public"):
        compile_rule(asked)


def test_a_condition_that_reads_the_request_denies_without_one() -> None:
    policy = compile_rule(rule(when="request.path != '/admin'"))
    decision = authorize(policy, GOOD, None)
    assert decision.reason is Reason.CONDITION_FAILED


@pytest.mark.parametrize(
    ("when", "reads"),
    [
        (None, False),
        ("true", False),
        ("request.method == 'GET' && 'a' in identity.roles", False),
        ("identity.subject == 'request.path'", False),
        ("request.path == '/'", True),
        ("request . params [ 'path' ] == '/'", True),
        ("request.host == 'a'", True),
        ("request.headers.size() == 0", True),
    ],
)
def test_a_policy_knows_whether_it_reads_the_request(when: str | None, *, reads: bool) -> None:
    assert compile_rule(rule(when=when)).reads_request is reads


NOW = 1_800_000_000.0
MFA = StepUp(("mfa",))


@pytest.mark.parametrize(
    ("acr", "amr", "enough"),
    [
        ("mfa", (), True),
        ("", ("pwd", "mfa"), True),
        ("phr", ("pop", "user", "mfa"), True),
        ("", (), False),
        ("pwd", ("pwd",), False),
        ("MFA", ("Mfa",), False),
        ("mfa2", ("pwd", "otp"), False),
    ],
)
def test_mfa_is_what_acr_or_amr_says(acr: str, amr: tuple[str, ...], *, enough: bool) -> None:
    policy = compile_rule(AccessRule("signed-in", acr=("mfa",)))
    caller = Authenticated(Identity("alice", acr=acr, amr=amr))
    expected = Allow if enough else Challenge
    assert type(authorize(policy, caller, None)) is expected


def test_a_name_of_a_method_is_no_acr_but_for_mfa() -> None:
    policy = compile_rule(AccessRule("signed-in", acr=("phr", "otp")))
    caller = Authenticated(Identity("alice", acr="mfa", amr=("pwd", "otp", "phr")))
    step_up = StepUp(("phr", "otp"))
    assert authorize(policy, caller, None) == Challenge(Reason.ACR_MISSING, step_up)


@pytest.mark.parametrize(
    ("ago", "now", "allowed"),
    [
        (0, NOW, True),
        (300, NOW, True),
        (301, NOW, False),
        (-30, NOW, True),
        (NOW, NOW, False),
        (0, None, False),
    ],
    ids=["just now", "in time", "too old", "another clock", "never said", "no clock"],
)
def test_a_sign_in_counts_for_as_long_as_max_age(
    ago: float, now: float | None, *, allowed: bool
) -> None:
    policy = compile_rule(AccessRule("signed-in", max_age=300.0))
    caller = Authenticated(Identity("alice", auth_time=int(NOW - ago)))
    decision = authorize(policy, caller, None, *([] if now is None else [now]))
    too_old = Challenge(Reason.AUTH_TIME_TOO_OLD, StepUp((), 300.0))
    assert decision == (Allow(Reason.ALLOWED, caller.identity) if allowed else too_old)


def test_nobody_is_asked_for_more_who_may_not_even_then() -> None:
    for asked in (
        AccessRule("signed-in", roles=frozenset({"admin"}), acr=("mfa",)),
        AccessRule("signed-in", when="identity.subject == 'bob'", acr=("mfa",), max_age=1.0),
    ):
        assert type(authorize(compile_rule(asked), GOOD, FACTS)) is Deny


def test_who_is_not_signed_in_hears_at_once_what_that_must_come_to() -> None:
    policy = compile_rule(AccessRule("signed-in", acr=("mfa",)))
    assert authorize(policy, ABSENT, None) == Challenge(Reason.NO_CREDENTIAL, MFA)
    assert authorize(policy, EXPIRED, None) == Challenge(Reason.SESSION_EXPIRED, MFA)

"""Outcomes, and the words for them."""

import re
from pathlib import Path

import pytest

from auth.decision import Allow, Challenge, Deny, Reason
from auth.identity import ABSENT, Authenticated, Identity
from gateway.outcome import Outcome, Unavailable, Verdict
from gateway.routing import ENCODED_SLASH, NO_ROUTE, MethodNotAllowed

VERDICTS: list[tuple[Verdict, str, Reason]] = [
    (Allow(Reason.PUBLIC), "allow", Reason.PUBLIC),
    (Challenge(Reason.SESSION_ENDED), "challenge", Reason.SESSION_ENDED),
    (Deny(Reason.ROLE_MISSING), "deny", Reason.ROLE_MISSING),
    (Unavailable(Reason.KEYS_UNAVAILABLE, 1), "", Reason.KEYS_UNAVAILABLE),
    (NO_ROUTE, "", Reason.NO_ROUTE),
    (MethodNotAllowed(("GET",)), "", Reason.METHOD_NOT_ALLOWED),
    (ENCODED_SLASH, "", Reason.BAD_REQUEST),
]


@pytest.mark.parametrize(
    ("verdict", "decision", "reason"), VERDICTS, ids=[str(row[2]) for row in VERDICTS]
)
def test_every_verdict_has_a_reason_and_only_an_answered_question_a_decision(
    verdict: Verdict, decision: str, reason: Reason
) -> None:
    outcome = Outcome(verdict, 7)
    assert (outcome.decision, outcome.reason) == (decision, reason)
    assert (outcome.route, outcome.upstream) == ("", "")


def test_an_outcome_knows_who_was_recognised_even_when_they_may_not() -> None:
    identity = Identity("u1")
    denied = Deny(Reason.ROLE_MISSING, "", identity)
    assert Outcome(denied, 1, caller=Authenticated(identity)).identity is identity
    assert Outcome(NO_ROUTE, 1).identity is None
    assert Outcome(Challenge(Reason.NO_CREDENTIAL), 1, caller=ABSENT).identity is None


def test_the_reference_explains_every_reason_there_is_and_no_other() -> None:
    text = (Path(__file__).parents[2] / "docs" / "reasons.md").read_text(encoding="utf-8")
    explained = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert sorted(explained) == sorted(reason.value for reason in Reason)

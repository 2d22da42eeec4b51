"""The checker finds what it is for, and finds nothing in a history that keeps the promises."""

from collections.abc import Sequence

import msgspec
import pytest

from tests.faults.checker import check
from tests.faults.history import Fault, History, Operation

LEASE = 0.5
S, OTHER = "s1", "s2"


def create(at: float = 0.0, session: str = S, subject: str = "u1", **more: object) -> Operation:
    return Operation("create", at, at + 0.1, "ok", session, subject, **more)  # type: ignore[arg-type]


def admitted(at: float, *, session: str = S, subject: str = "u1", version: int = 0) -> Operation:
    return Operation("use", at, at + 0.01, "admitted", session, subject, version)


def refused(at: float, reason: str = "session_ended") -> Operation:
    return Operation("use", at, at + 0.01, "refused", S, reason=reason)


def outage(at: float, *, cleared: bool = False) -> Operation:
    return Operation("use", at, at + 0.01, "unavailable", S, cleared_cookie=cleared)


def ending(
    kind: str = "end", at: float = 1.0, until: float = 1.2, result: str = "ok", *, sure: bool = True
) -> Operation:
    session, subject = {"end": (S, ""), "delete": (S, ""), "end_subject": ("", "u1")}.get(
        kind, ("", "")
    )
    sure = sure and kind.startswith("end")
    return Operation(kind, at, until, result, session, subject, confirmed=sure)  # type: ignore[arg-type]


def rollback(at: float, since: float) -> Operation:
    return Operation("rollback", at, at + 0.1, "ok", since=since)


def put(version: int, at: float) -> Operation:
    return Operation("replace", at, at + 0.01, "ok", S, version=version)


BROKEN: dict[str, tuple[str, Sequence[Operation]]] = {
    "a request after the logout's answer": (
        "admitted_after_end",
        [create(), ending(), admitted(1.21)],
    ),
    "after a logout everywhere": (
        "admitted_after_end",
        [create(), ending("end_subject"), admitted(1.21)],
    ),
    "after the end of all": ("admitted_after_end", [create(), ending("end_all"), admitted(1.21)]),
    "after the first of two logouts": (
        "admitted_after_end",
        [create(), ending(), ending(at=1.25, until=9.0), admitted(1.3)],
    ),
    "a lease after a bare delete": (
        "admitted_after_delete",
        [create(), ending("delete"), admitted(1.2 + LEASE + 0.02)],
    ),
    "a lease after FLUSHALL": (
        "admitted_after_delete",
        [create(), ending("flush"), admitted(1.2 + LEASE + 0.02)],
    ),
    "back from the dead, its deleter unheard": (
        "came_back",
        [create(), ending(result="unknown"), refused(1.5), admitted(1.51 + LEASE + 0.02)],
    ),
    "back after a failover that everybody could make good": (
        "admitted_after_end",
        [create(), ending(), rollback(2.0, since=0.5), admitted(2.5)],
    ),
    "somebody else's": ("wrong_identity", [create(), admitted(0.5, subject="u2")]),
    "a session that nobody made": ("wrong_identity", [admitted(0.5, session="made up")]),
    "an expired one": (
        "admitted_after_expiry",
        [create(expires_at=1.0), admitted(1.05)],
    ),
    "a replaced record": (
        "stale_record",
        [create(), put(1, 1.0), admitted(1.01 + LEASE + 0.02, version=0)],
    ),
    "a good session refused": ("wrongly_refused", [create(), refused(0.5, "session_unknown")]),
    "refused before anybody ended it": (
        "wrongly_refused",
        [create(), refused(0.5), ending()],
    ),
    "refused although only the session before it was ended": (
        "wrongly_refused",
        [ending("end_subject"), create(1.3), refused(1.5)],
    ),
    "an outage that signs people out": ("cookie_cleared", [create(), outage(1.0, cleared=True)]),
    "an outage without end": ("not_recovered", [create(), outage(7.0)]),
}


@pytest.mark.parametrize(("rule", "operations"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_promise_is_found(rule: str, operations: Sequence[Operation]) -> None:
    history = History(LEASE, tuple(operations), (Fault("cut", 0.0, 5.0),), healed_at=5.0)
    found = check(history)
    assert [each.rule for each in found] == [rule]
    assert found[0].operation in operations


def test_what_a_worker_saw_to_have_ended_it_never_admits_again_even_after_a_failover() -> None:
    at = [refused(1.5), rollback(2.0, since=0.5), admitted(3.0)]
    one, other = (msgspec.structs.replace(at[0], gateway=name) for name in ("1", "2"))
    unknown = msgspec.structs.replace(one, reason="session_unknown")
    use = msgspec.structs.replace(at[2], gateway="1")
    for seen, rules in ((one, ["came_back"]), (other, []), (unknown, [])):
        operations = (create(), ending(sure=False), seen, at[1], use)
        history = History(LEASE, operations, healed_at=5.0, one_worker_each=True)
        assert [each.rule for each in check(history)] == rules
        several = msgspec.structs.replace(history, one_worker_each=False)
        assert check(several) == []


@pytest.mark.parametrize(
    ("sure", "flushed", "rules"),
    [
        (True, True, ["admitted_after_end"]),
        (False, True, []),
        (False, False, ["admitted_after_end"]),
    ],
    ids=["all had heard", "not all had heard, and it was lost", "it was not lost"],
)
def test_a_token_is_revoked_until_the_store_loses_what_not_all_have_heard(
    sure: bool,  # noqa: FBT001 - a table's column
    flushed: bool,  # noqa: FBT001
    rules: list[str],
) -> None:
    issued = Operation("issue", 0.0, 0.1, "ok", S, "u1")
    flush = [Operation("flush", 2.0, 2.1, "ok")] if flushed else []
    operations = (issued, admitted(0.5), ending(sure=sure), *flush, admitted(3.0))
    assert [each.rule for each in check(History(LEASE, operations))] == rules


def test_a_token_that_one_worker_remembers_may_be_admitted_by_another_after_a_flush() -> None:
    issued = Operation("issue", 0.0, 0.1, "ok", S, "u1")
    flush = Operation("flush", 2.0, 2.1, "ok")
    seen = msgspec.structs.replace(refused(2.5), gateway="1")
    use = msgspec.structs.replace(admitted(4.0), gateway="2")
    at_the_same = msgspec.structs.replace(use, gateway="1")
    for operations, rules in (
        ((issued, flush, seen, use), []),
        ((issued, flush, seen, at_the_same), ["came_back"]),
        ((issued, seen, use), ["came_back"]),
    ):
        history = History(LEASE, operations, healed_at=5.0, one_worker_each=True)
        assert [
            each.rule for each in check(history) if each.operation.result == "admitted"
        ] == rules


def test_a_token_lives_although_all_sessions_end_and_the_store_is_emptied() -> None:
    issued = Operation("issue", 0.0, 0.1, "ok", S, "u1")
    others = (ending("end_all"), Operation("flush", 2.0, 2.1, "ok"))
    assert check(History(LEASE, (issued, *others, admitted(9.0)))) == []
    (found,) = check(History(LEASE, (issued, *others, refused(9.0))))
    assert found.rule == "wrongly_refused"


KEPT: dict[str, Sequence[Operation]] = {
    "a request that began before the answer": [create(), ending(), admitted(1.19)],
    "a copy within a lease of a bare delete": [create(), ending("delete"), admitted(1.6)],
    "a logout that nobody heard the end of": [create(), ending(result="unknown"), admitted(9.0)],
    "a session made during a logout everywhere": [
        ending("end_subject", at=0.0, until=0.05),
        create(),
        admitted(1.0),
    ],
    "another's logout": [create(), create(session=OTHER), ending(), admitted(1.5, session=OTHER)],
    "refused while it may have ended": [create(), ending(result="unknown"), refused(1.1)],
    "refused before its sign-in was answered": [create(), refused(0.05, "session_unknown")],
    "refused at its end": [create(expires_at=2.0), refused(1.995, "session_expired")],
    "refused when it was unused for too long": [create(idles_at=2.0), refused(2.1)],
    "an outage, and soon over": [create(), outage(5.9), admitted(6.1)],
    "a failover that lost a logout not all had heard": [
        create(),
        ending(sure=False),
        rollback(2.0, since=0.5),
        admitted(3.0),
    ],
    "a failover that lost a bare delete": [
        create(),
        ending("delete"),
        rollback(2.0, since=0.5),
        admitted(3.0),
    ],
    "a failover that lost a sign-in": [
        create(1.0),
        rollback(2.0, since=0.5),
        refused(3.0, "session_unknown"),
    ],
    "the new record": [create(), put(1, 1.0), admitted(3.0, version=1)],
}


@pytest.mark.parametrize("operations", KEPT.values(), ids=KEPT.keys())
def test_a_kept_promise_is_no_finding(operations: Sequence[Operation]) -> None:
    history = History(LEASE, tuple(operations), healed_at=5.0)
    assert [str(each) for each in check(history)] == []


def test_a_finding_names_what_it_contradicts() -> None:
    told = ending()
    (found,) = check(History(LEASE, (create(), told, admitted(1.3))))
    assert found.because is told
    assert "although 1.0000-1.2000 end s1 ok" in str(found)

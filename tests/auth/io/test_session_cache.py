import pytest

from auth.io.session_cache import Entry, LastRecords, SessionCache
from auth.revocation import Epoch
from auth.session import MalformedRecord, SessionRecord, encode_record

RECORD = SessionRecord(1, "u1", 100.0, 1000.0)


def cache_with(*names: str, sessions: int = 100) -> SessionCache:
    cache = SessionCache(sessions=sessions, others=3)
    cache.lease_until = 10.0
    for name in names:
        cache.keep(cache.sessions, name, Entry(RECORD))
    return cache


def test_a_verdict_is_used_under_a_live_lease_only() -> None:
    cache = cache_with("a")
    assert cache.live(cache.sessions, "a", 9.99) is not None
    assert cache.live(cache.sessions, "a", 10.0) is None


def test_a_verdict_is_used_up_to_its_deadline_only() -> None:
    cache = cache_with()
    cache.keep(cache.sessions, "a", Entry(RECORD, deadline=5.0))
    assert cache.live(cache.sessions, "a", 4.99) is not None
    assert cache.live(cache.sessions, "a", 5.0) is None


def test_a_dropped_name_is_forgotten_and_so_is_its_ticket() -> None:
    cache = cache_with("a", "b")
    cache.flights["a"] = object()
    assert cache.drop("a") is True
    assert cache.drop("a") is False
    assert "a" not in cache.flights
    assert list(cache.sessions) == ["b"]


def test_an_epoch_drops_what_depends_on_it_and_nothing_else() -> None:
    cache = cache_with()
    for name, epoch in (("a", "e1"), ("b", "e2"), ("c", "e1")):
        cache.epochs[epoch] = Epoch(1)
        cache.keep(cache.sessions, name, Entry(RECORD, epochs=(epoch,)))
    cache.keep(cache.tokens, "t", Entry(verdict=False, epochs=("e1",)))
    assert sorted(cache.drop_epoch("e1")) == ["a", "c"]
    assert list(cache.sessions) == ["b"]
    assert not cache.tokens
    assert list(cache.epochs) == ["e2"]


def test_an_epoch_is_kept_as_long_as_something_depends_on_it() -> None:
    cache = cache_with()
    cache.epochs["e"] = Epoch(1)
    for name in ("a", "b"):
        cache.keep(cache.sessions, name, Entry(RECORD, epochs=("e",)))
    cache.drop("a")
    cache.release("e")
    assert cache.epoch("e", 1.0) == Epoch(1)
    cache.drop("b")
    assert cache.epoch("e", 1.0) is None
    assert not cache._dependents


@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_epoch_ends_all_that_rests_on_it_however_many(count: int) -> None:
    cache = cache_with()
    names = [f"s{number}" for number in range(count)]
    for name in (*names, *names):  # read twice
        cache.epochs["e"] = Epoch(1)
        cache.keep(cache.sessions, name, Entry(RECORD, epochs=("e",)))
    assert sorted(cache.drop_epoch("e")) == names
    assert not cache.sessions
    assert not cache._dependents
    assert cache.drop_epoch("e") == []


def test_an_epoch_is_known_under_a_live_lease_only() -> None:
    cache = cache_with()
    cache.epochs["e"] = Epoch(1)
    assert cache.epoch("e", 10.0) is None


def test_what_is_used_stays_when_a_flood_of_others_comes() -> None:
    cache = cache_with("hot", sessions=10)
    for number in range(1000):
        assert cache.live(cache.sessions, "hot", 1.0) is not None
        cache.keep(cache.sessions, f"once {number}", Entry(RECORD))
    assert "hot" in cache.sessions
    assert len(cache.sessions) == 10
    assert cache.evictions == 991


def test_eviction_ends_when_everything_is_in_use() -> None:
    cache = cache_with(*"abc", sessions=3)
    for name in "abc":
        cache.live(cache.sessions, name, 1.0)
    cache.keep(cache.sessions, "d", Entry(RECORD))
    assert len(cache.sessions) == 3


def test_a_lowered_bound_is_come_down_to_by_and_by_and_keeps_what_is_used() -> None:
    cache = cache_with(*(f"s{number}" for number in range(1000)), sessions=1000)
    for number in range(0, 1000, 10):
        cache.live(cache.sessions, f"s{number}", 1.0)
    cache.most_sessions = 100
    cache.shrink(looks=300)
    assert 700 <= len(cache.sessions) < 1000
    for _ in range(4):
        cache.shrink(looks=300)
    assert list(cache.sessions) == [f"s{number}" for number in range(0, 1000, 10)]
    assert cache.evictions == 900


def test_a_lowered_bound_lets_nothing_in_that_takes_nobody_s_place() -> None:
    cache = cache_with(*"abc", sessions=3)
    cache.most_sessions = 2
    cache.keep(cache.sessions, "d", Entry(RECORD))
    assert list(cache.sessions) == ["c", "d"]


def test_no_request_waits_while_a_whole_queue_in_use_is_passed() -> None:
    names = [f"s{number}" for number in range(10_000)]
    cache = cache_with(*names, sessions=10_000)
    for name in names:
        cache.live(cache.sessions, name, 1.0)
    cache.keep(cache.sessions, "new", Entry(RECORD))
    assert sum(entry.used for entry in cache.sessions.values()) >= 9800
    for number in range(100):
        cache.keep(cache.sessions, f"newer {number}", Entry(RECORD))
    assert len(cache.sessions) == 10_000
    assert cache.evictions == 101


def test_while_all_are_in_use_the_bound_is_passed_by_a_hundredth_at_most() -> None:
    cache = cache_with(sessions=1000)
    for number in range(3000):
        cache.keep(cache.sessions, f"s{number}", Entry(RECORD))
        for entry in cache.sessions.values():
            entry.used = True
    assert len(cache.sessions) == 1010


def test_a_lowered_bound_is_reached_even_if_everything_is_in_use() -> None:
    cache = cache_with(*"abc", sessions=3)
    for name in "abc":
        cache.live(cache.sessions, name, 1.0)
    cache.most_sessions = 1
    cache.shrink()
    assert len(cache.sessions) == 1


def test_guessed_cookies_push_out_no_session() -> None:
    cache = cache_with("a")
    for number in range(50):
        cache.keep(cache.absences, str(number), Entry("session_unknown"))
    assert "a" in cache.sessions
    assert len(cache.absences) == 3


@pytest.mark.parametrize("before", ["sessions", "absences"])
def test_a_name_has_one_verdict(before: str) -> None:
    cache = cache_with()
    cache.keep(getattr(cache, before), "a", Entry("x"))
    cache.keep(cache.sessions, "a", Entry(RECORD))
    assert not cache.absences
    assert cache.sessions["a"].verdict is RECORD


def test_clearing_forgets_everything_and_every_ticket() -> None:
    cache = cache_with("a")
    cache.epochs["e"] = Epoch(1)
    cache.flights["b"] = object()
    cache.clear()
    assert not cache.sessions
    assert not cache.epochs
    assert not cache.flights


def test_an_unchanged_record_stays_the_same_object_and_a_changed_one_does_not() -> None:
    records = LastRecords(most=2)
    one = encode_record(SessionRecord(1, "u1", 1.0, 2.0))
    other = encode_record(SessionRecord(1, "u1", 1.0, 2.0, roles=("admin",)))
    first = records.parse("a", one)
    assert records.parse("a", bytes(bytearray(one))) is first
    assert records.parse("a", other).roles == ("admin",)
    assert records.parse("a", one).roles == ()


def test_nothing_is_held_of_a_session_that_is_over() -> None:
    records = LastRecords()
    first = records.parse("a", encode_record(RECORD))
    records.forget("a")
    records.forget("b")
    assert records.subject("a") is None
    assert records.parse("a", encode_record(RECORD)) is not first


def test_sessions_of_one_site_share_what_they_say_alike_and_nothing_else() -> None:
    records = LastRecords()

    def read(name: str, roles: tuple[str, ...]) -> SessionRecord:
        record = SessionRecord(1, name, 1.0, 2.0, tenant="acme", roles=roles, scopes=("x",))
        assert records.parse(name, encode_record(record)) == record
        return records.parse(name, encode_record(record))

    one, same, other = read("a", ("admin", "b")), read("b", ("admin", "b")), read("c", ("admin",))
    assert one.roles is same.roles
    assert one.tenant is same.tenant is other.tenant
    assert (one.subject, same.subject, other.roles) == ("a", "b", ("admin",))
    for number in range(5000):
        read(str(number), (f"role-{number}",))
    assert len(records._parts) <= 1000


def test_sessions_share_what_most_of_them_do_not_say() -> None:
    records = LastRecords()
    first, second = (
        records.parse(name, encode_record(SessionRecord(1, name, 1.0, 2.0))) for name in "ab"
    )
    bare = records.parse("c", b'{"v":1,"subject":"c","created_at":1,"expires_at":2}')
    assert first.claims is second.claims is bare.claims
    assert first.sites is second.sites
    assert (first.claims, first.sites, first.auth_time, bare.refresh_at) == ({}, {}, 0, 0)
    told = encode_record(SessionRecord(1, "d", 1.0, 2.0, auth_time=3, claims={"iss": "x"}))
    assert records.parse("d", told).claims == {"iss": "x"}
    assert records.parse("d", told).auth_time == 3
    assert first.claims == {}


def test_the_last_records_are_bounded_and_name_the_subject() -> None:
    records = LastRecords(most=2)
    for name in ("a", "b", "c"):
        records.parse(name, encode_record(SessionRecord(1, f"of {name}", 1.0, 2.0)))
    assert [records.subject(name) for name in ("a", "b", "c")] == [None, "of b", "of c"]


def test_what_is_no_record_is_refused_each_time_and_not_remembered() -> None:
    records = LastRecords()
    for _ in range(2):
        with pytest.raises(MalformedRecord):
            records.parse("a", b"{}")
    assert records.subject("a") is None

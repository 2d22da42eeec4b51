"""Copies under several leases."""

from auth.decision import Reason
from auth.io.session_cache import Entry
from auth.io.sharded_cache import ShardedCache, ShardedEndings, are_live
from auth.revocation import ALL_SESSIONS, NO_EPOCH, Epoch, epoch_name
from auth.session import SessionRecord
from auth.slots import all_sessions_beside
from tests.auth.io.shards_by_hand import granted


def test_every_lease_must_be_live() -> None:
    assert are_live((), 5.0)
    assert are_live((granted(6.0), granted(7.0)), 5.0)
    assert not are_live((granted(6.0), granted(5.0)), 5.0)


def test_the_end_of_all_that_one_copy_tells_of_holds_for_all() -> None:
    endings = ShardedEndings()
    copy, other = all_sessions_beside("a"), all_sessions_beside("b")
    endings.add_epoch(copy, Epoch(7))
    assert endings.epoch_of(other, NO_EPOCH) == Epoch(7)
    assert endings.epoch_of(epoch_name("", "u1"), NO_EPOCH) == NO_EPOCH
    assert endings.replay(0.0)[1] == {ALL_SESSIONS: Epoch(7)}


class TestTheCache:
    def test_an_epoch_and_a_bucket_are_known_under_their_own_lease(self) -> None:
        cache, lease = ShardedCache(), granted(10.0)
        cache.epochs["e"], cache.epoch_leases["e"] = NO_EPOCH, lease
        cache.clean.add("abc")
        cache.clean_leases["abc"] = lease
        assert cache.epoch("e", 9.9) == NO_EPOCH
        assert cache.is_clean("abc", 9.9)
        assert cache.epoch("e", 10.0) is None
        assert not cache.is_clean("abc", 10.0)
        assert not cache.is_clean("abd", 9.9)
        cache.drop_bucket("abc")
        assert not cache.is_clean("abc", 9.9)

    def test_nothing_is_left_of_an_epoch_that_no_verdict_needs(self) -> None:
        cache, lease = ShardedCache(), granted()
        cache.epochs["e"], cache.epoch_leases["e"] = NO_EPOCH, lease
        cache.keep(cache.sessions, "n", Entry(Reason.SESSION_ENDED, epochs=("e",)))
        cache.drop("n")
        cache.epochs["f"], cache.epoch_leases["f"] = NO_EPOCH, lease
        cache.release("f")
        assert not cache.epochs
        assert not cache.epoch_leases

    def test_the_end_of_all_drops_what_rests_on_any_copy_of_it(self) -> None:
        cache = ShardedCache()
        copies = [all_sessions_beside(name) for name in ("a", "b")]
        for copy in copies:
            cache.epochs[copy], cache.epoch_leases[copy] = NO_EPOCH, granted()
            value = SessionRecord(1, "u1", 0, 1)
            cache.keep(cache.sessions, f"of {copy}", Entry(value, epochs=(copy,)))
        assert sorted(cache.drop_epoch(ALL_SESSIONS)) == sorted(f"of {copy}" for copy in copies)
        assert not cache.sessions

    def test_a_void_lease_takes_its_buckets_with_it(self) -> None:
        cache, lease = ShardedCache(), granted()
        for bucket in ("abc", "abd"):
            cache.clean.add(bucket)
        cache.clean_leases["abc"], cache.clean_leases["abd"] = lease, granted()
        lease.revoke()
        cache.forget_void()
        assert cache.clean == {"abd"}
        cache.clear()
        assert cache.clean == set()

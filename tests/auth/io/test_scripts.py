"""Each script on a real server: what it changes, what it returns, and that repeating it is safe."""

import json
import time
from typing import Any

import pytest

from auth.io.scripts import BEAT, BROADCAST, CREATE, END, EPOCH, EXPECT, FORGET, TELL, TOUCH
from tests.conftest import Valkey

pytestmark = pytest.mark.wire
RECORD, TOMBSTONE, EVENTS = "doorward:session:{x}", "doorward:ended:{x}", "doorward:events"
EXPIRING, FACTS = "doorward:expiring:{doorward:events}", "facts"
TOLD = (EVENTS, EXPIRING, FACTS)
NOW = 1_795_343_460.0
HOUR = 3_600_000
UNKNOWN_FOR, LONGEST = 60_000, 400 * 24 * HOUR


def run(valkey: Valkey, script: str, keys: tuple[str, ...], *arguments: object) -> Any:
    return valkey.client.eval(script, len(keys), *keys, *arguments)  # type: ignore[arg-type]


def write(valkey: Valkey, *, ttl: int | None = HOUR, **fields: object) -> None:
    value = {"v": 1, "subject": "u1", "created_at": NOW, "expires_at": NOW + 3600} | fields
    valkey.client.set(RECORD, json.dumps(value), px=ttl)


def end(valkey: Valkey, reason: str = "logout", keys: tuple[str, ...] = ()) -> list[Any]:
    told = (round(NOW * 1000), UNKNOWN_FOR, LONGEST, reason, "x", NOW)
    reply: list[Any] = run(valkey, END, (RECORD, TOMBSTONE, *keys), *told)
    return reply


def events(valkey: Valkey) -> list[bytes]:
    entries: Any = valkey.client.xrange(EVENTS)
    return [fields[b"event"] for _, fields in entries]


class TestBeat:
    def test_a_beat_registers_the_worker_and_the_birth_of_the_list(self, valkey: Valkey) -> None:
        before = time.time() * 1000
        assert run(valkey, BEAT, ("workers",), "w1", "1 300") == 1
        registry: Any = valkey.client.hgetall("workers")
        assert registry.pop(b"w1") == b"1 300"
        assert before - 1 <= int(registry.pop(b"~")) <= time.time() * 1000 + 1
        assert registry == {}

    def test_a_later_beat_moves_the_worker_and_not_the_birth(self, valkey: Valkey) -> None:
        valkey.client.hset("workers", mapping={"~": "5", "w1": "1 300"})
        run(valkey, BEAT, ("workers",), "w1", "2 300")
        assert valkey.client.hgetall("workers") == {b"~": b"5", b"w1": b"2 300"}


class TestBroadcast:
    def test_it_tells_who_listens_and_returns_who_may_hold_a_copy(self, valkey: Valkey) -> None:
        born = round(time.time() * 1000) - 5000
        valkey.client.hset("workers", mapping={"~": str(born), "w1": "1 300"})
        with valkey.client.pubsub() as listener:  # type: ignore[no-untyped-call]
            listener.subscribe("ended")
            assert listener.get_message(timeout=5) is not None
            flat, age = run(valkey, BROADCAST, ("workers",), "ended", "hear")
            heard: Any = listener.get_message(timeout=5)
        assert heard["data"] == b"hear"
        assert dict(zip(flat[::2], flat[1::2], strict=True))[b"w1"] == b"1 300"
        assert 5000 <= age < 60_000

    def test_a_list_that_nobody_began_has_no_age(self, valkey: Valkey) -> None:
        assert run(valkey, BROADCAST, ("workers",), "ended", "hear") == [[], 0]


class TestForget:
    def test_who_did_not_move_goes_and_who_did_stays(self, valkey: Valkey) -> None:
        valkey.client.hset("workers", mapping={"~": "5", "dead": "1 300", "late": "8 300"})
        told = ("dead", "1 300", "late", "7 300", "gone", "1 300")
        run(valkey, FORGET, ("workers",), *told)
        assert valkey.client.hgetall("workers") == {b"~": b"5", b"late": b"8 300"}


class TestCreate:
    keys = (RECORD, TOMBSTONE, EVENTS)

    def create(self, valkey: Valkey, value: str = "{}", keys: tuple[str, ...] = keys) -> int:
        reply: int = run(valkey, CREATE, keys, value, 5000, "x", "u1", NOW)
        return reply

    def test_a_record_stands_with_its_time_to_live_and_is_told(self, valkey: Valkey) -> None:
        assert self.create(valkey) == 1
        assert valkey.client.get(RECORD) == b"{}"
        assert 4000 < int(valkey.client.pttl(RECORD)) <= 5000
        assert events(valkey) == [b"session.started"]

    def test_the_same_again_changes_nothing_and_is_told_once(self, valkey: Valkey) -> None:
        assert [self.create(valkey), self.create(valkey)] == [1, 1]
        assert events(valkey) == [b"session.started"]

    def test_another_record_is_never_written_over(self, valkey: Valkey) -> None:
        self.create(valkey, '"first"')
        assert self.create(valkey, '"second"') == 0
        assert valkey.client.get(RECORD) == b'"first"'

    def test_what_ended_is_not_made_again(self, valkey: Valkey) -> None:
        valkey.client.set(TOMBSTONE, "logout")
        assert self.create(valkey) == 0
        assert not valkey.client.exists(RECORD)
        assert events(valkey) == []

    def test_without_a_stream_in_its_slot_it_tells_nobody(self, valkey: Valkey) -> None:
        assert self.create(valkey, keys=(RECORD, TOMBSTONE)) == 1
        assert events(valkey) == []


class TestEnd:
    def test_a_live_session_leaves_a_tombstone_for_all_it_could_have_lived(
        self, valkey: Valkey
    ) -> None:
        write(valkey, ttl=1000)
        assert end(valkey, keys=TOLD) == [1, HOUR, b"u1"]
        assert not valkey.client.exists(RECORD)
        assert valkey.client.get(TOMBSTONE) == b"logout"
        assert int(valkey.client.pttl(TOMBSTONE)) > HOUR - 5000
        assert events(valkey) == [b"session.ended"]

    def test_a_key_that_outlives_its_record_is_outlived_too(self, valkey: Valkey) -> None:
        write(valkey, ttl=2 * HOUR)
        alive, left, _ = end(valkey)
        assert alive == 1
        assert HOUR < left <= 2 * HOUR

    def test_an_unknown_session_is_remembered_for_a_moment_only(self, valkey: Valkey) -> None:
        assert end(valkey, keys=TOLD) == [0, UNKNOWN_FOR, b""]
        assert events(valkey) == []

    def test_a_second_end_counts_nothing_and_shortens_nothing(self, valkey: Valkey) -> None:
        write(valkey)
        end(valkey)
        alive, left, _ = end(valkey, "again", keys=TOLD)
        assert alive == 0
        assert left > HOUR - 5000
        assert valkey.client.get(TOMBSTONE) == b"logout"
        assert events(valkey) == []

    def test_what_ends_is_not_expected_to_end_any_more(self, valkey: Valkey) -> None:
        write(valkey)
        valkey.client.zadd(EXPIRING, {"x": 5, "other": 5})
        valkey.client.hset(FACTS, mapping={"x": "5 u1", "other": "5 u2"})
        end(valkey, keys=TOLD)
        assert valkey.client.zrange(EXPIRING, 0, -1) == [b"other"]
        assert valkey.client.hkeys(FACTS) == [b"other"]

    def test_what_was_gone_before_is_left_to_be_told(self, valkey: Valkey) -> None:
        valkey.client.zadd(EXPIRING, {"x": 5})
        assert end(valkey, keys=TOLD)[0] == 0
        assert valkey.client.zrange(EXPIRING, 0, -1) == [b"x"]

    def test_an_expired_record_is_removed_and_was_not_alive(self, valkey: Valkey) -> None:
        write(valkey, expires_at=NOW - 1)
        assert end(valkey, keys=TOLD)[0] == 0
        assert not valkey.client.exists(RECORD)
        assert events(valkey) == []

    @pytest.mark.parametrize(
        "value",
        ["", "no json", "[]", "7", "null", '{"subject":5,"expires_at":"x"}', '{"expires_at":null}'],
    )
    def test_a_record_that_cannot_be_read_ends_like_any_other(
        self, valkey: Valkey, value: str
    ) -> None:
        valkey.client.set(RECORD, value, px=2 * UNKNOWN_FOR)
        alive, left, subject = end(valkey)
        assert (alive, subject) == (1, b"")
        assert UNKNOWN_FOR < left <= 2 * UNKNOWN_FOR
        assert not valkey.client.exists(RECORD)

    def test_a_key_that_holds_no_string_ends_like_any_other(self, valkey: Valkey) -> None:
        valkey.client.rpush(RECORD, "a", "list")
        assert end(valkey) == [1, LONGEST, b""]
        assert not valkey.client.exists(RECORD)

    def test_a_record_without_any_limit_is_remembered_as_long_as_a_browser_could(
        self, valkey: Valkey
    ) -> None:
        write(valkey, ttl=None, expires_at=None)
        assert end(valkey) == [1, LONGEST, b"u1"]

    def test_nothing_is_remembered_for_longer_than_that(self, valkey: Valkey) -> None:
        write(valkey, expires_at=9e15)
        assert end(valkey)[1] == LONGEST


class TestExpect:
    keys = (EXPIRING, FACTS, RECORD, TOMBSTONE)

    def expect(
        self, valkey: Valkey, at: int = 5, how: str = "NX", keys: tuple[str, ...] = keys
    ) -> int:
        reply: int = run(valkey, EXPECT, keys, "x", at, f"{at} u1", how)
        return reply

    def expected(self, valkey: Valkey) -> tuple[Any, Any]:
        return valkey.client.zscore(EXPIRING, "x"), valkey.client.hget(FACTS, "x")

    def test_a_live_session_is_expected_to_end(self, valkey: Valkey) -> None:
        write(valkey)
        assert self.expect(valkey) == 1
        assert self.expected(valkey) == (5.0, b"5 u1")

    def test_one_that_is_expected_is_put_off_by_the_look_alone(self, valkey: Valkey) -> None:
        write(valkey)
        self.expect(valkey)
        self.expect(valkey, 7)
        assert self.expected(valkey)[0] == 5.0
        self.expect(valkey, 9, "XX", self.keys[:2])
        assert self.expected(valkey) == (9.0, b"9 u1")

    @pytest.mark.parametrize("why", ["no record", "a tombstone"])
    def test_what_has_ended_is_not_expected_to(self, valkey: Valkey, why: str) -> None:
        if why == "a tombstone":
            write(valkey)
            valkey.client.set(TOMBSTONE, "logout")
        assert self.expect(valkey) == 0
        assert self.expected(valkey) == (None, None)

    def test_what_was_told_meanwhile_is_not_put_off(self, valkey: Valkey) -> None:
        self.expect(valkey, 9, "XX", self.keys[:2])
        assert self.expected(valkey) == (None, None)


class TestTell:
    def tell(self, valkey: Valkey, reason: str = "") -> int:
        reply: int = run(valkey, TELL, TOLD, "x", NOW, reason)
        return reply

    def expect(self, valkey: Valkey, facts: str | None, due: float = NOW * 1000) -> None:
        valkey.client.zadd(EXPIRING, {"x": due})
        if facts is not None:
            valkey.client.hset(FACTS, "x", facts)

    def told(self, valkey: Valkey) -> list[tuple[bytes, bytes]]:
        entries: Any = valkey.client.xrange(EVENTS)
        return [(fields[b"subject"], fields[b"reason"]) for _, fields in entries]

    @pytest.mark.parametrize(
        ("facts", "reason", "told"),
        [
            (f"{NOW + 9:.0f}000 u1", "", (b"u1", b"idle")),
            (f"{NOW:.0f}500 u1", "", (b"u1", b"expired")),
            (f"{NOW + 9:.0f}000 u1", "signed_out", (b"u1", b"signed_out")),
            (f"{NOW + 9:.0f}000 a b\n7 c", "", (b"a b\n7 c", b"idle")),
            ("no facts", "", (b"", b"idle")),
            (None, "", (b"", b"idle")),
        ],
        ids=["idle", "expired", "by a logout", "any subject", "not ours", "lost"],
    )
    def test_an_end_is_told_with_what_is_known(
        self, valkey: Valkey, facts: str | None, reason: str, told: tuple[bytes, bytes]
    ) -> None:
        self.expect(valkey, facts)
        assert self.tell(valkey, reason) == 1
        assert self.told(valkey) == [told]

    def test_it_is_told_once(self, valkey: Valkey) -> None:
        self.expect(valkey, "5 u1")
        assert [self.tell(valkey), self.tell(valkey)] == [1, 0]
        assert len(self.told(valkey)) == 1
        assert not valkey.client.exists(EXPIRING, FACTS)


class TestTouch:
    def touch(self, valkey: Valkey, idle: int = 1000_000, least: int = 50_000) -> int:
        told = (idle, round(NOW * 1000), least)
        reply: int = run(valkey, TOUCH, (RECORD, TOMBSTONE), *told)
        return reply

    def test_use_extends_the_time_to_live(self, valkey: Valkey) -> None:
        write(valkey, ttl=100_000)
        assert self.touch(valkey) == 1000_000
        assert int(valkey.client.pttl(RECORD)) > 990_000

    def test_never_beyond_what_the_record_allows(self, valkey: Valkey) -> None:
        write(valkey, ttl=100_000, expires_at=NOW + 500)
        assert self.touch(valkey) == 500_000

    @pytest.mark.parametrize(
        ("ttl", "idle"),
        [(2_000_000, 1_000_000), (990_000, 1_000_000)],
        ids=["a longer one is not shortened", "a gain that is not worth it"],
    )
    def test_what_is_left_stays(self, valkey: Valkey, ttl: int, idle: int) -> None:
        write(valkey, ttl=ttl)
        assert ttl - 5000 < self.touch(valkey, idle) <= ttl
        assert int(valkey.client.pttl(RECORD)) <= ttl

    def test_what_is_gone_is_not_brought_back(self, valkey: Valkey) -> None:
        assert self.touch(valkey) == 0
        assert not valkey.client.exists(RECORD)

    def test_what_has_ended_is_not_kept_alive(self, valkey: Valkey) -> None:
        write(valkey, ttl=100_000)
        valkey.client.set(TOMBSTONE, "logout")
        assert self.touch(valkey) == 0
        assert int(valkey.client.pttl(RECORD)) <= 100_000

    def test_a_record_without_a_time_to_live_is_given_none(self, valkey: Valkey) -> None:
        write(valkey, ttl=None)
        assert self.touch(valkey) == -1
        assert valkey.client.pttl(RECORD) == -1

    @pytest.mark.parametrize("value", ["no json", "[]", '{"expires_at":"soon"}', "7"])
    def test_a_record_that_cannot_be_read_is_left_alone(self, valkey: Valkey, value: str) -> None:
        valkey.client.set(RECORD, value, px=100_000)
        assert 0 < self.touch(valkey) <= 100_000
        assert int(valkey.client.pttl(RECORD)) <= 100_000


class TestEpoch:
    def set_to(self, valkey: Valkey, at: int, keep: str = "") -> bytes:
        reply: bytes = run(valkey, EPOCH, ("epoch",), at, keep, 60)
        return reply

    def test_an_epoch_is_kept_to_the_millisecond(self, valkey: Valkey) -> None:
        assert self.set_to(valkey, 1_795_343_460_123) == b"1795343460123"
        assert valkey.client.get("epoch") == b"1795343460123"
        assert 0 < int(valkey.client.ttl("epoch")) <= 60

    def test_an_epoch_never_goes_back(self, valkey: Valkey) -> None:
        self.set_to(valkey, 200)
        assert self.set_to(valkey, 100) == b"200"

    def test_the_session_to_keep_is_that_of_the_last_call(self, valkey: Valkey) -> None:
        assert self.set_to(valkey, 100, "a") == b"100 a"
        assert self.set_to(valkey, 100, "b") == b"100 b"
        assert self.set_to(valkey, 100) == b"100"

    def test_a_value_that_nobody_can_read_is_replaced(self, valkey: Valkey) -> None:
        valkey.client.set("epoch", "garbage")
        assert self.set_to(valkey, 100) == b"100"

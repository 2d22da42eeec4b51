"""Slots: the specification's examples, and answers of servers, sensible or not."""

import hashlib

import pytest

from auth.revocation import epoch_key, index_key
from auth.session import session_key
from auth.slots import (
    NO_CLAIMS,
    SLOTS,
    ClusterAnswerError,
    Primary,
    Redirect,
    all_sessions_beside,
    all_sessions_everywhere,
    is_slot_tag,
    key_of,
    parse_claims,
    parse_redirect,
    parse_slots,
    slot_of,
    slot_of_tag,
    tag_of,
)


@pytest.mark.parametrize(
    ("key", "slot"),
    [
        ("123456789", 0x31C3),  # the specification's own
        ("foo", 12182),
        (b"foo", 12182),
        ("{foo}.bar", 12182),
        ("a{foo}{bar}", 12182),
        ("", 0),
    ],
)
def test_a_key_is_in_the_slot_that_the_specification_says(key: str | bytes, slot: int) -> None:
    assert slot_of(key) == slot


@pytest.mark.parametrize("key", ["foo{}{bar}", "foo{bar", "{}"])
def test_without_a_tag_the_whole_key_counts(key: str) -> None:
    assert slot_of(key) == slot_of_tag(key)


def test_only_what_is_between_the_first_braces_counts() -> None:
    assert slot_of("foo{{bar}}zap") == slot_of_tag("{bar")


def test_a_session_is_in_the_slot_of_its_digest_and_an_index_in_that_of_its_epoch() -> None:
    name = "a" * 64
    assert slot_of(session_key(name)) == slot_of_tag(name)
    tag = epoch_key("").partition("{")[2]
    assert tag == "}"
    assert slot_of(index_key("u1")) == slot_of_tag(index_key("u1").partition("{")[2][:-1])


def test_every_slot_has_a_tag_of_its_own() -> None:
    assert [slot_of_tag(tag_of(slot)) for slot in range(SLOTS)] == list(range(SLOTS))
    assert all(is_slot_tag(tag_of(slot)) for slot in range(SLOTS))
    assert not is_slot_tag("all")
    assert not is_slot_tag("a" * 64)


def test_the_end_of_all_is_written_wherever_a_session_may_look_for_it() -> None:
    copies = all_sessions_everywhere()
    assert len(copies) == len(set(copies)) == 1024
    names = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(2000)]
    for name in names:
        copy = all_sessions_beside(name)
        assert copy in copies
        assert 0 <= slot_of_tag(name) - slot_of_tag(copy) < 16


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (("GET", "k"), "k"),
        (("SET", b"k", "v"), b"k"),
        (("EVAL", "script", 2, "k", "l"), "k"),
        (("EVAL", "script", "1", "k"), "k"),
        (("EVALSHA", "hash", 1, "k"), "k"),
        (("EVAL", "script", 0, "argument"), None),
        (("XREADGROUP", "GROUP", "g", "c", "STREAMS", "k", ">"), "k"),
        (("XREADGROUP", "GROUP"), None),
        (("PING",), None),
        (("EXPIRE", 5), None),
    ],
)
def test_a_command_goes_where_its_key_is(
    command: tuple[object, ...], key: str | bytes | None
) -> None:
    assert key_of(command) == key


class TestClaims:
    def test_ranges_and_single_slots_are_claimed(self) -> None:
        claims = parse_claims(b"id1 myself,master 7 0-2 5 16383")
        assert [slot for slot in range(SLOTS) if claims.stable[slot]] == [0, 1, 2, 5, 16383]
        assert claims.is_primary
        assert claims.node == "id1"
        assert claims.text == "id1 myself,master 7 0-2 5 16383"

    def test_a_slot_that_is_handed_over_is_not_stable_and_one_taken_over_not_ours(self) -> None:
        claims = parse_claims(b"id1 myself,master 7 0-2 [1->-id2] [9-<-id3]")
        assert [slot for slot in range(SLOTS) if claims.stable[slot]] == [0, 2]

    def test_the_registry_is_in_the_first_stable_slot(self) -> None:
        before = parse_claims(b"id1 myself,master 7 3-5")
        after = parse_claims(b"id1 myself,master 7 3-5 [3->-id2]")
        assert before.registry_key == f"doorward:workers:{{{tag_of(3)}}}"
        assert after.registry_key == f"doorward:workers:{{{tag_of(4)}}}"
        assert slot_of(str(before.registry_key)) == 3

    @pytest.mark.parametrize("text", [b"id1 myself,master 0", b"id1 myself,master 0 "])
    def test_a_primary_without_slots_has_no_registry(self, text: bytes) -> None:
        assert parse_claims(text).registry_key is None
        assert NO_CLAIMS.registry_key is None

    def test_a_replica_says_so(self) -> None:
        assert not parse_claims(b"id1 myself,slave 0 ").is_primary

    @pytest.mark.parametrize(
        "text",
        [
            b"",
            b"id1",
            b"id1 myself,master 0 x-y",
            b"id1 myself,master 0 0-16384",
            b"id1 myself,master 0 16384",
            b"id1 myself,master 0 [x->-id2]",
            b"\xff \xff \xff",
        ],
    )
    def test_what_cannot_be_read_is_an_error(self, text: bytes) -> None:
        with pytest.raises(ClusterAnswerError):
            parse_claims(text)


class TestTheMap:
    def test_primaries_and_owners_are_read(self) -> None:
        reply = [
            [0, 1, [b"10.0.0.1", 7000, b"id1"], [b"10.0.0.9", 7009, b"replica"]],
            [2, 2, [b"host2", 7001, b"id2", []]],
        ]
        primaries, owners = parse_slots(reply, "asked")
        assert primaries == {
            "id1": Primary("id1", "10.0.0.1", 7000),
            "id2": Primary("id2", "host2", 7001),
        }
        assert owners[:4] == ["id1", "id1", "id2", None]

    @pytest.mark.parametrize("host", [None, b""])
    def test_a_server_without_an_address_is_the_one_that_was_asked(
        self, host: bytes | None
    ) -> None:
        primaries, _ = parse_slots([[0, 0, [host, 7000, b"id1"]]], "asked")
        assert primaries["id1"].host == "asked"

    def test_a_server_whose_address_nobody_knows_is_left_out(self) -> None:
        primaries, owners = parse_slots([[0, 0, [b"?", 7000, b"id1"]]], "asked")
        assert primaries == {}
        assert owners[0] is None

    @pytest.mark.parametrize(
        "reply",
        [
            None,
            [[0]],
            [[0, 1, None]],
            [[0, 1, [b"h", b"x", b"id"]]],
            [[0, SLOTS, [b"h", 1, b"id"]]],
            [[0, 1, [b"h", 1, None]]],
        ],
    )
    def test_what_cannot_be_read_is_an_error(self, reply: object) -> None:
        with pytest.raises(ClusterAnswerError):
            parse_slots(reply, "asked")


@pytest.mark.parametrize(
    ("error", "redirect"),
    [
        ("MOVED 3999 127.0.0.1:6381", Redirect("127.0.0.1", 6381, asking=False)),
        ("ASK 3999 host.example:6381", Redirect("host.example", 6381, asking=True)),
        ("MOVED 3999 :6381", Redirect("", 6381, asking=False)),
        ("MOVED 3999 ::1:6381", Redirect("::1", 6381, asking=False)),
        ("MOVED 3999 host:", None),
        ("MOVED 3999", None),
        ("TRYAGAIN Multiple keys", None),
        ("ERR unknown", None),
    ],
)
def test_a_redirection_says_where_to(error: str, redirect: Redirect | None) -> None:
    assert parse_redirect(error) == redirect

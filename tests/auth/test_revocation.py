import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.revocation import (
    NO_EPOCH,
    UNREADABLE_EPOCH,
    Epoch,
    bucket_key,
    bucket_of,
    buckets_near,
    ended_key,
    epoch_key,
    epoch_name,
    index_key,
    later,
    milliseconds,
    parse_epoch,
    read_key,
    revoked_key,
    token_name,
    token_ref,
)
from auth.session import session_key


@pytest.mark.parametrize(
    ("epoch", "created_at", "name", "covered"),
    [
        (Epoch(100_500), 100.5, "a", True),
        (Epoch(100_500), 100.501, "a", False),
        (Epoch(100_500), 100.5009, "a", True),
        (Epoch(100_500), 100.0, "a", True),
        (Epoch(100_500), 101.0, "a", False),
        (Epoch(100_500, keep="a"), 100.0, "a", False),
        (Epoch(100_500, keep="a"), 100.0, "b", True),
        (Epoch(100_500), 100.0, "", True),
        (NO_EPOCH, 0.0, "a", False),
        (UNREADABLE_EPOCH, 9e9, "a", True),
    ],
    ids=[
        "the same moment",
        "a millisecond later",
        "later in the same millisecond",
        "a writer who counts seconds",
        "the next second",
        "the one that is kept",
        "another than the one that is kept",
        "without a name",
        "no epoch",
        "an epoch nobody can read",
    ],
)
def test_an_epoch_covers_what_was_created_up_to_it(
    epoch: Epoch, created_at: float, name: str, *, covered: bool
) -> None:
    assert epoch.covers(created_at, name) is covered


@pytest.mark.parametrize(
    ("created_at", "covered"),
    [(99.0, True), (100.0, False), (100.4, True), (100.5, True), (100.501, False), (101.0, False)],
    ids=[
        "the second before",
        "some time in the same second",
        "before it",
        "the same moment",
        "after it",
        "the next second",
    ],
)
def test_an_epoch_leaves_sessions_that_count_seconds_to_who_set_it(
    created_at: float, *, covered: bool
) -> None:
    assert Epoch(100_500).covers_session(created_at, "a") is covered


@pytest.mark.parametrize(
    ("value", "epoch"),
    [
        (None, NO_EPOCH),
        (b"1", Epoch(1)),
        (b"1 abc", Epoch(1, "abc")),
        (b"", UNREADABLE_EPOCH),
        (b"-1", UNREADABLE_EPOCH),
        (b"1.5", UNREADABLE_EPOCH),
        (b"\xff", UNREADABLE_EPOCH),
        (b"9" * 19, UNREADABLE_EPOCH),
    ],
)
def test_an_epoch_is_read_or_ends_everything(value: bytes | None, epoch: Epoch) -> None:
    assert parse_epoch(value) == epoch


@given(st.integers(0, 10**15), st.text("0123456789abcdef", max_size=64))
def test_an_epoch_reads_back_as_it_was_written(at: int, keep: str) -> None:
    epoch = Epoch(at, keep)
    assert parse_epoch(epoch.encode().encode()) == epoch


@given(st.integers(0, 4_000_000_000_000))
def test_milliseconds_survive_being_a_float_of_seconds(at: int) -> None:
    assert milliseconds(at / 1000) == at


@given(st.tuples(st.text(), st.text()), st.tuples(st.text(), st.text()))
def test_different_issuers_and_subjects_have_different_names(
    one: tuple[str, str], other: tuple[str, str]
) -> None:
    assert (epoch_name(*one) == epoch_name(*other)) is (one == other)


def test_names_of_tokens_and_epochs_do_not_meet() -> None:
    assert token_name("i", "x") != epoch_name("i", "x")


def test_the_later_epoch_is_in_force() -> None:
    assert later(Epoch(1), Epoch(2)) == Epoch(2)
    assert later(Epoch(2), Epoch(1)) == Epoch(2)
    assert later(Epoch(2, "a"), Epoch(2)) == Epoch(2, "a")


@pytest.mark.parametrize(
    ("key", "read"),
    [
        (session_key("ab"), ("name", "ab")),
        (ended_key("ab"), ("name", "ab")),
        (revoked_key("ab"), ("name", "ab")),
        (epoch_key("ab"), ("epoch", "ab")),
        ("doorward:keys", ("", "")),
        ("other", ("", "")),
    ],
)
def test_a_key_says_which_verdicts_depend_on_it(key: str, read: tuple[str, str]) -> None:
    assert read_key(key.encode()) == read


def test_a_record_and_its_tombstone_share_a_slot() -> None:
    assert session_key("ab").partition("{")[2] == ended_key("ab").partition("{")[2]


def test_tokens_without_an_id_are_told_apart_by_subject_and_time() -> None:
    def ref(subject: str, issued_at: float) -> str:
        return token_ref(
            issuer="i", subject=subject, jti="", issued_at=issued_at, expires_at=2.0
        ).name

    assert len({ref("a", 1.0), ref("b", 1.0), ref("a", 2.0)}) == 3


def test_what_is_kept_of_a_token_lies_in_a_bucket_that_is_near_its_name() -> None:
    name = token_name("https://idp", "j1")
    bucket = bucket_of(name)
    near = buckets_near(bucket)

    assert name.startswith(bucket)
    assert bucket in near
    assert len(set(near)) == len(near)
    assert {len(each) for each in near} == {len(bucket)}
    assert bucket_of(near[0]) == near[0]
    assert bucket_key(bucket).endswith(f"{bucket}}}")
    assert len({bucket_key(each) for each in near}) == len(near)


def test_the_sessions_of_two_subjects_have_two_indexes() -> None:
    assert index_key("u1") != index_key("u2")
    assert "u1" not in index_key("u1")

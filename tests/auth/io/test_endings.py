from auth.io.endings import Endings
from auth.revocation import NO_EPOCH, Epoch


def test_an_ending_is_remembered_until_nobody_can_ask() -> None:
    endings = Endings()
    endings.add("a", until=10.0)
    endings.expire(9.9)
    assert "a" in endings
    endings.expire(10.0)
    assert "a" not in endings


def test_an_ending_is_never_remembered_for_shorter() -> None:
    endings = Endings()
    endings.add("a", until=10.0)
    endings.add("a", until=5.0)
    endings.expire(6.0)
    assert "a" in endings


def test_an_epoch_never_goes_back() -> None:
    endings = Endings()
    assert endings.add_epoch("e", Epoch(5)) == Epoch(5)
    assert endings.add_epoch("e", Epoch(3)) == Epoch(5)
    assert endings.epoch_of("e", NO_EPOCH) == Epoch(5)
    assert endings.epoch_of("e", Epoch(7)) == Epoch(7)
    assert endings.epoch_of("other", NO_EPOCH) == NO_EPOCH


def test_of_two_epochs_at_one_time_the_newer_answer_counts() -> None:
    endings = Endings()
    endings.add_epoch("e", Epoch(5, keep="a"))
    assert endings.add_epoch("e", Epoch(5)) == Epoch(5)


def test_what_vanished_has_ended_once_the_store_is_another_one() -> None:
    endings = Endings()
    endings.vanish("a", now=1.0)
    assert "a" not in endings
    names, _ = endings.replay(now=2.0)
    assert "a" in names
    assert "a" in endings


def test_what_reappeared_in_the_same_store_has_not_ended() -> None:
    endings = Endings()
    endings.vanish("a", now=1.0)
    endings.reappear("a")
    assert endings.replay(now=2.0) == ({}, {})


def test_what_vanished_long_ago_is_no_matter_of_a_failover() -> None:
    endings = Endings()
    endings.vanish("a", now=1.0)
    endings.expire(now=100.0)
    assert endings.replay(now=100.0) == ({}, {})


def test_a_replay_tells_names_with_the_time_they_have_left_and_epochs() -> None:
    endings = Endings()
    endings.add("a", until=10.0)
    endings.add("over", until=4.0)
    endings.add_epoch("e", Epoch(5))
    assert endings.replay(now=4.0) == ({"a": 6.0}, {"e": Epoch(5)})

"""Ids: well formed, and no two alike."""

import re

from gateway.forwarded import continued_trace
from gateway.head import RequestHead
from gateway.io.ids import Ids
from gateway.target import Target


def test_ids_are_32_digits_and_never_come_again() -> None:
    ids = Ids()
    drawn = [ids.new_id() for _ in range(10_000)]
    assert len(set(drawn)) == len(drawn)
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in drawn)


def test_two_sources_draw_different_ids() -> None:
    assert Ids().new_id() != Ids().new_id()


def test_a_trace_that_begins_here_is_one_that_the_next_gateway_continues() -> None:
    ids = Ids()
    for _ in range(1000):
        trace = ids.new_trace()
        fields = (("traceparent", trace),)
        head = RequestHead("GET", Target("/"), "a", "a", (1, 1), fields, True)
        assert continued_trace(head) == trace

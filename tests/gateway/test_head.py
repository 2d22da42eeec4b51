"""The request head as the rest of the gateway asks it."""

from gateway.head import RequestHead
from gateway.target import Target


def head_with(
    *fields: tuple[str, str], length: int | None = None, chunked: bool = False
) -> RequestHead:
    return RequestHead(
        method="POST",
        target=Target("/"),
        host="a",
        authority="a",
        version=(1, 1),
        fields=fields,
        keep_alive=True,
        content_length=length,
        chunked=chunked,
    )


def test_fields_are_found_by_their_name_in_any_case_and_in_order() -> None:
    head = head_with(("X-A", "1"), ("B", "2"), ("x-a", "3"))
    assert head.by_name == {"x-a": ("1", "3"), "b": ("2",)}


def test_a_field_that_came_twice_has_no_single_value() -> None:
    head = head_with(("X-A", "1"), ("B", "2"), ("x-a", "3"))
    assert head.field("b") == "2"
    assert head.field("x-a") == ""
    assert head.field("c") == ""


def test_content_follows_a_length_above_zero_or_a_coding() -> None:
    assert head_with(length=1).has_body
    assert head_with(chunked=True).has_body
    assert not head_with(length=0).has_body
    assert not head_with().has_body

"""The request head as the rest of the gateway asks it."""

import msgspec
import pytest

from auth.decision import Reason
from auth.identity import Rejected
from gateway.forwarded import Client
from gateway.head import FieldSection, RequestHead
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


def test_what_is_printed_of_a_request_is_no_secret() -> None:
    head = head_with(("Cookie", "doorward=s3cret"), ("Authorization", "Bearer s3cret"))
    head = msgspec.structs.replace(head, target=Target("/x", "token=s3cret", has_query=True))
    assert repr(head) == "RequestHead(POST a /x)"


def section(**values: str) -> FieldSection:
    fields = {name.replace("_", "-"): (value,) for name, value in values.items()}
    made = FieldSection(fields)
    made.credentials = (object(), Rejected(Reason.COOKIE_AMBIGUOUS))
    made.client = (None, None, None, Client("192.0.2.1", "http", "a", False, "192.0.2.1"))
    return made


@pytest.mark.parametrize(
    ("before", "after", "keeps_credentials", "keeps_client"),
    [
        ({"cookie": "a"}, {"cookie": "a", "accept": "x"}, True, True),
        ({"cookie": "a"}, {"cookie": "b"}, False, True),
        ({"cookie": "a"}, {}, False, True),
        ({"authorization": "a"}, {"authorization": "b"}, False, True),
        ({"x_forwarded_for": "192.0.2.1"}, {"x_forwarded_for": "192.0.2.2"}, True, False),
        ({"forwarded": "for=192.0.2.1"}, {}, True, False),
        ({"host": "a"}, {"host": "b"}, True, False),
        ({"x_request_id": "1"}, {"x_request_id": "2"}, True, False),
    ],
)
def test_what_was_worked_out_is_taken_over_where_the_fields_that_say_it_are_equal(
    before: dict[str, str], after: dict[str, str], *, keeps_credentials: bool, keeps_client: bool
) -> None:
    """Else a request would go on in the name of the one before it."""
    earlier, later = section(**before), FieldSection(section(**after).by_name)
    later.take_over(earlier)
    assert later.credentials == (earlier.credentials if keeps_credentials else None)
    assert later.client == (earlier.client if keeps_client else None)

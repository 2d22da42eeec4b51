import pytest

from gateway.answer import Answer
from gateway.io.answering import answer_bytes, http_date


def test_an_answer_is_written_whole_with_its_length() -> None:
    data, content = answer_bytes(
        Answer(404, (("X-Doorward-Error", "no_route"),), b"nothing"), method="GET", keep=True
    )

    head, _, body = data.partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0] == b"HTTP/1.1 404 Not Found"
    assert b"\r\nX-Doorward-Error: no_route" in head
    assert b"\r\nContent-Length: 7" in head
    assert b"\r\nDate: " in head
    assert b"Connection" not in head
    assert (body, content) == (b"nothing", 7)


def test_head_gets_the_length_of_what_it_does_not_get() -> None:
    data, content = answer_bytes(Answer(200, (), b"content"), method="HEAD", keep=True)

    assert data.endswith(b"Content-Length: 7\r\n\r\n")
    assert content == 0


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_content_announces_none(status: int) -> None:
    data, content = answer_bytes(Answer(status), method="GET", keep=True)

    assert b"Content-Length" not in data
    assert content == 0


def test_a_connection_that_ends_is_announced() -> None:
    data, _ = answer_bytes(Answer(400), method="GET", keep=False)

    assert b"\r\nConnection: close\r\n" in data


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: x=1", "a\nb", "a\rb"])
def test_a_line_break_in_a_field_never_becomes_a_line(value: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        answer_bytes(Answer(302, (("Location", value),)), method="GET", keep=True)


def test_the_date_is_an_imf_fixdate() -> None:
    assert http_date().endswith(" GMT")
    assert len(http_date()) == len("Sun, 06 Nov 1994 08:49:37 GMT")

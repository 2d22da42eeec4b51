import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.paths import literal_path, literal_target, path_pattern, prefix


@pytest.mark.parametrize(
    "path",
    ["/", "/*", "/notes", "/notes/", "/notes/*", "/users/{user}/video/*", "/{a}", "/{a}/{b_2}/*",
     "/a.b/~c", "/.well-known/x", "/a:b@c", "/caf%C3%A9", "/a%20b", "/.doorwardx", "/x/.doorward"],
)  # fmt: skip
def test_a_path_that_can_match_is_taken_as_it_is(path: str) -> None:
    assert path_pattern(path) == path


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("", "begins with /"),
        ("notes", "begins with /"),
        ("*", "begins with /"),
        ("/a?b", "no ?"),
        ("/a#b", "no #"),
        ("//", "empty segment"),
        ("/a//b", "empty segment"),
        ("//*", "empty segment"),
        ("/a//*", "empty segment"),
        ("/a/../b", "dot segments"),
        ("/./a", "dot segments"),
        ("/..", "dot segments"),
        ("/a*", "* may only"),
        ("/a/*/b", "* may only"),
        ("/*/*", "* may only"),
        ("/{a}/x/{a}", "stands twice"),
        ("/{a}b", "one whole segment"),
        ("/{}", "one whole segment"),
        ("/{a-b}", "one whole segment"),
        ("/{1}", "one whole segment"),
        ("/a}", "one whole segment"),
        ("/café", "percent-encode"),
        ("/a b", "never arrives"),
        ("/a;b", "never arrives"),
        ("/a\\b", "never arrives"),
        ("/a%", "never arrives"),
        ("/a%zz", "never arrives"),
        ("/a\x00", "never arrives"),
        ("/a\n", "never arrives"),
        ("/%61", "write a for %61"),
        ("/%2e%2e", "write . for %2e"),
        ("/%c3%A9", "write %C3"),
        ("/%2F", "is refused"),
        ("/%5c", "is refused"),
        ("/%00", "is refused"),
        ("/%25", "is refused"),
        ("/%3B", "is refused"),
        ("/%C3", "no UTF-8"),
        ("/%C0%AF", "no UTF-8"),
        ("/.doorward", "belongs to the gateway"),
        ("/.doorward/*", "belongs to the gateway"),
        ("/.doorward/x/{y}", "belongs to the gateway"),
    ],
)
def test_a_path_that_could_never_match_is_refused(path: str, part: str) -> None:
    with pytest.raises(ValueError, match=re.escape(part)):
        path_pattern(path)


def test_a_literal_path_has_no_parameters() -> None:
    assert literal_path("/a/b%20c/") == "/a/b%20c/"
    for bad in ("/{a}", "/a/*", "/a*b", "a", "/a//b", "/a/.."):
        with pytest.raises(ValueError, match=r"[a-z]"):
            literal_path(bad)


def test_a_prefix_does_not_end_in_a_slash() -> None:
    assert prefix("/a/b") == "/a/b"
    for bad in ("/", "/a/", "", "a"):
        with pytest.raises(ValueError, match=r"[a-z]"):
            prefix(bad)


def test_a_target_may_have_a_query() -> None:
    assert literal_target("/a?x=%zz{}") == "/a?x=%zz{}"
    for bad in ("/a?b c", "/a?b#c", "/a?\\", "/a?é", "?a"):
        with pytest.raises(ValueError, match=r"[a-z]"):
            literal_target(bad)


@given(st.text(alphabet="/.%2Ee;{}*ab?#é\\ \x00", max_size=12))
def test_what_is_taken_is_printable_ascii_without_double_or_dot_segments(text: str) -> None:
    try:
        path = path_pattern("/" + text)
    except ValueError:
        return
    assert path.isascii()
    assert path.isprintable()
    assert "//" not in path
    assert not {".", "..", "*"} & set(path.removesuffix("/*").split("/"))

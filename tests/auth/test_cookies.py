"""Cookies: ours is found once or not at all, never sent on, and set as browsers want it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.cookies import (
    AMBIGUOUS,
    Ambiguous,
    clear_cookie,
    form_cookie_name,
    is_named,
    session_cookie,
    set_cookie,
    sign_in_cookie_prefix,
    without_cookies,
)
from config.model import SessionSettings

NAME = "__Host-doorward"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((), None),
        (("a=b",), None),
        ((f"{NAME}=x",), "x"),
        ((f"a=b; {NAME}=x;c=d",), "x"),
        ((f"a=b;\t{NAME} = x ",), "x"),
        (("a=b", f"{NAME}=x"), "x"),
        ((f"{NAME}=x=y",), "x=y"),
        ((f'{NAME}="x"',), '"x"'),
        ((f"{NAME}=%41",), "%41"),
        ((f"{NAME}=",), None),
        ((NAME,), None),
        ((f"={NAME}=x",), None),
        ((f"x{NAME}=x",), None),
        ((f"{NAME}x=x",), None),
        ((f"a={NAME}=x",), None),
        ((f"{NAME.lower()}=x",), None),
        ((f"{NAME.lower()}=x; {NAME}=y",), "y"),
        ((f"{NAME}=x; {NAME}=y",), AMBIGUOUS),
        ((f"{NAME}=x; {NAME}=x",), AMBIGUOUS),
        ((f"{NAME}=x", f"{NAME}=y"), AMBIGUOUS),
        ((f"{NAME}=; {NAME}=y",), AMBIGUOUS),
        (("\xd1\x81=1; %; =;;",), None),
    ],
)
def test_the_session_cookie_is_the_only_one_of_its_name(
    values: tuple[str, ...], expected: str | Ambiguous | None
) -> None:
    assert session_cookie(values, NAME) == expected


@pytest.mark.parametrize(
    ("values", "left"),
    [
        (("a=b",), "a=b"),
        (("a=b;c=d",), "a=b;c=d"),
        (("a=b", "c=d"), "a=b; c=d"),
        ((f"{NAME}=x",), ""),
        ((f"{NAME}=x; a=b",), "a=b"),
        ((f"a=b;{NAME}=x;  c=d",), "a=b; c=d"),
        ((f"a=b; {NAME}=x; c=d; {NAME}=y",), "a=b; c=d"),
        ((f"{NAME}=x", "a=b", f"{NAME}=y"), "a=b"),
        ((f"{NAME.upper()}=x; a={NAME}",), f"a={NAME}"),
        ((f"{NAME} =x",), ""),
        ((NAME,), ""),
        ((f"{NAME}=x;;",), ""),
        (("csrf=x; a=b",), "a=b"),
        ((f'a="b; {NAME}=x"; c=d',), 'a="b; c=d'),
    ],
)
def test_cookies_of_ours_do_not_go_upstream(values: tuple[str, ...], left: str) -> None:
    assert without_cookies(values, (NAME, "csrf")) == left


PAIRS = st.text(st.sampled_from(f'{NAME}ab=; \t,"'), max_size=20)
FIELDS = st.lists(
    st.one_of(PAIRS, st.sampled_from([f"{NAME}=x", f"a=b; {NAME}=y", NAME])), max_size=4
).map(tuple)


@given(FIELDS)
def test_what_is_left_holds_no_cookie_of_ours(values: tuple[str, ...]) -> None:
    left = without_cookies(values, (NAME,))
    assert session_cookie((left,), NAME) is None
    assert without_cookies((left,), (NAME,)) == left


def test_a_secure_cookie_is_one_that_a_browser_takes_with_the_host_prefix() -> None:
    settings = SessionSettings(NAME, secure=True, same_site="strict")
    assert set_cookie(settings, "abc", 60.9) == (
        f"{NAME}=abc; Max-Age=60; Path=/; HttpOnly; SameSite=Strict; Secure"
    )
    assert set_cookie(settings, "abc") == f"{NAME}=abc; Path=/; HttpOnly; SameSite=Strict; Secure"


def test_a_cleared_cookie_has_the_attributes_of_the_one_that_was_set() -> None:
    assert clear_cookie(SessionSettings("doorward", secure=False)) == (
        "doorward=; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
        "; Path=/; HttpOnly; SameSite=Lax"
    )


@pytest.mark.parametrize("value", ["", "a;b", "a b", "a\r\nb", 'a"', "a,b", "\xe9", "a" * 1025])
def test_a_value_that_could_end_the_cookie_is_not_set(value: str) -> None:
    with pytest.raises(ValueError, match="URL-safe"):
        set_cookie(SessionSettings("doorward", secure=False), value)


@pytest.mark.parametrize(
    ("field", "left"),
    [
        ("a=1; doorward-sign-in-x7=s; b=2", "a=1; b=2"),
        ("Doorward-Sign-In-x7=s", ""),
        ("doorward-sign-in-x7", ""),
        ("a=doorward-sign-in-; b=2", "a=doorward-sign-in-; b=2"),
        ("x-doorward-sign-in-=1", "x-doorward-sign-in-=1"),
        ("doorward-sign=1", "doorward-sign=1"),
    ],
)
def test_a_name_with_a_star_takes_every_cookie_that_begins_so(field: str, left: str) -> None:
    assert without_cookies((field,), ("doorward", "doorward-sign-in-*")) == left


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("doorward", True),
        ("DOORWARD", True),
        ("doorward-sign-in-1", True),
        ("Doorward-SIGN-in-1", True),
        ("doorward-2", False),
        ("", False),
    ],
)
def test_a_name_is_compared_without_case(name: str, *, named: bool) -> None:
    assert is_named(name, ("doorward", "doorward-sign-in-*")) is named


def test_the_cookies_of_a_sign_in_are_as_safe_from_siblings_as_the_session() -> None:
    assert sign_in_cookie_prefix("__Host-doorward").startswith("__Host-")


@pytest.mark.parametrize(
    ("session", "form", "sign_in"),
    [
        ("__Host-doorward", "__Secure-doorward-form", "__Host-doorward-sign-in-"),
        ("doorward", "doorward-form", "doorward-sign-in-"),
    ],
)
def test_the_other_cookies_are_as_well_guarded_as_their_names_allow(
    session: str, form: str, sign_in: str
) -> None:
    assert form_cookie_name(session) == form
    assert sign_in_cookie_prefix(session) == sign_in

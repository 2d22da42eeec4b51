"""Cookies that bind a sign-in to the browser that began it."""

from auth.cookies import without_cookies
from auth.identity import ABSENT
from auth.login.browser_binding import BrowserBinding, returned_state
from auth.login.messages import LoginRequest
from auth.login.provenance import FormTokens
from auth.login.visit import Visit, Visits
from tests.auth.login.conftest import SECRET, configured

SETTINGS = configured()


def visit(cookies: dict[str, str], **query: str) -> Visit:
    request = LoginRequest(
        method="GET",
        path="/.doorward/login",
        query=query,
        form={},
        cookies=cookies,
        fields={},
        client_address="192.0.2.1",
        caller=ABSENT,
    )
    return Visits(SETTINGS, FormTokens(SECRET)).receive(request)


def jar(fields: tuple[tuple[str, str], ...]) -> dict[str, str]:
    pairs = (value.partition(";")[0].split("=", 1) for _, value in fields)
    return {name: value for name, value in pairs if value}


def test_every_sign_in_of_a_browser_has_a_value_of_its_own() -> None:
    binding = BrowserBinding(SETTINGS.session)
    one, other = binding.begin(visit({})), binding.begin(visit({}))
    browser = visit(jar(one[2]) | jar(other[2]))
    assert binding.value(browser, one[0]) == one[1]
    assert binding.value(browser, other[0]) == other[1]
    assert binding.value(visit({}), one[0]) == ""
    assert binding.end(one[0])[0][1].startswith(one[2][0][1].partition("=")[0] + "=; Max-Age=0;")


def test_of_too_many_sign_ins_the_oldest_is_forgotten_and_nothing_else() -> None:
    binding = BrowserBinding(SETTINGS.session)
    kept = {"__Host-doorward-sign-in-device": "d", "__Host-doorward": "s"}
    cookies = dict(kept)
    for _ in range(20):
        cookies |= jar(binding.begin(visit(cookies))[2])
    assert len(cookies) == 22
    _, _, fields = binding.begin(visit(cookies))
    gone = [value.partition("=")[0] for _, value in fields if "Max-Age=0" in value]
    assert gone == [name for name in cookies if name not in kept][:1]

    more = {f"__Host-doorward-sign-in-{number:012x}": "v" for number in range(30)}
    _, _, fields = binding.begin(visit(more))
    gone = [value.partition("=")[0] for _, value in fields if "Max-Age=0" in value]
    assert gone == list(more)[:11]  # of tabs that were opened all at once


def test_no_upstream_sees_such_a_cookie() -> None:
    (name,) = jar(BrowserBinding(SETTINGS.session).begin(visit({}))[2])
    assert without_cookies((f"{name}=x; a=b",), ("__Host-doorward-sign-in-*",)) == "a=b"


def test_a_state_of_any_length_is_not_looked_at() -> None:
    assert returned_state(visit({}, state="s" * 256)) == "s" * 256
    assert returned_state(visit({}, state="s" * 257)) == ""
    assert returned_state(visit({})) == ""

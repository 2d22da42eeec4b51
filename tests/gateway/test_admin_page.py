import pytest

from config.model import AccessRule, Match, Route
from gateway.admin_page import ROUTES_SHOWN, describe_access, render_dashboard

STATUS = {
    "version": "1.2.3",
    "file": "/etc/<routes>.yaml",
    "generation": 4,
    "reload": {"ok": False, "problems": ["routes.yaml:1:2: <b>bad</b>"]},
    "store": {"ok": True},
    "lease": {"age": 0.1, "configured": 0.5},
    "workers": [
        {"slot": 0, "process": 7, "generation": 4, "alive": True, "responsive": True, "uptime": 1.0}
    ],
}


def route(number: int) -> Route:
    return Route(f"r{number}", Match(f"/{number}"), "app", AccessRule("public"))


def test_what_comes_from_a_file_is_text_and_never_markup() -> None:
    page, _ = render_dashboard(STATUS, [route(1)])
    assert b"<b>bad" not in page
    assert b"&lt;b&gt;bad" in page
    assert b"<routes>" not in page


def test_the_policy_lets_nothing_run_and_nothing_load() -> None:
    page, policy = render_dashboard(STATUS, [])
    assert "default-src 'none'" in policy
    assert "script" not in policy
    assert b"<script" not in page


def test_a_long_table_is_cut_and_says_so() -> None:
    page, _ = render_dashboard(STATUS, [route(n) for n in range(ROUTES_SHOWN + 3)])
    assert page.count(b"<td>app</td>") == ROUTES_SHOWN
    assert b"3 more" in page


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (AccessRule("public"), "public"),
        (AccessRule("signed-in"), "signed-in"),
        (AccessRule("signed-in", roles=frozenset({"b", "a"})), "roles: a, b"),
        (
            AccessRule("signed-in", scopes=frozenset({"s"}), when="true"),
            "scopes: s; when true",
        ),
        (AccessRule("signed-in", acr=("phr", "mfa"), max_age=5.0), "acr: mfa, phr; max_age: 5s"),
    ],
)
def test_a_rule_is_described_in_a_few_words(rule: AccessRule, words: str) -> None:
    assert describe_access(rule) == words

"""The pages as a browser and a screen reader find them."""

import hashlib
import re
from base64 import b64encode

import jinja2
import msgspec
import pytest

from auth.login.answers import Link
from auth.login.app_secret import NewSecret
from auth.login.factors import OwnFactors
from auth.login.look import Look
from auth.login.pages import NAMES, Pages, moment, page_problems, pages_of
from auth.login.passkey import Passkey
from auth.login.totp import qr_code
from auth.wording import built_in
from config.model import PageSettings
from tests.auth.login.conftest import configured
from tests.auth.login.page_reader import PageReader

NOW = 1_790_000_000.0
EVIL = "\"><script>alert(1)</script>'&"

BASE: dict[str, object] = {
    "problem": "",
    "advice": "",
    "faulty": (),
    "reference": "",
    "token": "token",
    "signed_in_as": "Ada",
    "login_path": "/.doorward/login",
    "logout_path": "/.doorward/logout",
    "sessions_path": "/.doorward/sessions",
    "account_path": "/.doorward/account",
    "passkey_script": "",
}
WITH = {"passkey_script": "/.doorward/passkeys.js"}
FORM: dict[str, object] = {
    "action": "/.doorward/login",
    "return_to": "/notes/1",
    "username": "",
    "username_limit": 256,
    "faults": {"username": "", "password": ""},
    "wrong": False,
    "email": "",
    "takes_passwords": True,
    "by_address": True,
    "once_more": False,
    "providers": [],
    "forgot_path": "/.doorward/forgot-password",
    "register_path": "/.doorward/register",
}
CORP = {"label": "Example Corp", "url": "/.doorward/login?provider=corp"}
CODE = {"label": "Code & Co", "url": "/.doorward/login?provider=code"}
FRONT = Link("/", "Front")
PROVIDER = "https://idp.example.com/end?"
ONWARD: dict[str, object] = {"onward": {"label": "Example Corp", "url": f"{PROVIDER}a=1&b=2"}}
MISSING = {"faults": {"username": "Enter it.", "password": "Enter it."}, "problem": "Missing."}
WRONG = {"username": "ada", "wrong": True, "problem": "Wrong.", "advice": "Again."}
ROWS = [
    {
        "digest": letter * 64,
        "device": "Firefox on Linux" if letter == "a" else "",
        "place": "192.0.2.1" if letter == "a" else "",
        "since": moment(NOW - 7300, NOW),
        "seen": seen,
        "until": moment(NOW + 9000, NOW),
        "current": letter == "a",
    }
    for letter, seen in (("a", moment(NOW - 5, NOW)), ("b", None))
]
FORGOT = {"action": "/.doorward/forgot-password", "username": "", "username_limit": 256}
REGISTER = {"action": "/.doorward/register", "email": "", "name": "", "limit": 256}
SET_PASSWORD = {
    "action": "/.doorward/set-password",
    "link": "secret",
    "username": "ada",
    "least": 8,
    "is_new": False,
}
KEPT_FORM: dict[str, object] = {
    "action": "/.doorward/form",
    "form_id": "0123456789ab",
    "send_to": "https://app.example.com/notes?a=b",
    "path": "/notes",
    "has_query": True,
    "sent_fields": [
        {"name": "text", "value": "milk & bread", "shown": "milk & bread"},
        {"name": "new-password", "value": "hush", "shown": ""},
    ],
}
REASON: dict[str, object] = {
    "status": "",
    "heading": "No",
    "explanation": "Because.",
    "explanation_language": "",
    "reference": "r-1",
    "links": [FRONT],
}
OWN = OwnFactors(totp_since=NOW - 7300, recovery_codes=1, required=True)
FACTOR: dict[str, object] = {
    "action": "/.doorward/second-factor",
    "login": "ada",
    "own": OWN,
    "wrong": False,
    "must": False,
    "takes_codes": True,
    "return_to": "/notes/1",
    "secret": NewSecret("sealed", "ABCD EFGH", qr_code("otpauth://totp/a"), "otpauth://totp/a"),
}
ACCOUNT: dict[str, object] = {
    "login": "ada",
    "own": OWN,
    "totp_since": moment(NOW - 7300, NOW),
    "password_path": "/.doorward/account/password",
    "authenticator_path": "/.doorward/account/authenticator",
    "recovery_codes_path": "/.doorward/account/recovery-codes",
    "passkeys_path": "/.doorward/account/passkeys",
    "notice": "Done.",
}
PASSWORD: dict[str, object] = {
    "action": "/.doorward/account/password",
    "login": "ada",
    "own": OWN,
    "least": 8,
}
UNFIT: dict[str, object] = {
    "faulty": ("password", "again", "new_password", "new_password_again"),
    "problem": "Short.",
}
KEY = Passkey(
    "a",
    "u1",
    "My phone",
    b"",
    0,
    (),
    "",
    backup_eligible=True,
    backed_up=True,
    created_at=NOW - 86_400,
)
BOTH = OwnFactors(totp_since=NOW, recovery_codes=9, passkeys=(KEY,))
ALONE = OwnFactors(recovery_codes=9, passkeys=(KEY, KEY), passwordless=True)
PASSKEYS: dict[str, object] = {
    "action": "/.doorward/account/passkeys",
    "own": BOTH,
    "passkeys": [
        {
            "id": letter,
            "name": name,
            "synced": letter == "a",
            "since": moment(NOW - 86_400 * 40, NOW),
            "used": moment(NOW - 5, NOW) if letter == "a" else None,
        }
        for letter, name in (("a", "My phone"), ("b", "The key on my ring"))
    ],
    "name_limit": 60,
    "suggested": "Firefox on Linux",
    "return_to": "/.doorward/account/passkeys",
    "has_accounts": True,
    "place": "https://app.example.com/.doorward/account/passkeys",
    "notice": "",
}
SHOWN: dict[str, tuple[str, dict[str, object]]] = {
    "sign-in": ("login", FORM | {"signed_in_as": ""}),
    "sign-in-again": ("login", FORM),
    "sign-in-missing": ("login", FORM | MISSING),
    "sign-in-wrong": ("login", FORM | WRONG),
    "sign-in-alone": ("login", FORM | {"forgot_path": "", "register_path": ""}),
    "sign-in-providers": ("login", FORM | {"signed_in_as": "", "providers": [CORP, CODE]}),
    "sign-in-provider-down": (
        "login",
        FORM | {"providers": [CORP], "takes_passwords": False, "problem": "No answer."},
    ),
    "signed-in": ("onward", {"onward": "/notes/1", "is_in": True}),
    "onward": ("onward", {"onward": "/notes/1", "is_in": False}),
    "sign-out": ("logout", {}),
    "sign-out-foreign": ("logout", {"problem": "Foreign.", "signed_in_as": ""}),
    "signed-out": ("signed_out", {"ended": 1, "everywhere": False}),
    "signed-out-everywhere": ("signed_out", {"ended": 3, "everywhere": True}),
    "signed-out-onward": ("signed_out", ONWARD | {"ended": 1, "everywhere": False}),
    "signed-out-returned": ("signed_out", {"ended": 0, "everywhere": False, "returned": True}),
    "sessions": ("sessions", {"sessions": ROWS, "notice": "Ended."}),
    "sessions-one": ("sessions", {"sessions": ROWS[:1], "notice": "", "problem": "Gone."}),
    "forgot-password": ("forgot_password", FORGOT),
    "forgot-password-missing": (
        "forgot_password",
        FORGOT | {"faulty": ("username",), "problem": "Missing."},
    ),
    "register": ("register", REGISTER),
    "register-wrong": (
        "register",
        REGISTER | {"email": "a", "faulty": ("email",), "problem": "No."},
    ),
    "set-password": ("set_password", SET_PASSWORD),
    "set-password-new": ("set_password", SET_PASSWORD | {"is_new": True}),
    "set-password-wrong": ("set_password", SET_PASSWORD | UNFIT | {"advice": "8."}),
    "done": ("done", {"heading": "Done", "explanation": "It is done.", "sign_in": ""}),
    "done-sign-in": ("done", {"heading": "Done", "explanation": "D.", "sign_in": "/.doorward"}),
    "once-more": ("login", FORM | {"once_more": True}),
    "second-factor": ("second_factor", FACTOR),
    "second-factor-wrong": ("second_factor", FACTOR | {"faulty": ("code",), "problem": "Wrong."}),
    "second-factor-recovery": (
        "second_factor",
        FACTOR | {"faulty": ("recovery_code",), "problem": "Wrong."},
    ),
    "sign-in-address": ("login", FORM | {"faulty": ("email",), "email": "a@b", "problem": "No."}),
    "authenticator": ("authenticator", FACTOR | {"own": OwnFactors()}),
    "authenticator-again": ("authenticator", FACTOR),
    "authenticator-must": (
        "authenticator",
        FACTOR | {"must": True, "wrong": True, "problem": "Wrong."},
    ),
    "authenticator-must-passkey": ("authenticator", FACTOR | WITH | {"must": True}),
    "recovery-codes": ("recovery_codes", {"codes": ["abcd-efgh"], "return_to": "/notes/1"}),
    "password": ("password", PASSWORD),
    "password-wrong": ("password", PASSWORD | {"faulty": ("password",), "problem": "Wrong."}),
    "password-unfit": ("password", PASSWORD | UNFIT),
    "sign-in-passkey": ("login", FORM | WITH | {"signed_in_as": ""}),
    "second-factor-passkey": ("second_factor", FACTOR | WITH | {"own": BOTH}),
    "second-factor-passkey-only": (
        "second_factor",
        FACTOR | WITH | {"own": BOTH, "takes_codes": False, "problem": "No."},
    ),
    "second-factor-elsewhere": ("second_factor", FACTOR | {"own": ALONE}),
    "passkeys": ("passkeys", PASSKEYS | WITH | {"notice": "Done."}),
    "passkeys-first": (
        "passkeys",
        PASSKEYS | WITH | {"own": OwnFactors(), "passkeys": [], "problem": "No."},
    ),
    "passkeys-alone": ("passkeys", PASSKEYS | {"own": ALONE}),
    "passkeys-no-codes": (
        "passkeys",
        PASSKEYS | WITH | {"own": OwnFactors(passkeys=(KEY,)), "place": ""},
    ),
    "password-first": ("password", PASSWORD | {"own": ALONE}),
    "account-alone": ("account", ACCOUNT | {"own": ALONE, "totp_since": None}),
    "account": ("account", ACCOUNT),
    "account-plain": ("account", ACCOUNT | {"own": OwnFactors(), "totp_since": None}),
    "account-refused": (
        "account",
        ACCOUNT | {"own": OwnFactors(required=True), "totp_since": None, "problem": "No."},
    ),
    "kept-form": ("kept_form", KEPT_FORM),
    "error": ("error", REASON),
    "error-again": (
        "error",
        REASON | {"links": [Link("/.doorward/login?a=b", "Again"), FRONT], "status": 403},
    ),
}


@pytest.fixture(scope="module")
def pages() -> Pages:
    return Pages(Look("app.example.com"))


@pytest.fixture(params=SHOWN, ids=str)
def page(request: pytest.FixtureRequest, pages: Pages) -> PageReader:
    name, values = SHOWN[request.param]
    return PageReader(pages.render(name, BASE | values))


def test_every_page_is_among_those_that_are_looked_at() -> None:
    assert {name for name, _ in SHOWN.values()} == set(NAMES)


@pytest.mark.parametrize("shown", SHOWN)
def test_every_page_is_there_in_german_and_has_the_same_elements(pages: Pages, shown: str) -> None:
    name, values = SHOWN[shown]
    english = PageReader(pages.render(name, BASE | values))
    german = PageReader(pages.render(name, BASE | values, built_in()["de"]))
    assert german.faults == []
    assert german.one("html").attributes["lang"] == "de"
    assert [each.tag for each in german.elements] == [each.tag for each in english.elements]
    assert german.text_of(german.one("title")) != english.text_of(english.one("title")) or (
        name in {"error", "done", "passkeys"}  # whose words are values, or the same
    )


def test_every_tag_is_closed_and_no_form_stands_in_a_form(page: PageReader) -> None:
    assert page.faults == []


def test_every_page_has_a_language_a_title_one_main_and_one_heading(page: PageReader) -> None:
    assert page.one("html").attributes["lang"] == "en"
    assert page.text_of(page.one("title")).endswith(" app.example.com")
    assert len([*page.all("main")]) == 1
    assert page.text_of(page.one("h1"))


def test_every_input_has_a_label(page: PageReader) -> None:
    labelled = {label.attributes["for"] for label in page.all("label")}
    for element in page.all("input"):
        if element.attributes.get("type") != "hidden":
            assert element.attributes["id"] in labelled


def test_every_button_says_what_it_does(page: PageReader) -> None:
    for element in page.all("button"):
        assert element.attributes["type"] == "submit"
        assert element.attributes.get("aria-label") or page.text_of(element)


def test_every_description_is_there(page: PageReader) -> None:
    for element in page.elements:
        for name in element.attributes.get("aria-describedby", "").split():
            assert page.text_of(page.by_id(name))


def test_no_id_is_given_twice(page: PageReader) -> None:
    ids = [each.attributes["id"] for each in page.elements if "id" in each.attributes]
    assert len(ids) == len(set(ids))


def test_nothing_disturbs_the_order_of_the_keyboard(page: PageReader) -> None:
    assert not [each for each in page.elements if "tabindex" in each.attributes]
    assert len([each for each in page.elements if "autofocus" in each.attributes]) <= 1


def test_a_page_loads_nothing_and_runs_nothing_but_our_script(page: PageReader) -> None:
    for element in page.elements:
        assert element.tag not in {"img", "link", "iframe", "object", "base"}
        if element.tag == "script":
            # Ours, where passkeys are; what it may do, the policy of that page says.
            assert element.attributes == {"src": WITH["passkey_script"], "defer": ""}
            assert page.text_of(element) == ""
            continue
        for name, value in element.attributes.items():
            assert not name.startswith("on")
            assert name not in {"src", "srcset", "style"}
            assert name != "href" or value.startswith(("/", PROVIDER))


def test_every_form_is_sent_to_us_with_its_token(page: PageReader) -> None:
    for number, form in enumerate(page.all("form"), start=1):
        if form.attributes["action"] == KEPT_FORM["send_to"]:
            assert "token" not in page.inputs(number)  # goes on to a backend, as it came
            continue
        assert form.attributes["method"] == "post"
        assert form.attributes["action"].startswith("/.doorward/")
        assert page.inputs(number)["token"] == "token"


def test_what_needs_a_script_is_hidden_without_one(page: PageReader) -> None:
    for form in page.all("form"):
        assert ("data-passkey" in form.attributes) == ("hidden" in form.attributes)


def test_only_a_page_with_a_script_allows_one_and_just_that(pages: Pages) -> None:
    script, connect = "https://app.example.com/a.js", "https://app.example.com/.doorward/"
    plain = dict(pages.fields)
    scripted = dict(pages.fields_with(script=script, connect=connect))
    name = "Content-Security-Policy"
    assert "script-src" not in plain[name]
    assert "connect-src" not in plain[name]
    assert scripted[name] == f"{plain[name]}; script-src {script}; connect-src {connect}"
    assert {**scripted, name: ""} == {**plain, name: ""}


def test_password_managers_know_the_fields(pages: Pages) -> None:
    page = PageReader(pages.render("login", BASE | FORM))
    assert page.by_id("username").attributes["autocomplete"] == "username"
    assert page.by_id("password").attributes["autocomplete"] == "current-password"
    assert page.by_id("password").attributes["type"] == "password"
    assert "value" not in page.by_id("password").attributes


@pytest.mark.parametrize(
    ("values", "where"),
    [({}, "username"), (WRONG, "password"), (MISSING, "username")],
    ids=["empty", "wrong", "missing"],
)
def test_the_keyboard_starts_where_something_is_to_be_typed(
    pages: Pages, values: dict[str, object], where: str
) -> None:
    page = PageReader(pages.render("login", BASE | FORM | values))
    (focused,) = (each for each in page.elements if "autofocus" in each.attributes)
    assert focused.attributes["id"] == where


@pytest.mark.parametrize("values", [WRONG, MISSING], ids=["wrong", "missing"])
def test_a_field_with_a_fault_says_so_to_a_screen_reader(
    pages: Pages, values: dict[str, object]
) -> None:
    page = PageReader(pages.render("login", BASE | FORM | values))
    for name in ("username", "password"):
        element = page.by_id(name)
        assert element.attributes["aria-invalid"] == "true"
        assert page.text_of(page.by_id(element.attributes["aria-describedby"]))
    assert page.by_id("problem").attributes["role"] == "alert"


def test_the_policy_names_the_style_that_stands_in_the_page(pages: Pages) -> None:
    page = pages.render("login", BASE | FORM)
    (style,) = re.findall(rb"<style>(.*?)</style>", page, re.DOTALL)
    policy = dict(pages.fields)["Content-Security-Policy"]
    assert f"'sha256-{b64encode(hashlib.sha256(style).digest()).decode()}'" in policy


def test_the_policy_allows_nothing_else(pages: Pages) -> None:
    policy = dict(pages.fields)["Content-Security-Policy"]
    directives = dict(part.split(" ", 1) for part in policy.split("; "))
    assert directives.pop("style-src").startswith("'sha256-")
    assert directives == {
        "default-src": "'none'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
    }


def colours_of(page: bytes, scheme: str) -> dict[str, str]:
    """The custom properties of the style sheet for the light or the dark scheme."""
    light, dark = re.findall(rb":root \{(.*?)\}", page, re.DOTALL)[:2]
    found = re.findall(rb"--([a-z-]+): (#[0-9a-f]{6});", light if scheme == "light" else dark)
    return {name.decode(): value.decode() for name, value in found}


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("above", "below", "least"),
    [
        ("text", "card", 4.5),
        ("text", "ground", 4.5),
        ("quiet", "card", 4.5),
        ("quiet", "ground", 4.5),
        ("accent", "card", 4.5),
        ("on-accent", "accent", 4.5),
        ("on-accent", "accent-strong", 4.5),
        ("alarm", "alarm-ground", 4.5),
        ("alarm", "card", 4.5),
        ("good", "good-ground", 4.5),
        ("edge", "card", 3.0),
    ],
)
def test_every_text_and_every_edge_stands_out(
    pages: Pages, scheme: str, above: str, below: str, least: float
) -> None:
    """WCAG 2.2, 1.4.3 and 1.4.11 at level AA."""
    colours = colours_of(pages.render("login", BASE | FORM), scheme)
    dark, light = sorted((luminance(colours[above]), luminance(colours[below])))
    assert (light + 0.05) / (dark + 0.05) >= least


def test_a_form_of_ours_is_not_made_to_say_that_it_comes_from_nowhere(pages: Pages) -> None:
    """`no-referrer` makes browsers send `Origin: null` with a form, which we refuse."""
    assert dict(pages.fields)["Referrer-Policy"] == "strict-origin"


@pytest.mark.parametrize("name", ["return_to", "username", "token", "signed_in_as", "problem"])
def test_what_somebody_else_wrote_is_text_and_never_markup(pages: Pages, name: str) -> None:
    body = pages.render("login", BASE | FORM | {name: EVIL})
    page = PageReader(body)
    assert page.faults == []
    assert not [*page.all("script")]
    assert b"<script" not in body
    shown = page.text + "".join(str(each.attributes) for each in page.elements)
    assert "alert(1)" in shown


@pytest.mark.parametrize("language", sorted(built_in()))
@pytest.mark.parametrize("name", ["signed_in_as", "return_to"])
def test_what_somebody_else_wrote_stays_text_within_a_translation(
    pages: Pages, name: str, language: str
) -> None:
    body = pages.render("login", BASE | FORM | {name: f"{EVIL}%(x)s"}, built_in()[language])
    assert PageReader(body).faults == []
    assert b"<script" not in body


def test_a_value_that_is_missing_is_found_at_once(pages: Pages) -> None:
    with pytest.raises(jinja2.UndefinedError):
        pages.render("login", BASE)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "just now"),
        (0, "just now"),
        (59, "just now"),
        (60, "1 minute ago"),
        (150, "2 minutes ago"),
        (3600, "1 hour ago"),
        (7300, "2 hours ago"),
        (86_399, "23 hours ago"),
        (200_000, "2 days ago"),
    ],
)
def test_a_time_is_told_in_the_words_of_a_person(seconds: float, words: str) -> None:
    assert moment(NOW - seconds, NOW).ago == words


def test_a_time_is_told_to_the_minute_and_for_programs() -> None:
    shown = moment(NOW, NOW)
    assert shown.iso == "2026-09-21T14:13:20Z"
    assert shown.text == "21 Sept 2026, 14:13 UTC"


# The operator's own -----------------------------------------------------------------------------

LOGO = "data:image/svg+xml;base64,PHN2Zy8+"


def own(**templates: str) -> Look:
    return Look(
        "Example Corp", templates={f"{name}.html": text for name, text in templates.items()}
    )


def test_a_site_that_looks_the_same_has_its_pages_compiled_once() -> None:
    first = pages_of(Look("Example Corp", templates={"logout.html": "x"}))
    assert pages_of(Look("Example Corp", templates={"logout.html": "x"})) is first
    for other in (
        Look("Example Inc", templates={"logout.html": "x"}),
        Look("Example Corp", templates={"logout.html": "y"}),
        Look("Example Corp", logo=LOGO),
    ):
        assert pages_of(other) is not first


def test_a_logo_is_shown_in_place_of_the_door_and_nothing_else_may_be_loaded() -> None:
    pages = Pages(Look("Example Corp", logo=LOGO))
    page = PageReader(pages.render("login", BASE | FORM))
    assert page.one("img").attributes == {"src": LOGO, "alt": ""}
    assert not [*page.all("svg")]
    assert "img-src data:; " in dict(pages.fields)["Content-Security-Policy"]


def test_a_template_of_theirs_is_shown_in_place_of_ours() -> None:
    body = '{% extends "base.html" %}{% block title %}T{% endblock %}{% block content %}<h1>Hi</h1>'
    pages = Pages(own(logout=body + "{{ signed_in_as }}{% endblock %}"))
    assert b"<h1>Hi</h1>&lt;b&gt;" in pages.render("logout", BASE | {"signed_in_as": "<b>"})
    assert b"Use your account" in pages.render("login", BASE | FORM | {"signed_in_as": ""})


def test_a_base_of_theirs_is_around_every_page() -> None:
    base = "<html><main>{% block content %}{% endblock %}</main><footer>Imprint</footer>"
    for name, values in SHOWN.values():
        assert b"<footer>Imprint" in Pages(own(base=base)).render(name, BASE | values)


def test_a_page_of_theirs_that_cannot_be_shown_is_ours_and_somebody_hears_of_it() -> None:
    heard: list[str] = []
    pages = Pages(
        own(logout="{{ token.nothing.at_all }}"),
        on_fault=lambda name, error: heard.append(f"{name}: {type(error).__name__}"),
    )
    assert b"Sign out?" in pages.render("logout", BASE)
    assert heard == ["logout: UndefinedError"]


def test_what_is_wrong_with_their_files_is_told_with_its_place() -> None:
    files = (
        ("fr.po", 'msgid "x"\nmsgstr "%(y)s"\n'),
        ("login.html", "\n{{ nobody }}"),
        ("other.css", "p {}"),
        ("style.css", "p {}\n</style>"),
    )
    settings = PageSettings(folder="/etc/own", files=files)
    problems = page_problems(msgspec.structs.replace(configured(), pages=settings))
    assert sorted(problem.at("routes.yaml").partition(": ")[0] for problem in problems) == [
        "/etc/own/fr.po:1:1",
        "/etc/own/login.html:2:1",
        "/etc/own/other.css:1:1",
        "/etc/own/style.css:2:1",
    ]
    assert page_problems(configured()) == []


def test_nobody_needs_to_hear_of_a_fault_in_their_page() -> None:
    assert b"Sign out?" in Pages(own(logout="{{ token.nothing.at_all }}")).render("logout", BASE)

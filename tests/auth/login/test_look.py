"""What one site has of its own."""

import msgspec
import pytest

from auth.login.look import Look, our_style, our_templates, wording_problems, wordings_of
from config.colours import contrast
from config.model import Configuration, PageSettings
from tests.auth.login.conftest import configured

FRENCH = 'msgid "Sign in"\nmsgstr "Se connecter"\n'


def with_pages(**settings: object) -> Configuration:
    pages = PageSettings(**settings)  # type: ignore[arg-type]
    return msgspec.structs.replace(configured(), pages=pages)


def test_without_settings_the_look_is_ours() -> None:
    assert Look.of(configured()) == Look("app.example.com", our_style())


def test_the_name_stands_in_place_of_the_authority() -> None:
    assert Look.of(with_pages(name="Example Corp")).site == "Example Corp"


def test_an_accent_colours_the_light_page_and_a_shade_of_it_the_dark_one() -> None:
    added = Look.of(with_pages(accent="#7a1f5c")).style.removeprefix(our_style())
    light, _, dark = added.partition("@media (prefers-color-scheme: dark)")
    assert "--accent: #7a1f5c; --accent-strong: #62194a; --on-accent: #ffffff;" in light
    shade = dark.partition("--accent: ")[2][:7]
    assert contrast(shade, "#1b1f27") >= 4.5
    assert "#7a1f5c" not in dark


def test_the_dark_accent_may_be_given_by_itself() -> None:
    added = Look.of(with_pages(accent_dark="#ffcc00")).style.removeprefix(our_style())
    assert added.strip().startswith("@media (prefers-color-scheme: dark)")
    assert "--accent: #ffcc00" in added


@pytest.mark.parametrize("accent", ["#2c56c4", "#7a1f5c", "#000000", "#6b6b00", "#b00020"])
def test_what_stands_on_a_button_can_be_read_also_while_it_is_pointed_at(accent: str) -> None:
    style = Look.of(with_pages(accent=accent)).style.removeprefix(our_style())
    for rule in style.split(":root")[1:]:
        values = dict(each.split(": ") for each in rule.strip(" {}\n").split(";")[:3] if each)
        found = {name.strip(): value for name, value in values.items()}
        for ground in ("--accent", "--accent-strong"):
            assert contrast(found[ground], found["--on-accent"]) >= 4.5


def test_a_style_sheet_of_their_own_is_in_place_of_ours_and_gets_the_colours_too() -> None:
    look = Look.of(with_pages(files=(("style.css", "p {}"),), accent="#7a1f5c"))
    assert look.style.startswith("p {}\n:root { --accent: #7a1f5c")


def test_a_catalogue_adds_a_language_and_rewords_one() -> None:
    german = 'msgid "Sign in"\nmsgstr "Einloggen"\n'
    configuration = with_pages(files=(("de.po", german), ("fr.po", FRENCH)), language="fr")
    assert wording_problems(configuration) == []
    wordings = wordings_of(configuration)
    assert wordings.languages == ("de", "en", "fr")
    assert wordings.choose("").language == "fr"
    assert wordings.choose("de").say("Sign in") == "Einloggen"
    assert wordings.choose("de").say("Sign out") == "Abmelden"


@pytest.mark.parametrize(
    ("files", "language", "place"),
    [
        ((("fr.po", 'msgid "x"\nmsgstr "%(y)s"\n'),), "en", "own/fr.po:1:1: "),
        ((("xx.po", FRENCH),), "en", "own/xx.po:1:1: "),
        ((("fr.po", FRENCH), ("it.po", "nonsense")), "en", "own/it.po:1:1: "),
        ((("fr.po", FRENCH),), "it", "routes.yaml:1:1: pages.language: there is de, en, fr"),
    ],
    ids=["values", "no-language", "malformed", "default"],
)
def test_what_is_wrong_with_the_languages_is_told(
    files: tuple[tuple[str, str], ...], language: str, place: str
) -> None:
    (problem,) = wording_problems(with_pages(files=files, language=language, folder="own"))
    assert problem.at("routes.yaml").startswith(place)


def test_every_template_of_ours_is_there_with_its_text() -> None:
    templates = our_templates()
    assert {"base.html", "login.html", "error.html"} <= set(templates)
    assert all(text.strip() for text in templates.values())

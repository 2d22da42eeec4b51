"""The languages of the pages."""

import re
from datetime import UTC, datetime

import pytest

from auth.wording import (
    ENGLISH,
    CatalogueError,
    Wording,
    Wordings,
    built_in,
    locale_of,
    phrase,
    placeholders,
    read_wording,
    site_wordings,
)
from tests.auth.phrases import LANGUAGES, lacking, phrases

SITE = Wordings([ENGLISH, Wording("de"), Wording("pt-BR"), Wording("zh-Hant")])
OURS = sorted(path.stem for path in LANGUAGES.glob("*.po"))


def catalogue(text: str) -> str:
    return f'msgid ""\nmsgstr "Content-Type: text/plain; charset=utf-8\\n"\n\n{text}'


# Every text in every language -------------------------------------------------------------------


def test_german_is_among_the_languages() -> None:
    assert set(built_in()) == {"en", *OURS}
    assert "de" in OURS


@pytest.mark.parametrize("language", OURS)
def test_a_catalogue_has_every_text_and_none_that_nobody_says(language: str) -> None:
    """`python -m tests.auth.phrases` adds what is missing, and takes out what is not said."""
    assert lacking(language) == []


def test_a_text_has_values_that_every_language_can_place() -> None:
    """`{name}` and `%s` would be shown as they stand, or not at all."""
    for text, where in phrases().items():
        assert "?" not in placeholders(text), where
        assert not re.search(r"\{\w*\}", text), where


def test_the_texts_are_found_in_templates_modules_and_counts() -> None:
    found = phrases()
    for text in ("Sign out?", "You may not see this", "Enter your password.", "just now"):
        assert text in found
    assert found["One other session has ended."].plural == "%(num)s other sessions have ended."
    assert "%(detail)s" not in found


# Which language ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "language"),
    [
        ("", "en"),
        ("*", "en"),
        ("de", "de"),
        ("DE", "de"),
        ("de-AT", "de"),
        ("de-CH-1996", "de"),
        ("fr", "en"),
        ("fr, de;q=0.5", "de"),
        ("en;q=0.5, de", "de"),
        ("en;q=0.5, de;q=0.51", "de"),
        ("de;q=0, en", "en"),
        ("de;q=0", "en"),
        ("de;q=2, en;q=0.1", "en"),
        ("de;q=1.0000, en;q=0.1", "en"),
        ("de;q=x, en;q=0.1", "en"),
        ("de;q=nan", "en"),
        ("pt-BR,pt;q=0.9,en;q=0.8", "pt-BR"),
        ("pt", "en"),
        ("zh-Hant-TW", "zh-Hant"),
        ("-", "en"),
        (",;,=,q=1", "en"),
        (", ".join(["xx"] * 40 + ["de"]), "en"),
        ("*, de;q=0.5", "en"),
    ],
)
def test_the_language_is_the_best_one_there_is(accept: str, language: str) -> None:
    """RFC 9110 section 12.5.4, by lookup (RFC 4647 section 3.4)."""
    assert SITE.choose(accept).language == language


def test_who_reads_none_of_our_languages_gets_the_default() -> None:
    site = Wordings([ENGLISH, Wording("de")], default="DE")
    assert site.choose("fr").language == site.choose("*").language == "de"
    assert site.choose("en").language == "en"
    assert site.languages == ("de", "en")
    with pytest.raises(KeyError):
        Wordings([ENGLISH], default="de")


@pytest.mark.parametrize("tag", ["xx", "", "de_DE", "not a language", "../de"])
def test_a_language_that_nobody_knows_is_refused(tag: str) -> None:
    with pytest.raises(ValueError, match="no language"):
        locale_of(tag)


# What is said -----------------------------------------------------------------------------------

GERMAN = built_in()["de"]


def test_a_text_without_a_translation_is_said_in_english() -> None:
    assert GERMAN.say("Never %(said)s", said="x") == "Never x"


def test_a_value_is_escaped_for_a_template_and_a_translation_is_not() -> None:
    text = "You are signed in as <strong>%(name)s</strong>. Signing in again ends that session."
    said = GERMAN.gettext(text, name="<b>")
    assert str(said).startswith("Sie sind als <strong>&lt;b&gt;</strong> angemeldet")
    assert (
        GERMAN.say("%(label)s did not sign you in", label="<b>") == "<b> hat Sie nicht angemeldet"
    )


def test_several_things_are_counted() -> None:
    text = ("One other session has ended.", "%(num)s other sessions have ended.")
    assert GERMAN.counted(*text, 1) == "Eine andere Sitzung wurde beendet."
    assert GERMAN.counted(*text, 3) == "3 andere Sitzungen wurden beendet."
    assert str(ENGLISH.ngettext(*text, 2)) == "2 other sessions have ended."
    assert str(ENGLISH.ngettext("%(who)s, once", "%(who)s", 1, who="<b>")) == "&lt;b&gt;, once"


@pytest.mark.parametrize(
    ("seconds", "english", "german"),
    [
        (-5, "just now", "gerade eben"),
        (59.9, "just now", "gerade eben"),
        (60, "1 minute ago", "vor 1 Minute"),
        (150, "2 minutes ago", "vor 2 Minuten"),
        (7300, "2 hours ago", "vor 2 Stunden"),
        (86_399, "23 hours ago", "vor 23 Stunden"),
        (45 * 86_400, "45 days ago", "vor 45 Tagen"),
    ],
)
def test_a_time_is_told_in_the_largest_unit_that_it_fills(
    seconds: float, english: str, german: str
) -> None:
    assert (ENGLISH.ago(seconds), GERMAN.ago(seconds)) == (english, german)


def test_dates_and_lists_are_written_as_the_language_does() -> None:
    when = datetime(2026, 9, 21, 14, 13, 20, tzinfo=UTC)
    assert ENGLISH.date(when) == "21 Sept 2026, 14:13 UTC"
    assert GERMAN.date(when) == "21.09.2026, 14:13 UTC"
    assert ENGLISH.listed(["a", "b", "c"], "or") == "a, b or c"
    assert GERMAN.listed(["a", "b"], "standard") == "a und b"


def test_a_phrase_is_the_text_itself() -> None:
    assert phrase("as it is") == "as it is"


# Catalogues of others ---------------------------------------------------------------------------


def test_a_catalogue_adds_a_language() -> None:
    french = read_wording("fr", catalogue('msgid "Sign in"\nmsgstr "Se connecter"\n'))
    assert (french.language, french.say("Sign in")) == ("fr", "Se connecter")
    assert french.say("Sign out") == "Sign out"
    assert french.ago(7200) == "il y a 2 heures"


def test_a_translation_that_somebody_guessed_is_not_shown() -> None:
    guessed = catalogue('#, fuzzy\nmsgid "Sign in"\nmsgstr "Se %(x)s"\n')
    assert read_wording("fr", guessed).say("Sign in") == "Sign in"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('msgid "%(a)s x"\nmsgstr "%(b)s x"\n', 4, "values"),
        ('msgid "%(a)s x"\nmsgstr "x"\n', 4, "values"),
        ('msgid "x"\nmsgstr "100 %"\n', 4, "values"),
        ('msgid "x"\nmsgstr "%s"\n', 4, "values"),
        ('msgid "x"\nmsgstr "%(a)d"\n', 4, "values"),
        ('msgid "a"\nmsgid_plural "%(num)s"\nmsgstr[0] "a"\nmsgstr[1] "%(n)s"\n', 4, "values"),
        ('msgid "x"\nwhat is this\n', 5, "keyword"),
    ],
    ids=["other", "missing", "percent", "position", "number", "plural", "nonsense"],
)
def test_a_catalogue_that_would_fail_when_it_is_shown_is_refused(
    text: str, line: int, words: str
) -> None:
    with pytest.raises(CatalogueError, match=words) as refused:
        read_wording("fr", catalogue(text))
    assert refused.value.line == line


def test_a_percent_sign_is_written_twice_and_is_no_value() -> None:
    french = read_wording("fr", catalogue('msgid "100%% %(a)s"\nmsgstr "%(a)s : 100 %%"\n'))
    assert french.say("100%% %(a)s", a="x") == "x : 100 %"


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("Content-Type: text/plain; charset=latin-1", "charset=UTF-8"),
        ("Content-Type: text/plain; charset=nosuch", "charset=UTF-8"),
        ("Plural-Forms: nplurals=x; plural=n", "invalid literal"),
        ("POT-Creation-Date: yesterday", "yesterday"),
    ],
)
def test_a_catalogue_with_a_header_that_makes_no_sense_is_refused(header: str, words: str) -> None:
    with pytest.raises(CatalogueError, match=words) as refused:
        read_wording("fr", f'msgid ""\nmsgstr "{header}\\n"\n')
    assert refused.value.line == 1


def test_a_site_has_our_languages_its_own_and_its_own_words_in_ours() -> None:
    german = catalogue('msgid "Sign in"\nmsgstr "Hereinspaziert"\n')
    french = catalogue('msgid "Sign in"\nmsgstr "Se connecter"\n')
    wordings = site_wordings({"de": german, "fr": french}, default="fr")
    said = {language: wordings.choose(language).say("Sign in") for language in ("de", "fr", "en")}
    assert said == {"de": "Hereinspaziert", "fr": "Se connecter", "en": "Sign in"}
    assert wordings.choose("de").say("Sign out") == built_in()["de"].say("Sign out") != "Sign out"
    assert wordings.choose("ja").language == "fr"


def test_a_site_cannot_speak_a_language_that_is_not_there() -> None:
    with pytest.raises(KeyError):
        site_wordings({}, default="fr")


def test_a_form_for_one_may_leave_the_number_out() -> None:
    text = 'msgid "%(num)s day"\nmsgid_plural "%(num)s days"\nmsgstr[0] "un jour"\n'
    french = read_wording("fr", catalogue(f'{text}msgstr[1] "%(num)s jours"\n'))
    assert french.counted("%(num)s day", "%(num)s days", 1) == "un jour"


def test_a_catalogue_of_no_language_is_refused() -> None:
    with pytest.raises(CatalogueError, match="no language"):
        read_wording("xx", catalogue(""))

"""What letters say."""

import pytest

from auth.login.mail import Kind, write_letter
from auth.wording import Wordings, built_in

LINK = "https://app.example.com/.doorward/set-password?token=abc"
WORDINGS = Wordings(built_in().values())


@pytest.mark.parametrize("kind", ["invitation", "reset", "registration", "registered_already"])
@pytest.mark.parametrize("language", ["en", "de"])
def test_a_letter_says_where_it_is_from_and_what_to_do(kind: Kind, language: str) -> None:
    letter = write_letter(
        kind,
        WORDINGS.choose(language),
        to="ada@example.com",
        site="app.example.com",
        link=LINK,
        login="ada",
        seconds=1800,
    )
    assert (letter.to, letter.language, letter.kind) == ("ada@example.com", language, kind)
    assert "app.example.com" in letter.subject
    assert f"\n{LINK}\n" in letter.text
    assert ("30 " in letter.text) is (kind != "registered_already")
    assert ("Sie" in letter.text) is (language == "de")
    assert "%(" not in letter.text + letter.subject


@pytest.mark.parametrize(
    ("seconds", "says"), [(60, "1 minute."), (1800, "30 minutes."), (86_400, "24 hours.")]
)
def test_a_letter_says_how_long_its_link_is_good(seconds: float, says: str) -> None:
    wording = WORDINGS.choose("en")
    letter = write_letter("reset", wording, to="a@b", site="s", link=LINK, seconds=seconds)
    assert f"once, for {says}" in letter.text


def test_a_letter_does_not_show_itself_in_logs() -> None:
    wording = WORDINGS.choose("en")
    letter = write_letter("reset", wording, to="a@b", site="s", link=LINK, seconds=60)
    assert repr(letter) == "Letter(reset)"

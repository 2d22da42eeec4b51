"""What is written to people: a link, and what it is for, in their language.

Nothing that a stranger may choose stands in the text: whoever asks for a letter to somebody else's
address must not be able to say something in it.
"""

from typing import Literal

import msgspec

from auth.wording import Wording, phrase

Kind = Literal["invitation", "reset", "registration", "registered_already"]


class Letter(msgspec.Struct, frozen=True):
    """One message to one address. The link in it lets its reader in: no log may have it."""

    kind: Kind
    to: str
    subject: str
    text: str
    link: str
    language: str

    def __repr__(self) -> str:
        """Leave out everything that matters."""
        return f"Letter({self.kind})"


class _Words(msgspec.Struct, frozen=True):
    subject: str
    why: str
    act: str
    otherwise: str


_WORDS: dict[Kind, _Words] = {
    "invitation": _Words(
        phrase("Your account at %(site)s"),
        phrase("An account was made for you at %(site)s. Your user name is: %(login)s"),
        phrase("Choose a password here:"),
        phrase("If you do not know what this is about, do nothing; nobody can use the account."),
    ),
    "reset": _Words(
        phrase("A new password for %(site)s"),
        phrase("Somebody, probably you, asked for a new password for your account at %(site)s."),
        phrase("Choose it here:"),
        phrase("If it was not you, do nothing; your password stays as it is."),
    ),
    "registration": _Words(
        phrase("Confirm your address for %(site)s"),
        phrase("Somebody, probably you, wants an account at %(site)s with this e-mail address."),
        phrase("Confirm it and choose a password here:"),
        phrase("If it was not you, do nothing; there will be no account."),
    ),
    "registered_already": _Words(
        phrase("You have an account at %(site)s"),
        phrase("Somebody, probably you, wanted a new account at %(site)s, but you have one."),
        phrase("Sign in here, or ask for a new password if you forgot yours:"),
        phrase("If it was not you, do nothing; your account stays as it is."),
    ),
}


def write_letter(  # noqa: PLR0913 - what a letter says
    kind: Kind, wording: Wording, *, to: str, site: str, link: str, seconds: float, login: str = ""
) -> Letter:
    """Return the letter of *kind* to the address *to*, with *link*, good for *seconds*."""
    words = _WORDS[kind]
    lines = [
        wording.say(words.why, site=site, login=login),
        "",
        wording.say(words.act),
        link,
        "",
    ]
    if kind != "registered_already":
        lines.append(_lasting(wording, seconds))
    lines.append(wording.say(words.otherwise))
    subject = wording.say(words.subject, site=site)
    return Letter(kind, to, subject, "\n".join(lines) + "\n", link, wording.language)


def _lasting(wording: Wording, seconds: float) -> str:
    if seconds < 7200:
        return wording.counted(
            "The link works once, for %(num)s minute.",
            "The link works once, for %(num)s minutes.",
            round(seconds / 60),
        )
    return wording.counted(
        "The link works once, for %(num)s hour.",
        "The link works once, for %(num)s hours.",
        round(seconds / 3600),
    )

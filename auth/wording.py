"""What people read, in the language that they read best.

How this works. The English text is the key, as in gettext: whoever writes a page writes English, in
a template (`{% trans %}…{% endtrans %}` or `_("…")`), as the title or detail of a `Problem`, or in
`phrase("…")`. A catalogue of another language is a file `xx.po` in `auth/languages/`, which
translators' tools read; it is compiled in memory when it is loaded. A text that a catalogue lacks
is shown in English. Values stand as `%(name)s`, in every language the same ones; a percent sign is
written twice. Programs (JSON) get English: they read codes. Logs are English too.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from gettext import GNUTranslations, NullTranslations
from io import BytesIO
from pathlib import Path
from typing import Literal

from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_skeleton, format_timedelta
from babel.lists import format_list
from babel.messages import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import PoFileError, read_po
from markupsafe import Markup

_DIRECTORY = Path(__file__).with_name("languages")
_SOURCE = "en"
_PLACEHOLDER = re.compile(r"%(?:\((\w*)\))?(.?)", re.DOTALL)
_MOST_RANGES = 32
"""Languages that are looked at; browsers send a few."""
_STEPS: tuple[tuple[Literal["day", "hour", "minute"], int], ...] = (
    ("day", 86_400),
    ("hour", 3_600),
    ("minute", 60),
)

Values = Mapping[str, object]


class CatalogueError(ValueError):
    """A catalogue cannot be used; `line` says where, counted from 1."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def phrase(text: str) -> str:
    """Return *text*: it is marked for the catalogues, and translated where it is shown."""
    return text


def locale_of(language: str) -> Locale:
    """Return what is known about *language*, a BCP 47 tag.

    Raises:
        ValueError: nothing.
    """
    try:
        return Locale.parse(language, sep="-")
    except (UnknownLocaleError, ValueError) as error:
        raise ValueError(f"{language!r} is no language that is known") from error


class Wording:
    """One language."""

    def __init__(self, language: str, translations: NullTranslations | None = None) -> None:
        """Take the *language* (a BCP 47 tag) and its catalogue; none shows the texts as written.

        Raises:
            ValueError: there is no such language.
        """
        self.language = language
        self.translations = translations or NullTranslations()
        # Our English is British: "21 Sept 2026, 14:13".
        self._locale = locale_of("en-GB" if language == _SOURCE else language)

    def say(self, text: str, /, **values: object) -> str:
        """Return *text* (with `%(name)s` for *values*) in this language; not escaped."""
        return self.translations.gettext(text) % values

    def gettext(self, text: str, /, **values: object) -> Markup:
        """Return *text* for a template: the catalogue's markup stays, *values* are escaped."""
        return Markup(self.translations.gettext(text)) % values  # noqa: S704 - as a template's own

    def ngettext(self, singular: str, plural: str, number: int, /, **values: object) -> Markup:
        """Return the text for *number* things, which is also the value `num`."""
        text = self.translations.ngettext(singular, plural, number)
        return Markup(text) % ({"num": number} | values)  # noqa: S704 - the same

    def counted(self, singular: str, plural: str, number: int, /) -> str:
        """Return the text for *number* things, which is the value `num`; not escaped."""
        return self.translations.ngettext(singular, plural, number) % {"num": number}

    def listed(self, names: Sequence[str], style: Literal["standard", "or"]) -> str:
        """Return *names* as people list them: `a, b and c`, or with *style* `or`: `a, b or c`."""
        return format_list(names, style=style, locale=self._locale)

    def date(self, when: datetime) -> str:
        """Return *when* to the minute, in UTC: without a script we know no other zone."""
        date = format_date(when, "medium", locale=self._locale)
        time = format_skeleton("Hm", when, tzinfo=UTC, locale=self._locale)
        return f"{date}, {time} UTC"

    def ago(self, seconds: float) -> str:
        """Return how long ago something was, in the largest unit that it fills."""
        for unit, length in _STEPS:
            if seconds >= length:
                whole = timedelta(seconds=int(seconds // length) * length)
                # Never in a larger unit, which would make two months of 45 days.
                return format_timedelta(
                    -whole,
                    granularity=unit,
                    threshold=math.inf,
                    add_direction=True,
                    locale=self._locale,
                )
        return self.say(phrase("just now"))


ENGLISH = Wording(_SOURCE)


class Wordings:
    """The languages of one site."""

    def __init__(self, wordings: Iterable[Wording], *, default: str = _SOURCE) -> None:
        """Take them; *default* is for whom none of theirs is there.

        Raises:
            KeyError: *default* is none of them.
        """
        self._by_language = {each.language.lower(): each for each in wordings}
        self.default = self._by_language[default.lower()]

    @property
    def languages(self) -> tuple[str, ...]:
        """Their tags, sorted."""
        return tuple(sorted(each.language for each in self._by_language.values()))

    def choose(self, accept_language: str) -> Wording:
        """Return what *accept_language* (RFC 9110 section 12.5.4) likes best of what is there.

        By lookup (RFC 4647 section 3.4): `de-AT` is served by `de`. `*`, and a field that names
        nothing we have, get the default.
        """
        for language in _preferred(accept_language):
            if language == "*":
                return self.default
            while language and language not in self._by_language:
                language = language.rpartition("-")[0]  # noqa: PLW2901 - shorter and shorter
            if language:
                return self._by_language[language]
        return self.default


def _preferred(accept_language: str) -> list[str]:
    """Return the language ranges, best first; of equal ones as they came."""
    weighted: list[tuple[float, str]] = []
    for item in accept_language.lower().split(",", _MOST_RANGES)[:_MOST_RANGES]:
        language, _, weight = (part.strip() for part in item.partition(";"))
        quality = 1.0
        if weight:
            found = re.fullmatch(r"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)", weight)
            quality = float(found[1]) if found else 0.0
        if quality > 0:
            weighted.append((quality, language))
    return [language for _, language in sorted(weighted, key=lambda each: -each[0])]


@cache
def built_in() -> dict[str, Wording]:
    """Return the languages that Doorward brings, by tag."""
    found = {_SOURCE: ENGLISH}
    for path in sorted(_DIRECTORY.glob("*.po")):
        found[path.stem] = read_wording(path.stem, path.read_text(encoding="utf-8"))
    return found


def site_wordings(catalogues: Mapping[str, str], *, default: str = _SOURCE) -> Wordings:
    """Return our languages and those of *catalogues*, the content of `.po` files by language.

    One in a language of ours says some things in other words, and leaves the rest as it is.

    Raises:
        CatalogueError: one is malformed.
        KeyError: there is no language *default*.
    """
    ours = built_in()
    theirs = {
        language: read_wording(language, text, instead_of=ours.get(language))
        for language, text in catalogues.items()
    }
    return Wordings((ours | theirs).values(), default=default)


def read_wording(language: str, text: str, *, instead_of: Wording | None = None) -> Wording:
    """Return the wording that *text*, the content of a `.po` file, has for *language*.

    What it lacks is said as in *instead_of*.

    Raises:
        CatalogueError: the file is malformed, or a translation has other values than its text.
    """
    translations = compile_catalogue(read_catalogue(language, text))
    if instead_of is not None:
        translations.add_fallback(instead_of.translations)
    return Wording(language, translations)


def read_catalogue(language: str, text: str) -> Catalog:
    """Return the catalogue in *text*, checked.

    Raises:
        CatalogueError: as `read_wording`.
    """
    try:
        locale = locale_of(language)
    except ValueError as error:
        raise CatalogueError(str(error), 1) from error
    try:
        lines = (line.encode() for line in text.splitlines(keepends=True))
        catalogue = read_po(lines, locale=locale, charset="utf-8", abort_invalid=True)
    except PoFileError as error:
        raise CatalogueError(str(error).partition(" on ")[0], error.lineno + 1) from error
    except (ValueError, LookupError) as error:  # a header that makes no sense
        raise CatalogueError(str(error), 1) from error
    if catalogue.charset.lower() != "utf-8":  # it would say something else, or nothing
        raise CatalogueError("a catalogue is UTF-8, and says so: charset=UTF-8", 1)
    for message in catalogue:
        if not message.id or message.fuzzy:
            continue
        texts = message.id if isinstance(message.id, tuple | list) else (message.id,)
        ours = set().union(*(placeholders(each) for each in texts))
        strings = message.string if isinstance(message.string, tuple | list) else (message.string,)
        for string in filter(None, strings):
            # A form for one thing may leave the number out.
            if not placeholders(string) <= ours or not ours - {"num"} <= placeholders(string):
                problem = f"the values of {string!r} are not those of {texts[0]!r}"
                raise CatalogueError(problem, message.lineno or 1)
    return catalogue


def compile_catalogue(catalogue: Catalog) -> GNUTranslations:
    """Return what looks texts up; what is marked as fuzzy, a translator's guess, is left out."""
    compiled = BytesIO()
    write_mo(compiled, catalogue)
    compiled.seek(0)
    return GNUTranslations(compiled)


def placeholders(text: str) -> set[str]:
    """Return the names of the values in *text*; `?` for what is no `%(name)s`."""
    found: set[str] = set()
    for name, conversion in _PLACEHOLDER.findall(text):
        if name and conversion == "s":
            found.add(name)
        elif name or conversion != "%":
            found.add("?")
    return found

"""The pages, and the fields that keep a browser from doing anything else with them.

Every template is found and compiled at start, so a broken one is found there. Values are escaped
by jinja2; the only markup that is not a template's or a catalogue's is the style sheet of this
package.

A page extends `base.html`: it fills the blocks `title`, `content`, sometimes `head` and
`main_class`, and writes its English in `{% trans %}…{% endtrans %}` (values as
`{% trans name=signed_in_as %}`) or as `{{ _("…") }}` in attributes. Besides its own values it
finds `site` and `language`, and in the login service what `Answers.page` gives to every page:
`problem`, `advice`, `token`, `signed_in_as` and the paths. A form is `method="post"`, goes to a
path of ours and carries `token`; see `login.html` for labels and faults. A new page is added to
`NAMES`, its German to `auth/languages/de.po`.
"""

import hashlib
from base64 import b64encode
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from auth.wording import ENGLISH, Wording

_DIRECTORY = Path(__file__).with_name("pages")

NAMES = ("login", "logout", "signed_out", "sessions", "error", "onward")
"""The pages there are."""


class Moment(msgspec.Struct, frozen=True):
    """A time as a page shows it."""

    iso: str
    text: str
    """Date and time of day in UTC: without a script we do not know the person's own zone."""
    ago: str


def moment(at: float, now: float, wording: Wording = ENGLISH) -> Moment:
    """Return the time *at* (epoch seconds) as seen from *now*."""
    when = datetime.fromtimestamp(int(at), UTC)
    return Moment(
        iso=when.isoformat().replace("+00:00", "Z"),
        text=wording.date(when),
        ago=wording.ago(now - at),
    )


class _Environment(Environment):
    newstyle_gettext = True  # values are escaped, and a percent sign is written twice everywhere


class Pages:
    """The templates of one site."""

    def __init__(self, *, site: str, names: Iterable[str] = NAMES) -> None:
        """Load those with *names*; *site* is the name at the top of them."""
        style = (_DIRECTORY / "style.css").read_text(encoding="utf-8")
        assert "<" not in style, "nothing in the style sheet may end its element"
        digest = b64encode(hashlib.sha256(style.encode()).digest()).decode()
        environment = _Environment(
            extensions=["jinja2.ext.i18n"],
            loader=FileSystemLoader(_DIRECTORY),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        environment.policies["ext.i18n.trimmed"] = True
        environment.globals["style"] = Markup(style)  # noqa: S704 - our own file, checked above
        environment.globals["site"] = site
        self._templates = {name: environment.get_template(f"{name}.html") for name in names}
        policy = (
            f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'; "
            "frame-ancestors 'none'; base-uri 'none'"
        )
        self.kind: tuple[tuple[str, str], ...] = (
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Security-Policy", policy),
        )
        self.fields: tuple[tuple[str, str], ...] = (
            *self.kind,
            ("X-Frame-Options", "DENY"),
            ("Cross-Origin-Opener-Policy", "same-origin"),
            # Not `no-referrer`: browsers would write `Origin: null` into our own forms.
            ("Referrer-Policy", "same-origin"),
        )

    def render(self, name: str, values: Mapping[str, object], wording: Wording = ENGLISH) -> bytes:
        """Return the page *name* with *values* in it, in the language of *wording*.

        Raises:
            jinja2.UndefinedError: the page needs a value that is not there.
        """
        spoken = {
            "language": wording.language,
            "gettext": wording.gettext,
            "ngettext": wording.ngettext,
        }
        return self._templates[name].render(values, **spoken).encode()

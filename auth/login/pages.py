"""The pages, and the fields that keep a browser from doing anything else with them.

Every template is found and compiled at start, so a broken one is found there. Values are escaped
by jinja2; the only markup that is not a template's is the style sheet of this package.
"""

import hashlib
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_DIRECTORY = Path(__file__).with_name("pages")
_STEPS = (("day", 86_400), ("hour", 3_600), ("minute", 60))


class Moment(msgspec.Struct, frozen=True):
    """A time as a page shows it."""

    iso: str
    text: str
    """Date and time of day in UTC: without a script we do not know the person's own zone."""
    ago: str


def moment(at: float, now: float) -> Moment:
    """Return the time *at* (epoch seconds) as seen from *now*."""
    when = datetime.fromtimestamp(int(at), UTC)
    return Moment(
        iso=when.isoformat().replace("+00:00", "Z"),
        text=f"{when.day} {when:%b %Y, %H:%M} UTC",
        ago=_ago(now - at),
    )


def _ago(seconds: float) -> str:
    for name, length in _STEPS:
        count = int(seconds // length)
        if count >= 1:
            return f"{count} {name}{'s' if count > 1 else ''} ago"
    return "just now"


class Pages:
    """The templates of one site."""

    def __init__(self, *, site: str) -> None:
        """Load them all; *site* is the name at the top, the authority of the public address."""
        style = (_DIRECTORY / "style.css").read_text(encoding="utf-8")
        assert "<" not in style, "nothing in the style sheet may end its element"
        digest = b64encode(hashlib.sha256(style.encode()).digest()).decode()
        environment = Environment(
            loader=FileSystemLoader(_DIRECTORY),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        environment.globals["style"] = Markup(style)  # noqa: S704 - our own file, checked above
        environment.globals["site"] = site
        self._templates = {
            name: environment.get_template(f"{name}.html")
            for name in ("login", "logout", "signed_out", "sessions", "error", "onward")
        }
        policy = (
            f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'; "
            "frame-ancestors 'none'; base-uri 'none'"
        )
        self.fields: tuple[tuple[str, str], ...] = (
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Security-Policy", policy),
            ("X-Frame-Options", "DENY"),
            ("Cross-Origin-Opener-Policy", "same-origin"),
            # Not `no-referrer`: browsers would write `Origin: null` into our own forms.
            ("Referrer-Policy", "same-origin"),
        )

    def render(self, name: str, values: Mapping[str, object]) -> bytes:
        """Return the page *name* with *values* in it.

        Raises:
            jinja2.UndefinedError: the page needs a value that is not there.
        """
        return self._templates[name].render(values).encode()

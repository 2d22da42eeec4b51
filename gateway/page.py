"""The one page with which the gateway tells a person that something is not as they hoped.

The template is read and compiled once, with this module. The page loads nothing: its style is
inside, and the policy names the style's hash, so not even an injected style would be applied.
"""

import base64
import hashlib
from importlib.resources import files

import msgspec
from jinja2 import Environment, StrictUndefined

_PAGES = files("gateway") / "pages"
_STYLE = (_PAGES / "error.css").read_text(encoding="utf-8").strip()
_TEMPLATE = Environment(
    autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
).from_string((_PAGES / "error.html").read_text(encoding="utf-8"))
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


class Link(msgspec.Struct, frozen=True):
    """Somewhere to go from here."""

    url: str
    text: str


class Page(msgspec.Struct, frozen=True):
    """What the page says."""

    status: int
    heading: str
    detail: str
    links: tuple[Link, ...]
    request_id: str


def render_page(page: Page) -> tuple[bytes, str]:
    """Return the page in UTF-8, and the Content-Security-Policy that goes with it."""
    return _TEMPLATE.render(page=page, style=_STYLE).encode(), CONTENT_SECURITY_POLICY

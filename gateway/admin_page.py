"""The dashboard: one page that shows how the gateway is, and its routes."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from config.model import AccessRule, Route

ROUTES_SHOWN = 500
"""A page with 10,000 rows helps nobody; the API has all of them."""

_PAGES = files("gateway") / "pages"
_STYLE = (_PAGES / "status.css").read_text(encoding="utf-8").strip()
_TEMPLATE = Environment(
    autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
).from_string((_PAGES / "status.html").read_text(encoding="utf-8"))
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def render_dashboard(status: Mapping[str, object], routes: Sequence[Route]) -> tuple[bytes, str]:
    """Return the page in UTF-8, and the Content-Security-Policy that goes with it.

    *status* is what `GET /api/status` answers; *routes* are in matching order.
    """
    page = _TEMPLATE.render(
        status=status,
        routes=routes[:ROUTES_SHOWN],
        more=max(0, len(routes) - ROUTES_SHOWN),
        access=describe_access,
        style=_STYLE,
    )
    return page.encode(), _POLICY


def describe_access(rule: AccessRule) -> str:
    """Return *rule* in a few words."""
    parts = [
        f"{name}: {', '.join(sorted(values))}"
        for name, values in (
            ("roles", rule.roles),
            ("scopes", rule.scopes),
            ("groups", rule.groups),
            ("tenants", rule.tenants),
            ("acr", rule.acr),
        )
        if values
    ]
    if rule.max_age is not None:
        parts.append(f"max_age: {rule.max_age:g}s")
    if rule.when:
        parts.append(f"when {rule.when}")
    return "; ".join(parts) or rule.level

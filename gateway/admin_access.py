"""Who may use the admin API and the dashboard: a token, and never by way of somebody's browser.

Health and metrics are not asked about here: they are open on the admin address.
"""

import base64
import binascii
import hmac
from ipaddress import ip_address
from urllib.parse import urlsplit

import msgspec

from config.model import Admin

SAFE_METHODS = frozenset({"GET", "HEAD"})


class AdminRequest(msgspec.Struct, frozen=True):
    """What the decision reads of a request; a field that is not there is an empty string."""

    method: str
    path: str
    host: str = ""
    authorization: str = ""
    origin: str = ""
    sec_fetch_site: str = ""
    sec_fetch_mode: str = ""


class Refusal(msgspec.Struct, frozen=True):
    """Why not, in words for the person who has to mend it."""

    status: int
    detail: str
    challenges: tuple[str, ...] = ()
    """Values of `WWW-Authenticate`."""


_CLOSED = Refusal(
    403, "The admin API is closed: set admin.token in the route file (it takes ${NAME}) to open it."
)
_FOREIGN_HOST = Refusal(
    403,
    "This Host is not known here: use an IP address, localhost, the host of admin.listen, "
    "or send the token as a bearer token.",
)
_CROSS_SITE = Refusal(403, "The admin API takes no requests that other web sites make.")
_BASIC_WRITES = Refusal(403, "Changes need the token as a bearer token, not as a password.")
_UNKNOWN = "The admin token is missing or wrong: send `Authorization: Bearer TOKEN`."


def refusal_of(request: AdminRequest, admin: Admin) -> Refusal | None:
    """Return why *request* is refused, or None if it may go on."""
    if admin.token is None:
        return _CLOSED
    if _is_cross_site(request):
        return _CROSS_SITE
    scheme, _, credentials = request.authorization.partition(" ")
    scheme, credentials = scheme.lower(), credentials.strip()
    # A browser sends a remembered password by itself, so a name that an attacker has pointed at
    # this address (DNS rebinding) could use it. A bearer token is never sent by itself.
    if scheme != "bearer" and not _is_own_host(request.host, admin):
        return _FOREIGN_HOST
    token = credentials if scheme == "bearer" else _basic_password(scheme, credentials)
    if token is None or not _is_equal(token, admin.token.value):
        challenges: tuple[str, ...] = ('Bearer realm="doorward admin"',)
        if request.path == "/":
            challenges = (*challenges, 'Basic realm="doorward admin", charset="UTF-8"')
        return Refusal(401, _UNKNOWN, challenges)
    if scheme == "basic" and request.method not in SAFE_METHODS:
        return _BASIC_WRITES
    return None


def _is_equal(presented: str, expected: str) -> bool:
    # An empty token must never open anything, whatever was configured.
    return bool(expected) and hmac.compare_digest(
        presented.encode("utf-8", "surrogateescape"), expected.encode("utf-8", "surrogateescape")
    )


def _basic_password(scheme: str, credentials: str) -> str | None:
    """Return the password of HTTP Basic (RFC 7617); the user name is anybody's."""
    if scheme != "basic":
        return None
    try:
        decoded = base64.b64decode(credentials, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    return decoded.partition(":")[2]


def _is_cross_site(request: AdminRequest) -> bool:
    follows_link = (
        request.path == "/"
        and request.method in SAFE_METHODS
        and request.sec_fetch_mode == "navigate"
    )
    if request.sec_fetch_site not in ("", "same-origin", "none") and not follows_link:
        return True
    return bool(request.origin) and urlsplit(request.origin).netloc != request.host.lower()


def _is_own_host(host: str, admin: Admin) -> bool:
    try:
        name = (urlsplit(f"//{host}").hostname or "").removesuffix(".")
    except ValueError:
        return False
    if name in ("localhost", admin.listen.host.lower()):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True

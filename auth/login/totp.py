"""One-time codes of an app: RFC 6238 as every app knows it (SHA-1, 6 digits, 30 seconds)."""

import base64
import hmac

import segno
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.hotp import HOTP
from cryptography.hazmat.primitives.twofactor.totp import TOTP
from markupsafe import Markup

SECRET_BYTES = 20
"""RFC 4226 section 4 R6: 128 bits or more, 160 recommended."""
DIGITS = 6
_SECONDS = 30
_STEPS_AWAY = (0, -1, 1)
"""RFC 6238 section 5.2: one step either way, for slow typing and a clock that is off."""


def current_step(now: float) -> int:
    """Return the time step of *now* (epoch seconds)."""
    return int(now // _SECONDS)


def code_of(secret: bytes, step: int) -> str:
    """Return the code that *secret* has in the time step *step*."""
    # SHA-1 is what the apps compute; an HMAC does not need collision resistance (RFC 4226 B.2).
    return HOTP(secret, DIGITS, SHA1(), enforce_key_length=True).generate(step).decode()  # noqa: S303


def matching_step(secret: bytes, code: str, now: float) -> int | None:
    """Return the time step near *now* (epoch seconds) whose code is *code*; None if there is none.

    Whoever asks must see to it that no step counts twice (RFC 6238 section 5.2).
    """
    typed = "".join(code.split()).encode("utf-8", "surrogatepass")
    matching = None
    for away in _STEPS_AWAY:
        step = current_step(now) + away
        # All of them, so that the time does not tell how far off the clock is.
        if hmac.compare_digest(code_of(secret, step).encode(), typed) and matching is None:
            matching = step
    return matching


def provisioning_uri(secret: bytes, *, login: str, site: str) -> str:
    """Return what the app reads from a QR code (the Key URI format of Google Authenticator)."""
    return TOTP(secret, DIGITS, SHA1(), _SECONDS).get_provisioning_uri(login, site)  # noqa: S303


def typed_secret(secret: bytes) -> str:
    """Return *secret* for people who type it: base32 in groups of four."""
    text = base64.b32encode(secret).decode().rstrip("=")
    return " ".join(text[at : at + 4] for at in range(0, len(text), 4))


def qr_code(text: str) -> Markup:
    """Return *text* as a QR code: an `svg` element, dark on light whatever the page's colours."""
    # 4 modules of light around it (ISO/IEC 18004 section 9.1): readers look for them.
    drawn = segno.make_qr(text, error="m").svg_inline(
        omitsize=True, border=4, dark="#000", light="#fff", svgclass="qr", lineclass=None
    )
    return Markup(drawn)  # noqa: S704 - squares; nothing of the text is written into it

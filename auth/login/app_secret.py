"""The secret of an authenticator app that is being set up, on its way to a person and back."""

import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode

import msgspec
from markupsafe import Markup

from auth.login.account import Account
from auth.login.factors import Factors
from auth.login.totp import SECRET_BYTES, provisioning_uri, qr_code, typed_secret

LONGEST_CODE = 64
"""Characters of what is typed as a code."""


class NewSecret(msgspec.Struct, frozen=True):
    """The secret of an app that is being set up, as a page shows it."""

    sealed: str
    """For the form: only we can read it, and it is good for one account."""
    typed: str
    qr: Markup
    uri: str


def new_secret(factors: Factors, account: Account, *, site: str) -> NewSecret:
    """Return a fresh secret for the app of *account*."""
    return shown_secret(factors, account, secrets.token_bytes(SECRET_BYTES), site=site)


def shown_secret(factors: Factors, account: Account, secret: bytes, *, site: str) -> NewSecret:
    """Return *secret* as a page shows it."""
    uri = provisioning_uri(secret, login=account.login, site=site)
    sealed = factors.sealed_secret(account.subject, secret)
    return NewSecret(urlsafe_b64encode(sealed).decode(), typed_secret(secret), qr_code(uri), uri)


def secret_again(factors: Factors, account: Account, form: str, *, site: str) -> NewSecret:
    """Return the secret that a form has brought back; a fresh one if it makes no sense."""
    secret = factors.opened_secret(account.subject, sealed_in(form))
    if secret is None:
        return new_secret(factors, account, site=site)
    return shown_secret(factors, account, secret, site=site)


def sealed_in(form: str) -> bytes:
    """Return the sealed secret that stands in a form; if it is none, what will not open."""
    try:
        return urlsafe_b64decode(form.encode())
    except ValueError:
        return b""

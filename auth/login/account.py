"""An account as a value, and what may stand in one."""

import unicodedata
from collections.abc import Iterable

import msgspec

from auth.session import TOO_LARGE, fits_fields
from config.names import email

MAX_LOGIN = 256
"""Characters of a login name; the longest e-mail address has 254 (RFC 5321 section 4.5.3.1)."""
_LONGEST_SUBJECT = 256
"""Characters; an issuer's subject has 255 at most (OpenID Connect Core section 2)."""


class Account(msgspec.Struct, frozen=True):
    """Somebody who can sign in. Times are epoch seconds."""

    subject: str
    """A GUID that never changes and is never used again; everything else may change."""
    login: str
    name: str
    tenant: str
    roles: tuple[str, ...]
    groups: tuple[str, ...]
    email: str
    disabled: bool
    revision: int
    """Counts the changes after which earlier sign-ins no longer count."""
    created_at: float
    changed_at: float


class AccountError(ValueError):
    """What was asked for cannot be done; the message says why and what to do."""


def canonical_login(login: str) -> str:
    """Return the form in which login names are compared: without case, and one per appearance."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", login).casefold()).strip()


def checked_login(login: str) -> str:
    """Return *login* without outer spaces; raise `AccountError` if it cannot be a login name."""
    login = login.strip()
    if not login:
        raise AccountError("the login name is empty")
    if len(login) > MAX_LOGIN:
        raise AccountError(f"the login name has more than {MAX_LOGIN} characters")
    if not login.isprintable() or any(character.isspace() for character in login):
        raise AccountError("the login name has spaces or control characters; leave them out")
    return login


def checked_email(address: str) -> str:
    """Return the e-mail *address* without outer spaces; raise `AccountError` if it is none."""
    try:
        return email(address.strip())
    except ValueError as error:
        raise AccountError(str(error)) from None


def checked_text(what: str, value: str) -> str:
    """Return *value* without outer spaces; raise `AccountError` if it has control characters."""
    value = value.strip()
    if not value.isprintable():
        raise AccountError(f"the {what} has control characters; leave them out")
    return value


def checked_size(account: Account) -> Account:
    """Return *account*; raise `AccountError` if backends could not be told of it."""
    if not fits_fields(account):
        raise AccountError(f"the name, the roles and the groups {TOO_LARGE}; give fewer of them")
    return account


def checked_list(what: str, values: Iterable[str]) -> tuple[str, ...]:
    """Return *values* without the empty and repeated ones.

    Raises:
        AccountError: a value has control characters, or a comma: upstreams get lists joined with
            commas, and would read two.
    """
    checked = tuple(dict.fromkeys(filter(None, (checked_text(what, value) for value in values))))
    for value in checked:
        if "," in value:
            raise AccountError(f"the {what} {value!r} has a comma; leave it out")
    return checked


def checked_account(  # noqa: PLR0913 - one argument for each thing that is known of a person
    login: str,
    *,
    subject: str,
    name: str,
    tenant: str,
    email: str,
    roles: Iterable[str],
    groups: Iterable[str],
    created_at: float = 0.0,
) -> Account:
    """Return an account of these values, without a name the *login*'s.

    Raises:
        AccountError: a value cannot stand in one, or all together are too large.
    """
    subject = checked_text("subject", subject)
    if not subject or len(subject) > _LONGEST_SUBJECT:
        raise AccountError(f"the subject is empty or longer than {_LONGEST_SUBJECT} characters")
    account = Account(
        subject=subject,
        login=login,
        name=checked_text("name", name) or login,
        tenant=checked_text("tenant", tenant),
        roles=checked_list("role", roles),
        groups=checked_list("group", groups),
        email=checked_text("e-mail address", email),
        disabled=False,
        revision=0,
        created_at=created_at,
        changed_at=created_at,
    )
    return checked_size(account)

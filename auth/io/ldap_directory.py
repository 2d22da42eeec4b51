"""Asking an LDAP directory whether a password is right, and for somebody's groups.

How this works. A simple bind (RFC 4513 section 5.1.3) with somebody's own DN shows that the
password is theirs. The DN is made of the login name (`user_dn`), or looked for by an account of
ours. Nothing that was typed goes into a DN or a filter unescaped (RFC 4514 section 2.4, RFC 4515
section 3). An empty password would be an unauthenticated bind, which servers let succeed for
anybody (RFC 4513 section 5.1.2): it is refused before anything is asked. Referrals are not
followed: they would bring the password to a server that nobody named. Whatever is neither a yes nor
"invalid credentials" is an outage.

The library (python-ldap, the extra `ldap`) blocks, so each check runs in a thread of a small pool.
"""

import asyncio
import logging
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import Any

import ldap
from ldap.dn import escape_dn_chars, str2dn
from ldap.filter import escape_filter_chars

from auth.login.account import Account, AccountError, canonical_login, checked_account
from auth.login.accounts import SignInQueueFull
from auth.ports import AuthUnavailable
from config.model import Ldap

_log = logging.getLogger("doorward.login")

_AT_ONCE = 8
"""Sign-ins that ask the directory at once, each in a thread."""
_WAITING = 64
"""Sign-ins that may wait for one of those; more are told to come back."""
_MOST_GROUPS = 1000
"""The size limit of the search for somebody's groups."""
_NO = (
    ldap.INVALID_CREDENTIALS,
    ldap.INAPPROPRIATE_AUTH,  # the entry has no password
    ldap.NO_SUCH_OBJECT,  # the DN that a login name makes is nobody's
    ldap.INVALID_DN_SYNTAX,
)
_Entry = tuple[str, dict[str, list[bytes]]]


class LdapCheck:
    """Signs people in whom the directory of `settings` knows."""

    def __init__(self, settings: Ldap) -> None:
        self._settings = settings
        self._roles = {_normal(dn): role for dn, role in settings.roles.items()}
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="ldap")
        self._slots = BoundedSemaphore(_AT_ONCE + _WAITING)

    async def sign_in(self, login: str, password: str) -> Account | None:
        """Return who *login* is if *password* is theirs, as the directory says.

        Raises:
            SignInQueueFull: too many are being asked for.
            AuthUnavailable: the directory does not answer, or not as it should.
        """
        # Directories ignore some spaces and what cannot be seen: one name, one way to write it.
        if not password or not login.isprintable() or any(map(str.isspace, login)):
            return None
        if not self._slots.acquire(blocking=False):
            raise SignInQueueFull
        work = self._threads.submit(self._check, login, password)
        work.add_done_callback(lambda _: self._slots.release())
        try:
            return await asyncio.wrap_future(work)
        except ldap.LDAPError as error:
            raise _outage(type(error).__name__) from error
        except (AccountError, UnicodeError) as error:
            raise _outage(f"what it says of somebody makes no sense: {error}") from error

    def _check(self, login: str, password: str) -> Account | None:
        settings = self._settings
        if settings.user_dn:
            dn = settings.user_dn.replace("{login}", escape_dn_chars(login))
            with self._connected() as connection:
                if not _binds(connection, dn, password):
                    return None
                # With their own eyes: what they may not read of themselves is not told.
                found = connection.search_ext_s(
                    dn, ldap.SCOPE_BASE, "(objectClass=*)", self._attributes(), sizelimit=1
                )
                return self._account(login, found[0], self._groups(connection, found[0], login))
        with self._connected() as ours:
            self._bind_as_ourselves(ours)
            entry = self._find(ours, login)
            with self._connected() as theirs:
                # Also for nobody, so that a name that is not there takes as many steps.
                dn = entry[0] if entry else f"cn=nobody,{settings.base}"
                if not _binds(theirs, dn, password) or entry is None:
                    return None
            return self._account(login, entry, self._groups(ours, entry, login))

    def _find(self, connection: Any, login: str) -> _Entry | None:
        filter_ = self._settings.filter.replace("{login}", escape_filter_chars(login))
        try:
            found = _entries(
                connection.search_ext_s(
                    self._settings.base,
                    ldap.SCOPE_SUBTREE,
                    filter_,
                    self._attributes(),
                    sizelimit=2,
                )
            )
        except ldap.SIZELIMIT_EXCEEDED:
            found = []
        if len(found) > 1:
            _log.warning("the directory has several entries for one login name: nobody is let in")
        return found[0] if len(found) == 1 else None

    def _groups(self, connection: Any, entry: _Entry, login: str) -> list[str]:
        settings = self._settings
        if not settings.group_base:
            return [value.decode() for value in entry[1].get("memberOf", [])]
        filter_ = settings.group_filter.replace("{dn}", escape_filter_chars(entry[0]))
        filter_ = filter_.replace("{login}", escape_filter_chars(login))
        found = connection.search_ext_s(
            settings.group_base, ldap.SCOPE_SUBTREE, filter_, ["1.1"], sizelimit=_MOST_GROUPS
        )
        return [dn for dn, _ in _entries(found)]

    def _account(self, login: str, entry: _Entry, groups: list[str]) -> Account:
        settings, values = self._settings, entry[1]

        def first(attribute: str) -> str:
            given = next(
                (each for name, each in values.items() if name.lower() == attribute), [b""]
            )
            if attribute == "objectguid" and given[0]:
                return str(uuid.UUID(bytes_le=given[0]))  # MS-DTYP 2.3.4.2
            return given[0].decode()

        roles = [self._roles[_normal(dn)] for dn in groups if _normal(dn) in self._roles]
        names = [str2dn(dn)[0][0][1] for dn in groups]
        return checked_account(
            canonical_login(login),
            subject=first(settings.subject.lower()),
            name=first(settings.name.lower()),
            tenant=settings.tenant,
            email=first(settings.email.lower()),
            roles=tuple(roles),
            groups=tuple(name for name in names if "," not in name),
        )

    def _attributes(self) -> list[str]:
        settings = self._settings
        return [settings.subject, settings.name, settings.email, "memberOf"]

    def _bind_as_ourselves(self, connection: Any) -> None:
        settings = self._settings
        if not settings.bind_dn:
            return
        secret = settings.bind_password.value if settings.bind_password else ""
        try:
            connection.simple_bind_s(settings.bind_dn, secret)
        except _NO as error:
            # Ours is wrong, not theirs: that must not look like a wrong password.
            raise _outage("it does not take login.ldap.bind_password") from error

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        settings = self._settings
        connection = ldap.initialize(settings.url)
        connection.protocol_version = ldap.VERSION3
        connection.set_option(ldap.OPT_REFERRALS, 0)
        connection.set_option(ldap.OPT_NETWORK_TIMEOUT, settings.timeout)
        connection.set_option(ldap.OPT_TIMEOUT, settings.timeout)
        connection.set_option(ldap.OPT_X_TLS_REQUIRE_CERT, ldap.OPT_X_TLS_DEMAND)
        if settings.ca_file:
            connection.set_option(ldap.OPT_X_TLS_CACERTFILE, settings.ca_file)
        connection.set_option(ldap.OPT_X_TLS_NEWCTX, 0)  # last: it takes up what was set before
        try:
            if settings.url.lower().startswith("ldap:") and settings.security == "starttls":
                connection.start_tls_s()
            yield connection
        finally:
            connection.unbind_ext()


def _binds(connection: Any, dn: str, password: str) -> bool:
    """Tell whether *password*, which is not empty, is that of the entry *dn*."""
    assert password
    try:
        connection.simple_bind_s(dn, password)
    except _NO:
        return False
    return True


def _entries(found: list[Any]) -> list[_Entry]:
    """Return what was found, without the referrals among it."""
    return [(dn, values) for dn, values in found if dn is not None]


def _normal(dn: str) -> tuple[tuple[tuple[str, str], ...], ...]:
    """Return *dn* in a form in which equal ones are equal: names and values without case."""
    return tuple(
        tuple(sorted((name.lower(), value.casefold()) for name, value, _ in rdn))
        for rdn in str2dn(dn)
    )


def _outage(problem: str) -> AuthUnavailable:
    _log.warning("the directory cannot be asked: %s", problem)
    return AuthUnavailable(f"the directory cannot be asked: {problem}", retry_after=5)

"""Who is calling: from the credentials of a request to a `Caller`.

How this works. A request may carry two credentials: the session cookie, which a browser sends by
itself, and a bearer token in `Authorization`, which somebody put there on purpose.

| cookie | bearer token | the caller is |
| --- | --- | --- |
| none | none | absent |
| good | none | the session's identity |
| no good | none | rejected, for the session's reason |
| any | no good | rejected, for the token's reason |
| none, or no good | good | the token's identity |
| good, same subject | good | the token's identity: what was put there on purpose decides |
| good, other subject | good | rejected: `credentials_conflict` |
| sent twice | any | rejected: `cookie_ambiguous` |

A bearer token is our credential only if an issuer is configured (`tokens:`). Then it ends here.
Otherwise, and with any other scheme (`Basic`, `DPoP`, …), `Authorization` belongs to the upstream
and is passed on untouched: `is_our_authorization` is that rule, for forwarding to use.

A store or an issuer that does not answer is an outage (`AuthUnavailable`), never "not signed in".
"""

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import msgspec

from auth.cookies import AMBIGUOUS, session_cookie
from auth.decision import Reason
from auth.identity import ABSENT, Authenticated, Caller, Rejected
from auth.ports import SessionStore, TokenVerifier
from auth.session import SessionRecord, identity_of
from auth.site_cookie import Opener, may_open, read_cookie

_BEARER = re.compile(r"bearer(?:[ \t]|$)", re.IGNORECASE)  # RFC 9110 11.1: case-insensitive
_MOST_IDENTITIES = 20_000
"""Callers remembered, one for each session that is asked about; then all of them are made anew."""
_NO_COOKIE = Opener("")


class Credentials(msgspec.Struct, frozen=True):
    """What a request offers as proof of who is calling; empty parts were not offered."""

    session_digest: str = ""
    """The digest of the session cookie's value; the value itself goes no further."""
    token: str = ""
    """The bearer token as it came, of whatever form."""
    site_key: str = ""
    """Of a cookie that is good at one site only (`auth.site_cookie`)."""
    host: str = ""
    """Where such a cookie was shown."""

    def __repr__(self) -> str:
        return f"Credentials(session_digest={self.session_digest!r}, token={bool(self.token)})"

    def shown_at(self, host: str) -> "Credentials":
        """Return the same for a request to *host* (`RequestHead.host`)."""
        if not self.site_key or self.host == host:
            return self
        return msgspec.structs.replace(self, host=host)


NO_CREDENTIALS = Credentials()


def is_our_authorization(value: str, *, issuers_configured: bool) -> bool:
    """Tell whether the `Authorization` field *value* is for the gateway, and so ends here."""
    return issuers_configured and _BEARER.match(value) is not None


def find_credentials(
    cookie_values: Iterable[str],
    authorization_values: Sequence[str],
    cookie_name: str,
    *,
    issuers_configured: bool = True,
    host: str = "",
) -> Credentials | Rejected:
    """Find the credentials in the values of `Cookie` and `Authorization`, in order of arrival.

    *host* is whom the request is for; a cookie that is good at one site only is good there.

    Returns:
        Rejected if it cannot be told which credential is meant: two session cookies (a sibling
        domain may have planted one), or a bearer token beside another `Authorization`.
    """
    cookie = session_cookie(cookie_values, cookie_name)
    if cookie is AMBIGUOUS:
        return Rejected(Reason.COOKIE_AMBIGUOUS)
    opener = read_cookie(cookie) if isinstance(cookie, str) and cookie else _NO_COOKIE
    ours = [
        value
        for value in authorization_values
        if is_our_authorization(value, issuers_configured=issuers_configured)
    ]
    of_site = {"site_key": opener.site_key, "host": host} if opener.site_key else {}
    if not ours:
        if not opener.session_digest:
            return NO_CREDENTIALS
        return Credentials(opener.session_digest, **of_site)
    if len(authorization_values) > 1:  # RFC 6750 section 2: one credential, in one place
        return Rejected(Reason.TOKEN_MALFORMED)
    token = ours[0][len("bearer") :].lstrip(" ")
    if not token:
        return Rejected(Reason.TOKEN_MALFORMED)
    return Credentials(opener.session_digest, token, **of_site)


class Authenticator:
    """Turns credentials into a caller.

    Args:
        store: where sessions live.
        verifier: who bearer tokens speak for; None when no issuer is configured.
        cookie_name: the session cookie's name, as sent.
    """

    def __init__(
        self, store: SessionStore, verifier: TokenVerifier | None, *, cookie_name: str
    ) -> None:
        self._store = store
        self._verifier = verifier
        self._cookie_name = cookie_name
        self._identities: dict[str, tuple[SessionRecord, Authenticated]] = {}

    @property
    def issuers_configured(self) -> bool:
        """Whether bearer tokens are our credential; see `is_our_authorization`."""
        return self._verifier is not None

    def find_credentials(
        self, cookie_values: Iterable[str], authorization_values: Sequence[str]
    ) -> Credentials | Rejected:
        """Do what the function of the same name does, with this gateway's settings."""
        return find_credentials(
            cookie_values,
            authorization_values,
            self._cookie_name,
            issuers_configured=self._verifier is not None,
        )

    def peek(self, credentials: Credentials, now: float) -> Caller | None:
        """Return the caller if that can be said without waiting, else None.

        *now* is epoch seconds. Never raises; None says nothing about the caller.
        """
        by_session: Caller = ABSENT
        if credentials.session_digest:
            record = self._store.peek(credentials.session_digest)
            if record is None:
                return None
            by_session = self._caller(record, credentials, now)
        if not credentials.token:
            return by_session
        by_token = None if self._verifier is None else self._verifier.peek(credentials.token)
        return None if by_token is None else _reconcile(by_session, by_token, now)

    def ask(
        self, credentials: Credentials, now: float, then: Callable[[Caller | None], None]
    ) -> None:
        """Call *then* with the caller: at once, or when the store has answered; no task waits.

        None says that only `authenticate` can tell: there is a token, or the store was lost.
        *then* must not raise.
        """
        if credentials.token or not credentials.session_digest:
            then(None)
            return

        def tell(found: SessionRecord | str | None) -> None:
            if found is None:
                then(None)
            elif isinstance(found, str):
                then(Rejected(found))
            else:
                caller = None
                # Whatever it is, `authenticate` fails in the same way, where failures are answered.
                with suppress(Exception):
                    caller = self._caller(found, credentials, now)
                then(caller)

        self._store.ask(credentials.session_digest, tell)

    async def authenticate(
        self, credentials: Credentials, now: float, serve_cached: float = 0.0
    ) -> Caller:
        """Return the caller, asking the store and the issuers where needed.

        *now* is epoch seconds. With *serve_cached* (seconds), a session that was known good when
        the store was lost is still good for that long.

        Raises:
            AuthUnavailable: the store or an issuer's keys could not be asked.
        """
        by_token: Caller = ABSENT
        if credentials.token:
            if self._verifier is None:
                return Rejected(Reason.TOKEN_ISSUER_UNKNOWN)
            by_token = await self._verifier.verify(credentials.token, serve_cached=serve_cached)
            if isinstance(by_token, Rejected):
                return by_token
        by_session: Caller = ABSENT
        if credentials.session_digest:
            found = await self._store.find(credentials.session_digest, serve_cached=serve_cached)
            if isinstance(found, SessionRecord):
                by_session = self._caller(found, credentials, now)
            else:
                by_session = Rejected(found)
        return _reconcile(by_session, by_token, now) if credentials.token else by_session

    def _caller(self, record: SessionRecord, credentials: Credentials, now: float) -> Caller:
        """Return the caller a live *record* stands for; the same object for the same record.

        That the object stays the same lets others remember by it (assertions, decisions). Nothing
        is believed from here: the record comes from the store each time.
        """
        if record.expires_at <= now:
            return Rejected(Reason.SESSION_EXPIRED)
        # Before what is remembered, which is the session's at every site of its.
        if credentials.site_key and not may_open(
            record, host=credentials.host, site_key=credentials.site_key
        ):
            return Rejected(Reason.COOKIE_OF_OTHER_SITE)
        session_digest = credentials.session_digest
        held = self._identities.get(session_digest)
        if held is not None and held[0] is record:
            return held[1]
        if len(self._identities) >= _MOST_IDENTITIES:
            self._identities.clear()
        caller = Authenticated(identity_of(record, session_digest))
        self._identities[session_digest] = (record, caller)
        return caller


def _reconcile(by_session: Caller, by_token: Caller, now: float) -> Caller:
    """Return the caller of a request that carries a bearer token; the table is at the top."""
    if not isinstance(by_token, Authenticated):
        return by_token
    if by_token.identity.expires_at <= now:
        return Rejected(Reason.TOKEN_EXPIRED)
    if (
        isinstance(by_session, Authenticated)
        and by_session.identity.subject != by_token.identity.subject
    ):
        return Rejected(Reason.CREDENTIALS_CONFLICT)
    return by_token

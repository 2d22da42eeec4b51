"""One request to the service, with everything about the browser that is asked more than once."""

from typing import Literal
from urllib.parse import urlsplit

import msgspec

from auth.cookies import form_cookie_name
from auth.decision import StepUp, step_up_in
from auth.identity import Authenticated, Caller, Identity
from auth.login.device import device_of
from auth.login.messages import LoginRequest
from auth.login.negotiation import Representation, preferred
from auth.login.provenance import (
    FormTokens,
    Provenance,
    origin_of,
    own_origins,
    provenance_of,
)
from auth.origins import Origins
from auth.return_url import safe_return_url
from auth.session import SessionRecord, digest
from auth.site_cookie import read_cookie
from auth.wording import ENGLISH, Wording, Wordings
from config.model import Configuration

_RETURN = "back from signing out at a provider"
"""In place of a session's digest, so that such a token is good for no form."""
_OF_SITES = "doorward-from-other-site"
"""In place of a browser's nonce: who signs out at a site comes back where they signed in, and has
another nonce there. All that such a token does is to lead on to that site, and to choose the words
of a page."""


class Visit(msgspec.Struct, frozen=True):
    """A request, judged."""

    request: LoginRequest
    provenance: Provenance
    session_digest: str
    """Of the session cookie that was presented, alive or not; empty without one."""
    origin: str
    """Where the browser thinks it is: `return_to` for a page of ours begins with it."""
    return_origins: frozenset[str]
    nonce: str
    """What the form cookie holds, or shall hold when `nonce_is_new`."""
    nonce_is_new: bool
    token: str
    """For the forms of the page that answers."""
    token_is_good: bool
    """Whether the form that was sent carries the token of this browser and session."""
    return_token: str
    """The `state` for signing out at a provider, and whether the query brings it back."""
    has_returned: bool
    left_site: str = ""
    """The site where that sign-out began, if it has come back to where people sign in."""
    site: str = ""
    """The origin, if it is one of several sites that people sign in to at another one."""
    sign_in_origin: str = ""
    """Where people sign in; `origin`, unless that is such a site."""
    wording: Wording = ENGLISH
    """The language that the person reads best, of those there are."""

    def stamped(self, record: SessionRecord) -> SessionRecord:
        """Return *record* with where it is begun, as its owner shall see it."""
        request = self.request
        device = device_of(request.fields.get("user-agent", ""))
        return msgspec.structs.replace(record, begun_on=device, begun_from=request.client_address)

    @property
    def identity(self) -> Identity | None:
        """Who is calling, if they proved it."""
        caller = self.request.caller
        return caller.identity if isinstance(caller, Authenticated) else None

    @property
    def carries_bearer(self) -> bool:
        """Whether there is a bearer token, which no form of another site can attach."""
        return self.request.fields.get("authorization", "")[:7].lower() == "bearer "

    @property
    def return_to(self) -> str:
        """Where the person wanted to go, as far as it is ours; `/` otherwise."""
        form = self.request.form.get("return_to")
        return safe_return_url(form or "/", origins=self.return_origins)

    @property
    def step_up(self) -> StepUp | None:
        """What the sign-in must come to, as a route that asked for it said."""
        return step_up_in(self.request.query) or step_up_in(self.request.form)

    @property
    def may_change_sessions(self) -> bool:
        """Whether this POST is the person's own wish (contract section 4, sign-out)."""
        if self.carries_bearer or self.provenance is Provenance.OWN:
            return True
        return self.provenance is Provenance.UNKNOWN and self.token_is_good

    @property
    def may_sign_in(self) -> bool:
        """Whether this POST may start a session in the client that sends it.

        Otherwise another site could sign a person in as somebody else, and read what they write.
        """
        if self.provenance is not Provenance.UNKNOWN:
            return self.provenance is Provenance.OWN
        if "token" in self.request.form:
            return self.token_is_good
        return True  # a program: see `auth.login.provenance`

    @property
    def misplaced(self) -> str:
        """The origin of the form, if it is this very host in another scheme or under another port.

        So it is when `public_url` is not what people type: the form is our own, and cannot be told
        from one of somebody else who has that origin. Empty for any other form.
        """
        if self.provenance is not Provenance.FOREIGN:
            return ""
        origin = origin_of(self.request.fields.get("origin", ""))
        hosts = {urlsplit(each).hostname for each in (self.origin, *self.return_origins)}
        return origin if origin and urlsplit(origin).hostname in hosts else ""

    def prefers(self, *, unless_told: Representation) -> Literal["page", "json"]:
        """Return what the client would rather have."""
        return preferred(self.request.fields.get("accept", ""), unless_told=unless_told)


class Visits:
    """Judges requests for one configuration."""

    def __init__(
        self, configuration: Configuration, tokens: FormTokens, wordings: Wordings | None = None
    ) -> None:
        """Take the settings that say which origins and cookies are ours.

        Without *wordings* everybody reads English.
        """
        self._wordings = wordings or Wordings([ENGLISH])
        self._public_url = configuration.server.public_url
        self._origins = Origins.of(configuration)
        self._cookie_name = configuration.session.cookie_name
        self.form_cookie_name = form_cookie_name(self._cookie_name)
        self._tokens = tokens

    def receive(self, request: LoginRequest) -> Visit:
        """Return *request* with what it says about the browser."""
        reached = urlsplit(origin_of(request.origin or f"http://{request.fields.get('host', '')}"))
        host, authority = reached.hostname or "", reached.netloc
        origin = self._origins.of_request(host, authority)
        site = origin if origin in self._origins.sites else ""
        own = self._own_origins(request, site)
        presented = _presented(request.cookies.get(self._cookie_name, ""), request.caller)
        nonce = request.cookies.get(self.form_cookie_name, "")
        token = request.form.get("token", "")
        token_is_good = self._tokens.is_token(token, nonce, presented)
        nonce_is_new = not self._tokens.is_nonce(nonce)
        if nonce_is_new:
            nonce = self._tokens.new_nonce()
        state = request.query.get("state", "")
        return Visit(
            request=request,
            provenance=provenance_of(request.fields, own),
            session_digest=presented,
            origin=origin,
            site=site,
            sign_in_origin=self._origins.public if site else origin,
            return_origins=self._origins.accepted(host, authority),
            nonce=nonce,
            nonce_is_new=nonce_is_new,
            token=self._tokens.token(nonce, presented),
            token_is_good=token_is_good,
            return_token=self._tokens.token(*_returning(nonce, site)),
            has_returned=self._tokens.is_token(state, *_returning(nonce, site)),
            left_site="" if site else self._site_left(state),
            wording=self._wordings.choose(request.fields.get("accept-language", "")),
        )

    def _own_origins(self, request: LoginRequest, site: str) -> frozenset[str]:
        """Return whose forms *request* may bring."""
        if site:
            # Its own alone, as it is known from the route file: what else there is where people
            # sign in, a backend's pages perhaps, has no say at the sites.
            return frozenset({site})
        return own_origins(
            public_url=self._public_url,
            origin=request.origin,
            host=request.fields.get("host", ""),
        )

    def _site_left(self, state: str) -> str:
        """Return the site that *state*, of a sign-out at a provider, was made at; or nothing."""
        if not state:
            return ""
        left = (
            each
            for each in self._origins.sites
            if self._tokens.is_token(state, *_returning("", each))
        )
        return next(left, "")


def _returning(nonce: str, site: str) -> tuple[str, str]:
    """Return what the token is made of that comes back from signing out at a provider."""
    return (_OF_SITES, f"{_RETURN}\n{site}") if site else (nonce, _RETURN)


def _presented(cookie: str, caller: Caller) -> str:
    """Return the digest of the session that *cookie* names, as far as it may.

    A session's own cookie names it by being known. A site's cookie says the digest, which is no
    secret: others are told it (`sid` of the assertion). So it counts only if it has opened the
    session for *caller*; else anybody could end whose digest they have heard.
    """
    if not cookie:
        return ""
    opener = read_cookie(cookie)
    if not opener.site_key:
        return opener.session_digest
    identity = caller.identity if isinstance(caller, Authenticated) else None
    opened = identity is not None and identity.session_digest == opener.session_digest
    return opener.session_digest if opened else digest(cookie)

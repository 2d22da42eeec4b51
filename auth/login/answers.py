"""How the service says things: pages, JSON and redirects, none of which any cache may keep."""

import math
from collections.abc import Mapping
from urllib.parse import urlencode, urlsplit

import msgspec

from auth.cookies import form_cookie_name
from auth.decision import AGAIN, StepUp
from auth.login.look import Look, passkey_script, wordings_of
from auth.login.messages import LoginAnswer
from auth.login.pages import Pages
from auth.login.passkey import RelyingParty
from auth.login.visit import Visit
from auth.wording import ENGLISH, Values, Wording, phrase
from config.model import Configuration

LOGIN_PATH = "/.doorward/login"
LOGOUT_PATH = "/.doorward/logout"
SESSIONS_PATH = "/.doorward/sessions"
AUTHORIZE_PATH = "/.doorward/authorize"
ONWARD = ("acr_values", "max_age", "provider", "prompt", AGAIN)
"""What a site hands on of what the route that was asked for says about signing in."""
FORGOT_PATH = "/.doorward/forgot-password"
SET_PASSWORD_PATH = "/.doorward/set-password"  # noqa: S105 - a path
REGISTER_PATH = "/.doorward/register"
CONFIRM_PATH = "/.doorward/confirm-account"
SECOND_FACTOR_PATH = "/.doorward/second-factor"
FORM_PATH = "/.doorward/form"
ACCOUNT_PATH = "/.doorward/account"
PASSWORD_PATH = f"{ACCOUNT_PATH}/password"
AUTHENTICATOR_PATH = f"{ACCOUNT_PATH}/authenticator"
RECOVERY_CODES_PATH = f"{ACCOUNT_PATH}/recovery-codes"
PASSKEYS_PATH = f"{ACCOUNT_PATH}/passkeys"
PASSKEY_SCRIPT_PATH = "/.doorward/passkeys.js"
ACCOUNT_PATHS = (
    SECOND_FACTOR_PATH,
    ACCOUNT_PATH,
    PASSWORD_PATH,
    AUTHENTICATOR_PATH,
    RECOVERY_CODES_PATH,
    PASSKEYS_PATH,
    PASSKEY_SCRIPT_PATH,
)
"""What there is of accounts of our own, beside signing in."""

Fields = tuple[tuple[str, str], ...]

# On every answer. `no-store`: all of them are about one person (RFC 9111 section 5.2.2.5).
_ALWAYS: Fields = (("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"))


class Problem(msgspec.Struct, frozen=True):
    """Something that did not work: for programs (RFC 9457), for people, and for the log.

    Title and detail are for the catalogues (`auth.wording`), with `%(name)s` for the values.
    """

    status: int
    code: str
    """What `X-Doorward-Error` says."""
    title: str
    """A short sentence."""
    detail: str = ""
    """What to do about it."""
    values: Values = {}

    @property
    def is_ours(self) -> bool:
        """Whether nothing that was typed is wrong, so that somebody may have to ask for help."""
        return self.status >= 500 or self.code == "foreign_form"

    def in_words(self, wording: Wording) -> tuple[str, str]:
        """Return title and detail in the language of *wording*."""
        title, detail = (wording.say(text, **self.values) for text in (self.title, self.detail))
        return title, detail


_TOO_MANY = Problem(429, "too_many_attempts", "Too many attempts.")


def patience(wait: float) -> Problem:
    """Return what somebody is told who may try again in *wait* seconds."""
    minutes = math.ceil(wait / 60)
    if minutes == 1:
        return msgspec.structs.replace(_TOO_MANY, detail=phrase("Please try again in a minute."))
    return msgspec.structs.replace(
        _TOO_MANY,
        detail=phrase("Please try again in %(minutes)s minutes."),
        values={"minutes": minutes},
    )


class Link(msgspec.Struct, frozen=True):
    """Somewhere to go from a page; the text is in its language already."""

    url: str
    text: str


class Answers:
    """Makes the answers of one configuration."""

    def __init__(self, configuration: Configuration, pages: Pages | None = None) -> None:
        """Take the settings and their *pages*, which are compiled here if nobody has before."""
        self.site = urlsplit(configuration.server.public_url).netloc
        """What authenticator apps call this site."""
        self._pages = pages or Pages(Look.of(configuration))
        self._is_named = bool(configuration.pages.name)
        self.wordings = wordings_of(configuration)
        self._session = configuration.session
        self._login = configuration.login
        url = (
            self._login.url if urlsplit(self._login.url).netloc else configuration.server.public_url
        )
        name = configuration.pages.name
        self.party = RelyingParty.at(url, name=name) if self.takes_passwords else None
        """Whom passkeys are made for; None where browsers offer none."""

    @property
    def serves_sign_in(self) -> bool:
        """Whether people sign in here, and not at a login service of the operator's own."""
        has_ways = self._login.accounts or bool(self._login.providers) or self._delegates
        return has_ways and urlsplit(self._login.url).path == LOGIN_PATH

    @property
    def takes_passwords(self) -> bool:
        """Whether people may sign in here with a password."""
        return (self._login.accounts or self._delegates) and self.serves_sign_in

    @property
    def has_accounts(self) -> bool:
        """Whether the passwords that are taken are those of our own accounts."""
        return self.takes_passwords and not self._delegates

    def offers_passkeys(self, visit: Visit) -> bool:
        """Tell whether the browser of *visit* is where our passkeys can be used."""
        return self.party is not None and visit.origin == self.party.origin

    @property
    def _delegates(self) -> bool:
        return self._login.user_service is not None or self._login.ldap is not None

    @property
    def offers_reset(self) -> bool:
        """Whether people may ask for a link when they forgot their password."""
        return self.has_accounts and self._login.mail is not None

    @property
    def offers_registration(self) -> bool:
        """Whether strangers may sign up."""
        return self.offers_reset and self._login.registration is not None

    def page(  # noqa: PLR0913 - the parts of an answer
        self,
        visit: Visit,
        name: str,
        values: Mapping[str, object],
        *,
        status: int = 200,
        fields: Fields = (),
        error: str = "",
        problem: Problem | None = None,
        with_passkeys: bool = False,
    ) -> LoginAnswer:
        """Return the page *name*, with the cookie that its forms need.

        *problem* is shown on it, and gives the answer its status and its code. *with_passkeys* lets
        it run our script, where that is of use.
        """
        title, advice = problem.in_words(visit.wording) if problem else ("", "")
        if problem:
            status, error = problem.status, problem.code
        scripted = with_passkeys and self.offers_passkeys(visit)
        everywhere: dict[str, object] = {
            "problem": title,
            "advice": advice,
            "faulty": (),
            "reference": visit.request.request_id if problem and problem.is_ours else "",
            "token": visit.token,
            "signed_in_as": _name(visit),
            "login_path": self._login.url,
            "logout_path": LOGOUT_PATH,
            "sessions_path": SESSIONS_PATH,
            "account_path": ACCOUNT_PATH,
            "passkey_script": PASSKEY_SCRIPT_PATH if scripted else "",
        }
        if visit.site and not self._is_named:
            # People know the place by where they are, not by where they signed in.
            everywhere["site"] = urlsplit(visit.site).netloc
        if visit.nonce_is_new:
            fields = (*fields, ("Set-Cookie", self._form_cookie(visit.nonce)))
        body = self._pages.render(name, everywhere | dict(values), visit.wording)
        spoken = ("Content-Language", visit.wording.language)
        own = self._pages.fields
        if scripted and self.party:
            # The paths are part of it: what else there is at our origin is not ours alone.
            own = self._pages.fields_with(
                script=f"{self.party.origin}{PASSKEY_SCRIPT_PATH}",
                connect=f"{self.party.origin}/.doorward/",
            )
        return _answer(status, (*own, spoken, *fields), body, error)

    def script(self) -> LoginAnswer:
        """Return the script of the pages that know passkeys."""
        kind = ("Content-Type", "text/javascript; charset=utf-8")
        return _answer(200, (kind,), passkey_script().encode())

    def json(
        self, values: object, *, status: int = 200, fields: Fields = (), error: str = ""
    ) -> LoginAnswer:
        """Return *values* as JSON."""
        kind = ("Content-Type", "application/json")
        return _answer(status, (kind, *fields), msgspec.json.encode(values), error)

    def problem(self, problem: Problem, *, fields: Fields = ()) -> LoginAnswer:
        """Return *problem* as `application/problem+json`, in English."""
        title, detail = problem.in_words(ENGLISH)
        body = {"title": title, "status": problem.status, "code": problem.code}
        if detail:
            body["detail"] = detail
        kind = ("Content-Type", "application/problem+json")
        return _answer(problem.status, (kind, *fields), msgspec.json.encode(body), problem.code)

    def error_page(
        self,
        visit: Visit,
        problem: Problem,
        *,
        fields: Fields = (),
        again: str = "",
        way_on: str = "",
    ) -> LoginAnswer:
        """Return *problem* as a page of its own.

        *again* is where to try again, which *way_on*, a phrase, says in other words.
        """
        heading, explanation = problem.in_words(visit.wording)
        front = Link("/", visit.wording.say(phrase("To the front page")))
        retry = Link(again, visit.wording.say(way_on or phrase("Try again")))
        return self.page(
            visit,
            "error",
            {
                "status": "",
                "heading": heading,
                "explanation": explanation,
                "explanation_language": "",
                "reference": visit.request.request_id,
                "links": [retry, front] if again else [front],
            },
            status=problem.status,
            fields=fields,
            error=problem.code,
        )

    def redirect(self, location: str, *, fields: Fields = ()) -> LoginAnswer:
        """Send the browser to *location* with GET (303, so that it drops the form it sent)."""
        return _answer(303, (("Location", location), *fields), b"")

    def away(self, location: str, *, fields: Fields = ()) -> LoginAnswer:
        """Send the browser to *location*, and have it not say from where.

        For redirects that have a code in their URL: the next request must not carry it in a
        `Referer` (RFC 9700 section 4.2.4). They have no form, so `no-referrer` does no harm.
        """
        return self.redirect(location, fields=(("Referrer-Policy", "no-referrer"), *fields))

    def to_sign_in(
        self,
        *,
        origin: str,
        path: str,
        step_up: StepUp | None = None,
        more: Mapping[str, str] | None = None,
    ) -> LoginAnswer:
        """Send the browser to sign in, with the way back to *path* on *origin*.

        *step_up* is what that must come to; *more* are parameters beside it.
        """
        joint = "&" if "?" in self._login.url else "?"
        asked = {self._login.return_parameter: f"{origin}{path}", **(more or {})}
        asked |= step_up.parameters if step_up else {}
        return self.redirect(f"{self._login.url}{joint}{urlencode(asked)}")

    @property
    def challenge(self) -> tuple[str, str]:
        """The field that must go with a 401 (RFC 9110 section 15.5.2)."""
        return ("WWW-Authenticate", f'Cookie realm="doorward", form-action="{self._login.url}"')

    def _form_cookie(self, nonce: str) -> str:
        name = form_cookie_name(self._session.cookie_name)
        secure = "; Secure" if self._session.secure else ""
        # Lax, not Strict: a person who follows a link from another site still gets to a page
        # whose form works. The token, not this attribute, is the defence.
        return f"{name}={nonce}; Path=/.doorward/; HttpOnly; SameSite=Lax{secure}"


def _name(visit: Visit) -> str:
    identity = visit.identity
    return (identity.name or identity.subject) if identity else ""


def _answer(status: int, fields: Fields, body: bytes, error: str = "") -> LoginAnswer:
    marker: Fields = (("X-Doorward-Error", error),) if error else ()
    return LoginAnswer(status, (*_ALWAYS, *marker, *fields), body, error)

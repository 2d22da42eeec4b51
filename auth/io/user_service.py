"""Asking a service of the operator's whether a password is right.

It gets `POST` with `{"username", "password"}` and answers 200 with who that is, or 401. Anything
else is an outage and lets nobody in: what we cannot read for certain is no yes.
"""

import logging

import aiohttp
import msgspec

from auth.io.fetching import LoadError, open_wary_session, read_bounded
from auth.login.account import Account, AccountError, checked_account
from auth.ports import AuthUnavailable
from config.model import UserService

_log = logging.getLogger("doorward.login")

_LARGEST = 64 * 1024


class _Person(msgspec.Struct, frozen=True):
    """What the service says of somebody; members that we do not know are passed over."""

    subject: str
    name: str = ""
    tenant: str = ""
    email: str = ""
    roles: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


class UserServiceCheck:
    """Signs people in whom the service at `settings.url` knows."""

    def __init__(self, settings: UserService) -> None:
        self._settings = settings

    async def sign_in(self, login: str, password: str) -> Account | None:
        """Return who *login* is if *password* is theirs, as the service says.

        Raises:
            AuthUnavailable: it does not answer, or not as it should.
        """
        settings = self._settings
        fields = {"Content-Type": "application/json"}
        if settings.token:
            fields["Authorization"] = f"Bearer {settings.token.value}"
        body = msgspec.json.encode({"username": login, "password": password})
        timeout = aiohttp.ClientTimeout(total=settings.timeout)
        try:
            async with (
                open_wary_session(timeout) as http,
                # A redirect would take the password to somebody whom the operator has not named.
                http.post(settings.url, data=body, headers=fields, allow_redirects=False) as answer,
            ):
                if answer.status == 401:
                    return None
                if answer.status != 200:
                    raise _outage(f"it answered with status {answer.status}")
                content = await read_bounded(answer, settings.url, largest=_LARGEST)
        except TimeoutError as error:
            raise _outage("it did not answer in time") from error
        except (aiohttp.ClientError, OSError, LoadError) as error:
            raise _outage(type(error).__name__) from error
        return _account(login, content)


def _account(login: str, content: bytes) -> Account:
    try:
        person = msgspec.json.decode(content, type=_Person)
        return checked_account(
            login,
            subject=person.subject,
            name=person.name,
            tenant=person.tenant,
            email=person.email,
            roles=person.roles,
            groups=person.groups,
        )
    except AccountError as error:
        raise _outage(f"what it says of somebody makes no account: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _outage("what it says of somebody makes no sense") from error


def _outage(problem: str) -> AuthUnavailable:
    _log.warning("the user service cannot be asked: %s", problem)
    return AuthUnavailable(f"the user service cannot be asked: {problem}", retry_after=5)

"""Several sites that share one sign-in, and browsers that go from one to another."""

from collections.abc import Mapping
from urllib.parse import parse_qsl, urljoin, urlsplit

from auth.authentication import Authenticator, find_credentials
from auth.identity import Authenticated, Caller, Rejected
from auth.io.site_codes import SiteCodes
from auth.login.messages import LoginAnswer, LoginRequest
from auth.login.service import LoginService
from auth.ports import SessionStore
from config.model import Configuration, Login, Provider
from tests.auth.login.conftest import PASSWORD, PUBLIC, SECRET, Site, configured, cookies_of, field
from tests.auth.login.page_reader import PageReader

SHOP, HELP = "https://shop.example.com", "https://help.example.org"
LOGIN, AUTHORIZE = "/.doorward/login", "/.doorward/authorize"
CALLBACK, LOGOUT = "/.doorward/callback", "/.doorward/logout"


def shared(*providers: Provider) -> Configuration:
    """People sign in at `PUBLIC`, for `SHOP` and `HELP`; other hosts are nobody's site."""
    login = Login(sites=(SHOP, HELP), providers=providers)
    hosts = ("shop.example.com", "help.example.org", "other.example.com")
    return configured(login=login, hosts=hosts)


def sharing(site: Site, settings: Configuration | None = None) -> LoginService:
    """Return the sign-in of `SHOP` and `HELP`, on *site*'s store and accounts."""
    codes = SiteCodes(site.store.commands)
    return LoginService(settings or shared(), site.store, site.accounts, SECRET, site_codes=codes)


class Traveller:
    """A browser: cookies by origin, and every redirect followed as far as a test wants."""

    def __init__(self, service: LoginService, store: SessionStore) -> None:
        self.service = service
        self.store = store
        self.jars: dict[str, dict[str, str]] = {}
        self.seen: list[str] = []
        """The URLs that were asked for."""
        self._authenticator = Authenticator(store, None, cookie_name="__Host-doorward")

    def another(self) -> "Traveller":
        """Return the browser of somebody else."""
        return Traveller(self.service, self.store)

    def session(self, origin: str) -> str:
        """Return the session cookie's value at *origin*, or an empty string."""
        return self.jars.get(origin, {}).get("__Host-doorward", "")

    async def caller(self, origin: str) -> Caller:
        """Return who the gateway says is calling from *origin*."""
        jar = "; ".join(f"{name}={value}" for name, value in self.jars.get(origin, {}).items())
        host = urlsplit(origin).hostname or ""
        found = find_credentials([jar] if jar else [], [], "__Host-doorward", host=host)
        if isinstance(found, Rejected):
            return found
        return await self._authenticator.authenticate(found, 0.0)

    async def subject_at(self, origin: str) -> str:
        """Return who the browser is at *origin*, or why it is nobody."""
        caller = await self.caller(origin)
        if isinstance(caller, Authenticated):
            return caller.identity.subject
        return caller.reason if isinstance(caller, Rejected) else ""

    async def get(self, url: str) -> LoginAnswer:
        return await self.send("GET", url)

    async def post(self, url: str, form: Mapping[str, str]) -> LoginAnswer:
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        return await self.send("POST", url, form=form, fields={"origin": origin})

    async def send(
        self,
        method: str,
        url: str,
        *,
        form: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> LoginAnswer:
        url = urljoin(self.seen[-1] if self.seen else PUBLIC, url)
        self.seen.append(url)
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        jar = self.jars.setdefault(origin, {})
        request = LoginRequest(
            method=method,
            path=parts.path,
            query=dict(parse_qsl(parts.query)),
            form=form or {},
            cookies=dict(jar),
            fields={"host": parts.netloc, "accept": "text/html", **(fields or {})},
            client_address="192.0.2.1",
            caller=await self.caller(origin),
            origin=origin,
            request_id="request-1",
        )
        answer = await self.service.handle(request)
        for cookie in cookies_of(answer):
            name, _, rest = cookie.partition("=")
            if "Max-Age=0" in cookie:
                jar.pop(name, None)
            else:
                jar[name] = rest.partition(";")[0]
        return answer

    async def go_on(self, answer: LoginAnswer) -> LoginAnswer:
        """Follow a redirect, or the page that sends the browser on."""
        if answer.status == 303:
            return await self.get(field(answer, "location"))
        (link,) = PageReader(answer.body).all("a", **{"class": "button full"})
        return await self.get(link.attributes["href"])

    async def begin(self, site: str, return_to: str = "/", **asked: str) -> str:
        """Begin to sign in at *site*; return the URL at the sign-in's origin."""
        more = "".join(f"&{name}={value}" for name, value in asked.items())
        answer = await self.get(f"{site}{LOGIN}?return_to={return_to}{more}")
        assert answer.status == 303
        return field(answer, "location")

    async def sign_in(self) -> None:
        """Sign in where people sign in."""
        form = {"username": "ada", "password": PASSWORD}
        assert (await self.post(f"{PUBLIC}{LOGIN}", form)).status == 303

    async def code_for(self, site: str, return_to: str = "/") -> str:
        """Go as far as the code for *site*; return the URL that has it."""
        answer = await self.get(await self.begin(site, return_to))
        assert answer.status == 303, answer.error
        return field(answer, "location")

    async def enter(self, site: str, return_to: str = "/") -> LoginAnswer:
        """Come in at *site* with the session there is; return the last answer."""
        return await self.get(await self.code_for(site, return_to))

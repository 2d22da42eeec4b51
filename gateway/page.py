"""The one page with which the gateway tells a person that something is not as they hoped.

It is the login service's error page, so that both look and read alike (`auth.login.pages`).
"""

from urllib.parse import urlsplit

import msgspec

from auth.login.answers import Link
from auth.login.look import Look, wordings_of
from auth.login.pages import Pages, pages_of
from auth.wording import Wording, Wordings, built_in
from config.model import Configuration
from gateway.head import RequestHead


class Page(msgspec.Struct, frozen=True):
    """What the page says, in the language of its reader."""

    status: int
    heading: str
    detail: str
    links: tuple[Link, ...]
    request_id: str
    detail_language: str = ""
    """Of the detail, if it is another one (WCAG 2.2, 3.1.2)."""
    asked: str = ""
    """The authority that was asked for."""


class RefusalPages:
    """The page of one gateway, in its languages."""

    def __init__(
        self, pages: Pages, wordings: Wordings, sites: frozenset[str] = frozenset()
    ) -> None:
        """Take the templates, the catalogues, and the authorities that are shown as names."""
        self._pages = pages
        self._sites = sites
        self._wordings = wordings

    def wording_for(self, head: RequestHead) -> Wording:
        """Return the language that whoever sent *head* reads best."""
        return self._wordings.choose(", ".join(head.by_name.get("accept-language", ())))

    def render(self, page: Page, wording: Wording) -> tuple[bytes, tuple[tuple[str, str], ...]]:
        """Return the page in UTF-8, and the fields that go with it."""
        values = {
            "problem": "",
            "status": page.status,
            "heading": page.heading,
            "explanation": page.detail,
            "explanation_language": page.detail_language,
            "links": page.links,
            "reference": page.request_id,
        }
        if page.asked in self._sites:
            values["site"] = page.asked
        body = self._pages.render("error", values, wording)
        return body, (*self._pages.kind, ("Content-Language", wording.language))


def refusal_pages(configuration: Configuration) -> RefusalPages:
    """Return the page of the gateway that *configuration* describes."""
    pages = pages_of(Look.of(configuration), names=("error",))
    # Without a name for all of them, each site goes by its own.
    sites = () if configuration.pages.name else configuration.login.sites
    netlocs = frozenset(urlsplit(each).netloc for each in sites)
    return RefusalPages(pages, wordings_of(configuration), netlocs)


PLAIN = RefusalPages(Pages(Look(""), names=("error",)), Wordings(built_in().values()))
"""For whoever knows no site."""

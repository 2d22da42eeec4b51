"""The one page with which the gateway tells a person that something is not as they hoped.

It is the login service's error page, so that both look and read alike (`auth.login.pages`).
"""

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


class RefusalPages:
    """The page of one site, in its languages."""

    def __init__(self, pages: Pages, wordings: Wordings) -> None:
        """Take the templates and the catalogues."""
        self._pages = pages
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
        body = self._pages.render("error", values, wording)
        return body, (*self._pages.kind, ("Content-Language", wording.language))


def refusal_pages(configuration: Configuration) -> RefusalPages:
    """Return the page of the site that *configuration* describes."""
    pages = pages_of(Look.of(configuration), names=("error",))
    return RefusalPages(pages, wordings_of(configuration))


PLAIN = RefusalPages(Pages(Look(""), names=("error",)), Wordings(built_in().values()))
"""For whoever knows no site."""

"""The pages, and the fields that keep a browser from doing anything else with them.

Every template is found and compiled at start, so a broken one is found there. Values are escaped
by jinja2; the only markup that is not a template's or a catalogue's is the style sheet of this
package.

A page extends `base.html`: it fills the blocks `title`, `content`, sometimes `head` and
`main_class`, and writes its English in `{% trans %}…{% endtrans %}` (values as
`{% trans name=signed_in_as %}`) or as `{{ _("…") }}` in attributes. Besides its own values it
finds `site`, `logo` and `language`, and in the login service what `Answers.page` gives to every
page: `problem`, `advice`, `token`, `signed_in_as` and the paths. A form is `method="post"`, goes
to a path of ours and carries `token`; see `login.html` for labels and faults. A new page is added
to `NAMES`, its German to `auth/languages/de.po`.
"""

import hashlib
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache

import jinja2
import msgspec
from markupsafe import Markup

from auth.login.look import Look, our_style, our_templates, problem_of, wording_problems
from auth.login.own_templates import Fault, template_faults
from auth.wording import ENGLISH, Wording
from config.model import Configuration
from config.problem import Problem

NAMES = (
    "login", "logout", "signed_out", "sessions", "error", "onward",
    "second_factor", "account", "passkeys", "password", "authenticator", "recovery_codes",
    "forgot_password", "set_password", "register", "done", "kept_form",
)  # fmt: skip
"""The pages there are."""


class Moment(msgspec.Struct, frozen=True):
    """A time as a page shows it."""

    iso: str
    text: str
    """Date and time of day in UTC: without a script we do not know the person's own zone."""
    ago: str


def moment(at: float, now: float, wording: Wording = ENGLISH) -> Moment:
    """Return the time *at* (epoch seconds) as seen from *now*."""
    when = datetime.fromtimestamp(int(at), UTC)
    return Moment(
        iso=when.isoformat().replace("+00:00", "Z"),
        text=wording.date(when),
        ago=wording.ago(now - at),
    )


class Environment(jinja2.Environment):
    """Compiles templates in which values are escaped and texts are translated."""

    newstyle_gettext = True  # values are escaped, and a percent sign is written twice everywhere

    def __init__(self, templates: Mapping[str, str]) -> None:
        """Take *templates* by file name."""
        super().__init__(
            loader=jinja2.DictLoader(templates),
            extensions=["jinja2.ext.i18n"],
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        self.policies["ext.i18n.trimmed"] = True


OnFault = Callable[[str, Exception], None]
"""Gets the name of a page of the operator's own that could not be shown, and why."""


def _kind(policy: str) -> tuple[tuple[str, str], ...]:
    return (
        ("Content-Type", "text/html; charset=utf-8"),
        ("Content-Security-Policy", policy),
    )


class Pages:
    """The templates of one site."""

    def __init__(
        self, look: Look, *, names: Iterable[str] = NAMES, on_fault: OnFault | None = None
    ) -> None:
        """Load those with *names*. A page of the operator's that fails is shown as ours."""
        self._look = look
        self._on_fault = on_fault
        style = look.style or our_style()
        digest = b64encode(hashlib.sha256(style.encode()).digest()).decode()
        ours = Environment(our_templates())
        theirs = Environment({**our_templates(), **look.templates}) if look.templates else ours
        for environment in (ours, theirs):
            assert "<" not in style, "nothing in the style sheet may end its element"
            environment.globals["style"] = Markup(style)  # noqa: S704 - checked above
            environment.globals["site"] = look.site
            environment.globals["logo"] = look.logo
        names = tuple(names)
        self._ours = {name: ours.get_template(f"{name}.html") for name in names}
        self._theirs = {name: theirs.get_template(f"{name}.html") for name in names}
        images = "img-src data:; " if look.logo else ""
        policy = (
            f"default-src 'none'; {images}style-src 'sha256-{digest}'; form-action 'self'; "
            "frame-ancestors 'none'; base-uri 'none'"
        )
        self._policy = policy
        self.kind = _kind(policy)
        self._guards: tuple[tuple[str, str], ...] = (
            ("X-Frame-Options", "DENY"),
            ("Cross-Origin-Opener-Policy", "same-origin"),
            # Addresses of pages have codes and tokens, and the services behind us share their
            # origin. Not `no-referrer`: browsers would write `Origin: null` into our own forms.
            ("Referrer-Policy", "strict-origin"),
        )
        self.fields = (*self.kind, *self._guards)

    def fields_with(self, *, script: str, connect: str) -> tuple[tuple[str, str], ...]:
        """Return the fields of a page that runs *script*, a URL, which may ask what *connect* is.

        A URL that ends in a slash stands for what begins with it.
        """
        policy = f"{self._policy}; script-src {script}; connect-src {connect}"
        return (*_kind(policy), *self._guards)

    def render(self, name: str, values: Mapping[str, object], wording: Wording = ENGLISH) -> bytes:
        """Return the page *name* with *values* in it, in the language of *wording*.

        Raises:
            jinja2.UndefinedError: the page needs a value that is not there.
        """
        spoken = {
            "language": wording.language,
            "gettext": wording.gettext,
            "ngettext": wording.ngettext,
        }
        if self._look.templates:
            try:
                return self._theirs[name].render(values, **spoken).encode()
            except Exception as error:  # noqa: BLE001 - whatever the operator wrote
                if self._on_fault is not None:
                    self._on_fault(name, error)
        return self._ours[name].render(values, **spoken).encode()


def pages_of(look: Look, *, names: Iterable[str] = NAMES, on_fault: OnFault | None = None) -> Pages:
    """Return `Pages(look, ...)`; while the site looks the same, those that were compiled before.

    It takes a tenth of a second, and templates refer to each other in circles: what each reload
    compiled anew would stay until the collector comes.
    """
    templates = tuple(look.templates.items())
    return _compiled(look.site, look.style, look.logo, templates, tuple(names), on_fault)


@lru_cache(maxsize=4)  # the refusals' page and the login service's, before a reload and after it
def _compiled(  # noqa: PLR0913, PLR0917 - what a look consists of, as a cache can compare it
    site: str,
    style: str,
    logo: str,
    templates: tuple[tuple[str, str], ...],
    names: tuple[str, ...],
    on_fault: OnFault | None,
) -> Pages:
    return Pages(Look(site, style, logo, dict(templates)), names=names, on_fault=on_fault)


def page_problems(configuration: Configuration) -> list[Problem]:
    """Return what is wrong with the operator's own templates, style sheet and catalogues."""
    pages = configuration.pages
    look = Look.of(configuration)
    problems = wording_problems(configuration)
    if look.templates:
        faults = template_faults(Environment({}), our_templates(), look.templates)
        problems += [problem_of(pages, fault) for fault in faults]
    for name, text in pages.files:
        if name.endswith(".css") and (name != "style.css" or "<" in text):
            line = text[: max(0, text.find("<"))].count("\n") + 1
            message = "a style sheet is called style.css, and has no '<' in it"
            problems.append(problem_of(pages, Fault(name, line, message)))
    return sorted(problems)

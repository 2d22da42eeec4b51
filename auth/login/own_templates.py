"""The operator's own templates, checked before anybody sees them.

A template of theirs takes the place of ours with the same name, or is a part that another one of
theirs includes. What can be known without rendering is refused when the route file is loaded: what
does not compile, a value that nobody gives to the page, a file that is not there, and whatever
would turn escaping off (`|safe`, `{% autoescape %}`). What only rendering shows makes the page fall
back to ours: see `auth.login.pages`.
"""

from collections.abc import Iterator, Mapping

import msgspec
from jinja2 import Environment, TemplateSyntaxError, meta, nodes


class Fault(msgspec.Struct, frozen=True, order=True):
    """What is wrong with a file of the operator's."""

    file: str
    line: int
    message: str


def template_faults(
    environment: Environment, ours: Mapping[str, str], theirs: Mapping[str, str]
) -> list[Fault]:
    """Return everything that is wrong with *theirs*, sorted; both are name to source."""
    known = _values_of(environment, ours)
    faults: list[Fault] = []
    referred: set[str] = set()
    for name, source in theirs.items():
        try:
            tree = environment.parse(source, name=name)
            environment.compile(tree, name=name, filename=name)
        except TemplateSyntaxError as error:
            faults.append(Fault(name, error.lineno, error.message or "it is malformed"))
            continue
        missing = meta.find_undeclared_variables(tree) - known
        faults += [
            Fault(name, node.lineno, f"nobody gives {node.name!r} to a page")
            for node in tree.find_all(nodes.Name)
            if node.name in missing
        ]
        faults += _escapes(name, tree)
        for line, wanted in _references(tree):
            referred.add(wanted)
            if wanted not in ours and wanted not in theirs:
                faults.append(Fault(name, line, f"there is no template {wanted!r}"))
    pages = ", ".join(sorted(ours))
    faults += [
        Fault(name, 1, f"there is no such page, and nothing includes it; the pages are {pages}")
        for name in theirs
        if name not in ours and name not in referred
    ]
    return sorted(set(faults))


def _values_of(environment: Environment, ours: Mapping[str, str]) -> set[str]:
    """Return every name that our own templates use; all of them are given to the pages."""
    trees = (environment.parse(source) for source in ours.values())
    used = set().union(*(meta.find_undeclared_variables(tree) for tree in trees))
    return used | {"gettext", "ngettext", "logo", "language", "site", "style", "_"}


def _escapes(name: str, tree: nodes.Template) -> Iterator[Fault]:
    """Yield what would let somebody else's words through as markup."""
    for used in tree.find_all(nodes.Filter):
        if used.name == "safe":
            yield Fault(name, used.lineno, "the filter 'safe' would undo the escaping")
    for node in tree.find_all((nodes.EvalContextModifier, nodes.MarkSafe)):
        yield Fault(name, node.lineno, "escaping stays on")
    for attribute in tree.find_all(nodes.Getattr):
        if attribute.attr.startswith("_"):
            yield Fault(name, attribute.lineno, f"{attribute.attr!r} is nothing for a page")


def _references(tree: nodes.Template) -> Iterator[tuple[int, str]]:
    for node in tree.find_all((nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport)):
        template = node.template  # type: ignore[attr-defined] # each of these has one
        given = template.as_const() if isinstance(template, nodes.Const | nodes.List) else ""
        names = [given] if isinstance(given, str) else given
        yield from ((node.lineno, str(each)) for each in names if each)

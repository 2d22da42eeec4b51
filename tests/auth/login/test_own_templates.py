"""What is refused of the operator's own templates."""

import pytest

from auth.login.look import our_templates
from auth.login.own_templates import template_faults
from auth.login.pages import Environment

OURS = our_templates()
PAGE = '{% extends "base.html" %}\n{% block content %}\n'


def faults(**theirs: str) -> list[tuple[str, int, str]]:
    named = {f"{name}.html": source for name, source in theirs.items()}
    found = template_faults(Environment({}), OURS, named)
    return [(each.file, each.line, each.message) for each in found]


def test_our_own_templates_are_good_ones() -> None:
    assert template_faults(Environment({}), OURS, OURS) == []


@pytest.mark.parametrize(
    ("source", "line", "words"),
    [
        ("{{ site }\n", 1, "unexpected"),
        (f"{PAGE}{{% if problem %}}\n", 3, "end of template"),
        (f"{PAGE}{{{{ site | nothing }}}}{{% endblock %}}", 3, "nothing"),
        (f"{PAGE}{{{{ usernme }}}}{{% endblock %}}", 3, "'usernme'"),
        (f"{PAGE}{{{{ problem | safe }}}}{{% endblock %}}", 3, "safe"),
        (f"{PAGE}{{% autoescape false %}}{{{{ problem }}}}{{% endautoescape %}}", 3, ""),
        (f"{PAGE}{{{{ ''.__class__ }}}}{{% endblock %}}", 3, "__class__"),
        ('{% include "foter.html" %}', 1, "foter.html"),
        ('\n{% extends "bas.html" %}', 2, "bas.html"),
    ],
    ids=["open", "unclosed", "filter", "name", "safe", "autoescape", "inside", "include", "base"],
)
def test_a_broken_template_is_found_at_its_line(source: str, line: int, words: str) -> None:
    ((file, found, message), *_) = faults(login=source)
    assert (file, found) == ("login.html", line)
    assert words in message


def test_escaping_cannot_be_turned_off() -> None:
    source = f"{PAGE}{{% autoescape false %}}{{{{ problem }}}}{{% endautoescape %}}{{% endblock %}}"
    assert faults(login=source) == [("login.html", 3, "escaping stays on")]


def test_every_fault_of_every_file_is_told() -> None:
    found = faults(login="{{ a }}\n{{ b }}", error="{{ c }}")
    assert [(file, line) for file, line, _ in found] == [
        ("error.html", 1),
        ("login.html", 1),
        ("login.html", 2),
    ]


def test_a_page_that_does_not_exist_is_a_slip() -> None:
    ((file, _, message),) = faults(logon="x")
    assert file == "logon.html"
    assert "login.html" in message


def test_a_part_may_have_any_name_if_something_includes_it() -> None:
    assert faults(base='{% include ["imprint.html", "base.html"] %}', imprint="{{ site }}") == []


def test_a_template_may_use_names_of_its_own() -> None:
    assert (
        faults(login="{% set x = site %}{{ x }}{% for y in providers %}{{ y.label }}{% endfor %}")
        == []
    )

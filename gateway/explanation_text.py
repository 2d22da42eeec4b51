"""An `Explanation` as a person reads it on a terminal."""

from collections.abc import Iterable

from gateway.explain import AccessLine, Explanation

_SAID = {
    "allow": "allowed",
    "challenge": "challenged: signing in could help",
    "deny": "denied: signing in again would not help",
    "not-found": "reaches no route",
}
_MARKS = {True: "yes", False: "NO ", None: " - "}
_WIDTH = 10


def render_explanation(explanation: Explanation) -> str:
    """Return *explanation* as lines of text, one part after the other."""
    sections = [
        ("verdict", _verdict(explanation)),
        ("route", _route(explanation)),
        ("caller", _caller(explanation)),
        ("access", [_access_line(line) for line in explanation.access]),
        ("answer", _answer(explanation)),
        ("upstream", _upstream(explanation)),
        ("others", _others(explanation)),
    ]
    lines = [f"{explanation.method} {explanation.url}"]
    for title, texts in sections:
        lines += _section(title, texts)
    return "\n".join(lines)


def _section(title: str, texts: Iterable[str]) -> list[str]:
    return [
        f"  {title if at == 0 else '':<{_WIDTH}}{text}".rstrip() for at, text in enumerate(texts)
    ]


def _verdict(explanation: Explanation) -> list[str]:
    texts = [f"{_SAID[explanation.verdict]} ({explanation.reason})"]
    if explanation.detail:
        texts.append(explanation.detail)
    return texts


def _route(explanation: Explanation) -> list[str]:
    route = explanation.route
    if route is None:
        return ["none"]
    texts = [f"{route.id} (line {route.line}): {route.match}"]
    texts += [f"{name} = {value}" for name, value in route.params.items()]
    return texts


def _caller(explanation: Explanation) -> list[str]:
    if explanation.caller is None:
        return ["nobody is signed in"]
    return [f"{name}: {_plain(value)}" for name, value in explanation.caller.items()]


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _access_line(line: AccessLine) -> str:
    return f"{_MARKS[line.holds]} {line.requirement}"


def _answer(explanation: Explanation) -> list[str]:
    answer = explanation.answer
    if answer is None:
        return []
    return [str(answer.status), *(f"{name}: {value}" for name, value in answer.fields)]


def _upstream(explanation: Explanation) -> list[str]:
    if explanation.route is None or not explanation.upstream_request:
        return []
    where = f"{explanation.route.upstream} at {' or '.join(explanation.route.endpoints)}"
    return [where, *(f"| {line}" for line in explanation.upstream_request)]


def _others(explanation: Explanation) -> list[str]:
    texts = [f"{miss.route} (line {miss.line}): {miss.why}" for miss in explanation.others]
    if explanation.others_left_out:
        texts.append(f"and {explanation.others_left_out} more, further away")
    return texts

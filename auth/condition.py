"""A `when:` condition: CEL (github.com/google/cel-spec), checked at load, evaluated per request.

Every name that a condition may read is declared with its type, so that a misspelt name or a
comparison of a text with a number is an error of the route file and not of a request.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from cel_expr_python import cel

from auth.identity import Identity

_STRING = cel.Type.STRING
_STRINGS = cel.Type.List(_STRING)
_TEXTS_BY_NAME = cel.Type.Map(_STRING, _STRING)
_VARIABLES: dict[str, Any] = {
    "request.method": _STRING,
    "request.path": _STRING,
    "request.host": _STRING,
    "request.params": _TEXTS_BY_NAME,
    "request.headers": _TEXTS_BY_NAME,
    "identity.subject": _STRING,
    "identity.method": _STRING,
    "identity.name": _STRING,
    "identity.tenant": _STRING,
    "identity.email": _STRING,
    "identity.issuer": _STRING,
    "identity.roles": _STRINGS,
    "identity.groups": _STRINGS,
    "identity.scopes": _STRINGS,
    "identity.amr": _STRINGS,
    "identity.acr": _STRING,
    "identity.auth_time": cel.Type.INT,
    "identity.claims": cel.Type.Map(_STRING, cel.Type.DYN),
}
_LISTS = frozenset({"roles", "groups", "scopes", "amr"})
_LONGEST = 8192
"""Characters of an expression; the longest rules of other gateways stay below 2,000."""


_MOST_KNOWN = 4096
"""Results that one condition remembers."""
_LONGEST_KNOWN = 512
"""Bytes of the values behind a result that is remembered; 3 MB for a condition at the very most."""


class PolicyError(ValueError):
    """A `when:` that cannot be compiled. `column` counts characters of the expression, from 1."""

    def __init__(self, message: str, *, column: int = 1) -> None:
        super().__init__(message)
        self.column = column


class RequestFacts(msgspec.Struct, frozen=True):
    """What a `when:` condition may read of the request."""

    method: str
    path: str
    host: str
    params: Mapping[str, str]
    headers: Mapping[str, str]
    """Lower-case name to value; a name that came more than once is joined with a comma."""


class Condition(msgspec.Struct, frozen=True):
    """A compiled condition and what it reads; only that is handed to it."""

    evaluate: Callable[..., Any]
    request_names: tuple[tuple[str, str], ...]
    """Name in CEL and attribute of `RequestFacts`; the same for the two below."""
    identity_names: tuple[tuple[str, str], ...]
    identity_lists: tuple[tuple[str, str], ...]
    reads: frozenset[str]
    """The attributes of `RequestFacts` that it reads."""
    reads_request: bool
    """Whether it reads anything of the request but the method."""
    reads_identity: bool
    parameters: frozenset[str]
    """The parts of the path that it counts on: `request.params.NAME`, without a `has` around it."""
    known: dict[bytes, bool] = msgspec.field(default_factory=dict)
    """What it came to before: CEL has neither a clock nor a state, so the same values say the same.

    By all the values it reads, encoded; who asks with a new token each time is the same person.
    """


def compile_condition(expression: str) -> Condition:
    """Parse and type-check *expression*.

    Raises:
        PolicyError: it does not parse, reads a name there is not, or is not a boolean. (A value
            whose type is only known at run time, such as a claim, is let through here.)
    """
    if len(expression) > _LONGEST:
        raise PolicyError(f"the condition is longer than {_LONGEST} characters")
    compiled = _compile(_VARIABLES, expression)
    kind = compiled.return_type()
    if kind not in (cel.Type.BOOL, cel.Type.DYN):
        raise PolicyError(f"the condition must be true or false, this is {kind.name().lower()}")
    read = [name for name in _VARIABLES if _reads(expression, name)]
    request = [(name, name.partition(".")[2]) for name in read if name.startswith("request.")]
    identity = [(name, name.partition(".")[2]) for name in read if name.startswith("identity.")]
    condition = Condition(
        evaluate=compiled.eval,
        request_names=tuple(request),
        identity_names=tuple(pair for pair in identity if pair[1] not in _LISTS),
        identity_lists=tuple(pair for pair in identity if pair[1] in _LISTS),
        reads=frozenset(attribute for _, attribute in request),
        reads_request=any(attribute != "method" for _, attribute in request),
        reads_identity=bool(identity),
        parameters=_parameters_in(expression),
    )
    _refuse_bad_patterns(condition)
    return condition


def evaluate_condition(
    condition: Condition, identity: Identity, facts: RequestFacts | None
) -> bool | None:
    """Return whether *condition* is true, or None when it raised an error or gave no boolean."""
    values: dict[str, Any] = {}
    try:
        for name, attribute in condition.identity_names:
            values[name] = getattr(identity, attribute)
        for name, attribute in condition.identity_lists:
            values[name] = list(getattr(identity, attribute))
        for name, attribute in condition.request_names:
            values[name] = getattr(facts, attribute)
        encoded = _encode(values)
        known = condition.known.get(encoded)
        if known is not None:
            return known
        # The runtime cuts a text at a NUL: "admin\0x" would equal "admin". None may come near it.
        if _NUL in encoded:
            return None
        result = condition.evaluate(data=values).value()
    except Exception:  # noqa: BLE001 - whatever the runtime raises (a lone surrogate does) denies
        return None
    # CEL errors come back as a value of another type; only the two booleans are an answer.
    if result is not True and result is not False:
        return None
    if len(encoded) <= _LONGEST_KNOWN:
        if len(condition.known) >= _MOST_KNOWN:
            condition.known.clear()
        condition.known[encoded] = result
    return result


_encode = msgspec.json.Encoder().encode
_NUL = b"\\u0000"

_compiler_by_names: dict[frozenset[str], Any] = {}
_LOCATION = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*)")
_UNDECLARED = re.compile(r"undeclared reference to '([^']+)'")


def _compile(variables: Mapping[str, Any], expression: str) -> Any:
    names = frozenset(variables)
    environment = _compiler_by_names.get(names)
    if environment is None:
        environment = _compiler_by_names[names] = cel.NewEnv(variables=dict(variables))
    try:
        return environment.compile(expression)
    except (RuntimeError, ValueError, UnicodeError) as error:
        raise _readable(str(error), expression) from None


def _reads(expression: str, name: str) -> bool:
    """Tell whether *expression* needs *name*: it does not compile without it."""
    if name.partition(".")[2] not in expression:
        return False
    without = {key: kind for key, kind in _VARIABLES.items() if key != name}
    try:
        _compile(without, expression)
    except PolicyError:
        return True
    return False


# A name of `request.params` in one of its two spellings; or a text, in which nothing counts.
_PARAMETER = re.compile(
    r"""(has\(\s*)?request\s*\.\s*params\s*(?:\.\s*(\w+)|\[\s*(["'])(\w+)\3\s*\])"""
    r"""|\"{3}.*?\"{3}|'{3}.*?'{3}|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'""",
    re.DOTALL,
)


def _parameters_in(expression: str) -> frozenset[str]:
    """Return the names that *expression* reads of `request.params`, but those it asks for first."""
    found = [(match[1], match[2] or match[4]) for match in _PARAMETER.finditer(expression)]
    asked_for = {name for has, name in found if has}
    return frozenset(name for _, name in found if name) - asked_for


def _readable(message: str, expression: str) -> PolicyError:
    """Turn the compiler's text into one line, with the column in the whole expression."""
    found = _LOCATION.search(message)
    if found is None:
        if "recursion limit" in message:
            return PolicyError("the condition is nested too deeply")
        return PolicyError("the condition cannot be read")
    line, column, text = int(found[1]), int(found[2]), found[3].removesuffix(" [INVALID_ARGUMENT]")
    offset = sum(len(part) for part in expression.splitlines(keepends=True)[: line - 1]) + column
    undeclared = _UNDECLARED.search(text)
    if undeclared is None:
        return PolicyError(text.partition(" expecting {")[0], column=offset)
    name = undeclared[1]
    # The compiler points at the last dot of a qualified name; a person looks for its beginning.
    if not expression.startswith(name, offset - 1):
        offset = max(expression.rfind(name, 0, offset + len(name)) + 1, 1)
    return PolicyError(f"there is no {name}{_suggest(name)}", column=offset)


def _suggest(name: str) -> str:
    """Return the declared name that may have been meant, as the end of a sentence."""
    head = ".".join(name.split(".")[:2])
    if name in ("request", "identity"):
        parts = ", ".join(key.partition(".")[2] for key in _VARIABLES if key.startswith(name))
        return f" by itself; it has {parts}"
    near = difflib.get_close_matches(head, _VARIABLES, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]}?"
    return ""


def _refuse_bad_patterns(condition: Condition) -> None:
    """Refuse a `matches` whose constant pattern is no regular expression: it would always deny."""
    values: dict[str, Any] = {name: "" for name, _ in condition.identity_names}
    values |= {name: [] for name, _ in condition.identity_lists}
    values |= {name: "" for name, _ in condition.request_names}
    for name in values.keys() & {"request.params", "request.headers", "identity.claims"}:
        values[name] = {}
    if "identity.auth_time" in values:
        values["identity.auth_time"] = 0
    outcome = str(condition.evaluate(data=values).value())
    _, marker, fault = outcome.partition("invalid regular expression: ")
    if marker:
        raise PolicyError(f"invalid regular expression: {fault}")

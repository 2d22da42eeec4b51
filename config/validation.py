"""Hold a document against the schema and say every difference, each at its place.

How this works: `compile_schema` turns a schema into nested functions once, and each function checks
one value and reports problems at the value's own place. A general validator would do, and the tests
hold this one against `jsonschema` as the oracle; but it takes a quarter of a millisecond for a
route, which is seconds for ten thousand of them, and tells of a difference in its own words and
without a place. This one knows the keywords that `config.schema` uses and refuses any other.
Alternatives (`anyOf`) must differ by type, so that a problem is always one alternative's problem.
"""

import difflib
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, Final

from config.document import Place, PlacedMapping, PlacedSequence, quoted
from config.formats import FORMATS
from config.problem import Problem
from config.substitution import Filled

Report = Callable[[Place, str], None]
Check = Callable[[Any, Place, Report], None]
"""Check a value that stands at a place."""

_KEYWORDS: Final = frozenset(
    {
        *("$schema", "title", "description", "default", "writeOnly", "pattern", "examples"),
        *("type", "const", "enum", "format", "minLength", "anyOf", "x-at-least", "x-at-most"),
        *("properties", "required", "additionalProperties", "propertyNames", "minProperties"),
        *("items", "minItems", "uniqueItems"),
    }
)
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
}
_CALLED: Final = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "boolean": "true or false",
}


def validate(root: Any, place: Place, check: Check) -> list[Problem]:
    """Return every difference between the document *root* and what *check* was compiled from."""
    problems: list[Problem] = []
    check(root, place, lambda at, message: problems.append(Problem(*at, message)))
    return problems


def compile_schema(schema: dict[str, Any], name: str = "") -> Check:
    """Return the check of *schema*; *name* is what messages call the value, as `session.lease`.

    Raises:
        ValueError: the schema uses a keyword that is not known here.
    """
    if unknown := schema.keys() - _KEYWORDS:
        raise ValueError(f"{name}: no check for the keywords {sorted(unknown)}")
    if "anyOf" in schema:
        return _compile_alternatives(schema["anyOf"], name)
    if "const" in schema:
        return _compile_constant(schema["const"], name)
    checks: list[Check] = []
    types = _types_of(schema)
    if "enum" in schema:
        checks.append(_compile_choice(schema, name))
    if "format" in schema:
        checks.append(_compile_format(schema, name))
    elif schema.get("minLength"):
        checks.append(_compile_not_empty(name))
    if "object" in types:
        checks.append(_compile_mapping(schema, name))
    if "array" in types:
        checks.append(_compile_list(schema, name))
    return _compile_type(schema, types, checks, name)


def suggestion(value: str, known: Iterable[str]) -> str:
    """Return `; did you mean "x"?` when one of *known* is near to *value*, else nothing."""
    # A comparison takes time that grows with the product of the lengths.
    candidates = [word for word in known if len(word) <= 64][:2000]
    near = difflib.get_close_matches(value[:64], candidates, n=1) if len(value) <= 64 else []
    return f"; did you mean {quoted(near[0])}?" if near else ""


def shown(value: Any) -> str:
    """Return *value* as a message may show it."""
    if isinstance(value, Filled):
        return "what was put in"
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    if value is None:
        return "nothing"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _types_of(schema: dict[str, Any]) -> tuple[str, ...]:
    types = schema.get("type")
    if types is None:
        return tuple({_type_name(value) for value in schema["enum"]}) if "enum" in schema else ()
    return (types,) if isinstance(types, str) else tuple(types)


def _type_name(value: Any) -> str:
    for name in ("boolean", "integer", "number", "string", "object", "array"):
        if isinstance(value, _TYPES[name]):
            return name
    raise ValueError(f"no check for the choice {value!r}")


def _called(name: str) -> str:
    return f"{name}: " if name else ""


def _compile_type(
    schema: dict[str, Any], types: tuple[str, ...], checks: list[Check], name: str
) -> Check:
    accepted = tuple(kind for each in types for kind in _TYPES[each])
    bool_too = "boolean" in types or not types
    expected = schema.get("title") or " or ".join(_CALLED[each] for each in types)
    if len(checks) > 1:
        raise ValueError(f"{name}: several checks of one value; name its types in anyOf")
    of_type = checks[0] if checks else None
    wants_text = types == ("string",) and schema.keys().isdisjoint({"enum", "format"})
    hidden = schema.get("writeOnly", False)
    choices = f"one of {_choices(schema['enum'])}" if "enum" in schema else expected

    def check(value: Any, place: Place, report: Report) -> None:
        if accepted and (not isinstance(value, accepted) or (type(value) is bool and not bool_too)):
            found = "this" if hidden else shown(value)
            hint = ""
            if wants_text and isinstance(value, int | float) and not hidden:
                hint = f'; quote it to make it text: "{found}"'
            report(place, f"{_called(name)}{choices} is needed here, not {found}{hint}")
            return
        if of_type is not None:
            of_type(value, place, report)

    return check


def _compile_alternatives(schemas: list[dict[str, Any]], name: str) -> Check:
    by_type: list[tuple[tuple[type, ...], Check]] = []
    expected: list[str] = []
    seen: set[str] = set()
    for schema in schemas:
        types = _types_of(schema)
        if seen & set(types):
            raise ValueError(f"{name}: alternatives of one type")
        seen |= set(types)
        by_type.append((tuple(k for t in types for k in _TYPES[t]), compile_schema(schema, name)))
        choices = f"one of {_choices(schema['enum'])}" if "enum" in schema else ""
        expected.append(choices or schema.get("title") or " or ".join(_CALLED[t] for t in types))

    def check(value: Any, place: Place, report: Report) -> None:
        for kinds, alternative in by_type:
            if isinstance(value, kinds):
                alternative(value, place, report)
                return
        message = f"{' or '.join(expected)} is needed here, not {shown(value)}"
        report(place, f"{_called(name)}{message}")

    return check


def _compile_constant(constant: Any, name: str) -> Check:
    def check(value: Any, place: Place, report: Report) -> None:
        if type(value) is not type(constant) or value != constant:
            report(place, f"{_called(name)}this must be {shown(constant)}, not {shown(value)}")

    return check


def _choices(choices: list[Any]) -> str:
    return ", ".join(dict.fromkeys(str(shown(choice)).strip('"') for choice in choices))


def _compile_choice(schema: dict[str, Any], name: str) -> Check:
    choices = schema["enum"]
    allowed = {(type(choice), choice) for choice in choices}
    words = [choice for choice in choices if isinstance(choice, str)]
    message = schema.get("title") or f"one of {_choices(choices)}"

    def check(value: Any, place: Place, report: Report) -> None:
        kind = str if isinstance(value, str) else type(value)
        if (kind, value) not in allowed:
            near = suggestion(value, words) if kind is str and type(value) is not Filled else ""
            report(place, f"{_called(name)}{message} is needed here, not {shown(value)}{near}")

    return check


def _compile_format(schema: dict[str, Any], name: str) -> Check:
    parse: Callable[[Any], Any] = FORMATS[schema["format"]]
    title = schema["title"]
    hidden = schema.get("writeOnly", False)
    low, high = schema.get("x-at-least"), schema.get("x-at-most")
    least, most = (parse(low) if low else None), (parse(high) if high else None)

    def check(value: Any, place: Place, report: Report) -> None:
        try:
            parsed = parse(value)
        except ValueError as error:
            if hidden or type(value) is Filled:
                report(place, f"{_called(name)}what stands here is not {title}")
            else:
                report(place, f"{name} {shown(value)}: {error}")
            return
        if least is not None and most is not None and not least <= parsed <= most:
            report(place, f"{name} {shown(value)} is not between {low} and {high}")

    return check


def _compile_not_empty(name: str) -> Check:
    def check(value: Any, place: Place, report: Report) -> None:
        if value == "":
            report(place, f"{_called(name)}this must not be empty")

    return check


def _compile_mapping(schema: dict[str, Any], name: str) -> Check:
    dot = f"{name}." if name else ""
    checks = {
        key: compile_schema(value, dot + key) for key, value in schema.get("properties", {}).items()
    }
    others = schema.get("additionalProperties", True)
    check_other = compile_schema(others, f"{dot}*") if isinstance(others, dict) else None
    names = schema.get("propertyNames")
    check_name = compile_schema(names, name) if names else None
    check_presence = _compile_presence(schema, name)
    where = f" in {name}" if name else ""

    def check(value: Any, place: Place, report: Report) -> None:
        if type(value) is not PlacedMapping:
            return
        places = value.places
        for key, item in value.items():
            known = checks.get(key, check_other)
            if known is not None:
                known(item, places[key], report)
            elif others is False:
                near = _near_key(key, frozenset(checks.keys() - value.keys()))
                report(value.key_places[key], f"unknown key {quoted(key)}{where}{near}")
            if check_name is not None:
                check_name(key, value.key_places[key], report)
        check_presence(value, place, report)

    return check


def _compile_presence(schema: dict[str, Any], name: str) -> Check:
    required = schema.get("required", ())
    minimum = schema.get("minProperties", 0)
    where = f" in {name}" if name else ""

    def check(value: Any, place: Place, report: Report) -> None:
        for key in required:
            if key not in value:
                report(place, f"the key {quoted(key)} is missing{where}")
        if len(value) < minimum:
            report(place, f"{_called(name)}this must not be empty")

    return check


@cache
def _near_key(key: str, known: frozenset[str]) -> str:
    return suggestion(key, sorted(known))


def _compile_list(schema: dict[str, Any], name: str) -> Check:
    check_item = compile_schema(schema["items"], f"{name}[]")
    minimum = schema.get("minItems", 0)
    unique = schema.get("uniqueItems", False)

    def check(value: Any, place: Place, report: Report) -> None:
        if type(value) is not PlacedSequence:
            return
        for item, item_place in zip(value, value.places, strict=True):
            check_item(item, item_place, report)
        if len(value) < minimum:
            report(place, f"{_called(name)}this must not be empty")
        if unique and len(value) > 1:
            _check_unique(value, name, report)

    return check


def _check_unique(values: PlacedSequence, name: str, report: Report) -> None:
    seen: set[tuple[type, Any]] = set()
    for item, place in zip(values, values.places, strict=True):
        if isinstance(item, dict | list):
            continue  # an item of the wrong type has its own problem
        key = (str if isinstance(item, str) else type(item), item)
        if key in seen:
            report(place, f"{_called(name)}{shown(item)} stands here twice")
        seen.add(key)

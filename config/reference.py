"""The tables of `docs/routes.md`, written from the schema, so that no key goes undocumented."""

from collections.abc import Iterator
from typing import Any

from config.schema import SCHEMA

BEGIN = "<!-- The tables are written by config.reference; a test compares them. -->"
END = "<!-- End of the tables. -->"


def render_reference() -> str:
    """Return a section for each key of the route file, as Markdown."""
    sections = []
    for key, schema in SCHEMA["properties"].items():
        need = ", required" if key in SCHEMA["required"] else ""
        title = f"### `{key}`{need}\n\n{schema['description']}"
        rows = [_row(*each) for each in _keys(schema, "")]
        head = ["| key | what it says | values | default |", "| --- | --- | --- | --- |"]
        sections.append("\n".join([title, *(["", *head, *rows] if rows else [])]))
    return "\n\n".join(sections) + "\n"


def _keys(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Yield path, schema and need of every key under *schema*."""
    dot = f"{path}." if path else ""
    for key, value in schema.get("properties", {}).items():
        yield dot + key, value, key in schema.get("required", ())
        yield from _keys(value, dot + key)
    for alternative in schema.get("anyOf", ()):
        yield from _keys(alternative, path)
    if isinstance(schema.get("additionalProperties"), dict) and not path:
        yield from _keys(schema["additionalProperties"], "NAME")
    if "items" in schema:
        yield from _keys(schema["items"], f"{path}[]")


def _row(path: str, schema: dict[str, Any], required: bool) -> str:  # noqa: FBT001 - from a tuple
    if required:
        default = "required"
    else:
        default = f"`{_written(schema['default'])}`" if "default" in schema else ""
    return f"| `{path}` | {_cell(schema['description'])} | {_cell(_values(schema))} | {default} |"


def _values(schema: dict[str, Any]) -> str:
    """Return what may stand there, in words."""
    if "anyOf" in schema:
        return ", or ".join(map(_values, schema["anyOf"]))
    if "title" in schema:
        title: str = schema["title"]
        bounds = (schema.get("x-at-least"), schema.get("x-at-most"))
        return title + (f"; {bounds[0]} to {bounds[1]}" if all(bounds) else "")
    if "enum" in schema:
        words = dict.fromkeys(f"`{_written(choice)}`" for choice in schema["enum"])
        return ", ".join(words)
    if "items" in schema:
        return f"a list of: {_values(schema['items'])}"
    return {"object": "a mapping", "string": "text"}[schema["type"]]


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"[{', '.join(map(_written, value))}]" if isinstance(value, list) else str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")

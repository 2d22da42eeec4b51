"""What the schema of the route file is written with: a few kinds of value, as JSON Schema.

Beyond the standard's keywords: `format` names a function of `config.formats`, `x-at-least` and
`x-at-most` bound what it returns, `title` says in a message what is expected, and `writeOnly` marks
what no message may show.
"""

from typing import Any

Schema = dict[str, Any]


def mapping(description: str, required: tuple[str, ...] = (), /, **properties: Schema) -> Schema:
    """A mapping with these keys and no others, of which the *required* ones must be given."""
    schema: Schema = {
        "type": "object",
        "description": description,
        # `as_`: some keys are words of Python.
        "properties": {key.rstrip("_"): value for key, value in properties.items()},
        "additionalProperties": False,
    }
    return schema | ({"required": list(required)} if required else {})


def text(title: str, format_: str, description: str, **more: Any) -> Schema:
    """Text that `config.formats` reads as *format_*; *title* says what is expected."""
    return {
        "type": "string",
        "title": title,
        "format": f"doorward-{format_}",
        "description": description,
        **more,
    }


def words(description: str, **more: Any) -> Schema:
    """Text of any kind, but not empty."""
    return {"type": "string", "minLength": 1, "description": description, **more}


def list_of(items: Schema, description: str, **more: Any) -> Schema:
    """A list of *items*."""
    return {"type": "array", "items": items, "description": description, **more}


def set_of(items: Schema, description: str, **more: Any) -> Schema:
    """A list in which nothing stands twice."""
    return list_of(items, description, uniqueItems=True, **more)


def one_of(description: str, *choices: Any, **more: Any) -> Schema:
    """One of a few values."""
    return {"enum": list(choices), "description": description, **more}


def duration(description: str, at_least: str, at_most: str, **more: Any) -> Schema:
    """A duration between two others."""
    return text(
        "a duration such as 500ms, 10s, 5m, 12h or 7d",
        "duration",
        description,
        pattern=r"^[0-9]{1,9}(\.[0-9]{1,3})?(ms|s|m|h|d)$",
        **{"x-at-least": at_least, "x-at-most": at_most, **more},
    )


def size(description: str, at_least: str, at_most: str, **more: Any) -> Schema:
    """A size between two others: text, or a number of bytes."""
    return {
        "type": ["integer", "string"],
        "title": "a size such as 32KiB, 16MiB or a number of bytes",
        "format": "doorward-size",
        "description": description,
        "pattern": r"^[0-9]{1,12}( ?(B|KiB|MiB|GiB))?$",
        "x-at-least": at_least,
        "x-at-most": at_most,
        **more,
    }


def number(title: str, format_: str, description: str, pattern: str, **more: Any) -> Schema:
    """A number, or the text of one: a variable's value is text."""
    return text(title, format_, description, pattern=pattern, **more) | {
        "type": ["integer", "string"]
    }


def flag(description: str, *, default: bool) -> Schema:
    """True or false."""
    # The texts too: a variable's value is text.
    return one_of(
        description,
        *(True, False, "true", "false"),
        type=["boolean", "string"],
        title="true or false",
        default=default,
    )


def claims(description: str) -> Schema:
    """Which claims fill which part of an identity."""
    fields = ("subject", "tenant", "roles", "scopes", "groups", "name", "email")
    return mapping(
        description,
        (),
        **{
            field: words(f"The claim that fills `{field}`; dots go into nested objects.")
            for field in fields
        },
    )

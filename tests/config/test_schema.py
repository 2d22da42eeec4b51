import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.formats import FORMATS
from config.schema import ALGORITHMS, SCHEMA
from tests.config.reading_support import MINIMAL, configuration


def schemas(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every schema in *schema*, with a path that names it."""
    yield path, schema
    for key, value in schema.get("properties", {}).items():
        yield from schemas(value, f"{path}.{key}")
    for key in ("items", "additionalProperties", "propertyNames"):
        if isinstance(schema.get(key), dict):
            yield from schemas(schema[key], f"{path}.{key}")
    for alternative in schema.get("anyOf", ()):
        yield from schemas(alternative, path)


ALL = list(schemas(SCHEMA))


def test_it_is_a_json_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_every_key_is_described() -> None:
    bare = [
        f"{path}.{key}"
        for path, schema in ALL
        for key, value in schema.get("properties", {}).items()
        if not value.get("description", "").endswith(".")
    ]
    assert bare == []


def test_every_mapping_is_closed_or_says_what_its_values_are() -> None:
    open_ = [
        path
        for path, schema in ALL
        if schema.get("type") == "object" and "additionalProperties" not in schema
    ]
    assert open_ == [".tests.items.as.claims"]


def test_every_format_is_known_and_has_a_title() -> None:
    for path, schema in ALL:
        if "format" in schema:
            assert schema["format"] in FORMATS, path
            assert schema["title"], path


def test_what_no_message_may_show_is_marked() -> None:
    hidden = {path for path, schema in ALL if schema.get("writeOnly")}
    assert hidden == {
        ".admin.token",
        ".store.url",
        ".login.database",
        ".login.providers.items.client_secret",
        ".login.mail.smtp.password",
        ".login.mail.webhook.secret",
        ".login.user_service.token",
        ".login.ldap.bind_password",
        ".login.factor_key",
    }


def test_no_algorithm_verifies_with_a_shared_secret() -> None:
    assert not [each for each in ALGORITHMS if each.startswith("HS") or each == "none"]


@pytest.mark.parametrize("schema", [s for _, s in ALL if "pattern" in s and "format" in s])
@given(text=st.text(alphabet="0123456789.msdhKMGiBauto \n", max_size=8))
def test_an_editor_never_marks_what_is_good(schema: dict[str, Any], text: str) -> None:
    try:
        FORMATS[schema["format"]](text)
    except ValueError:
        return
    assert re.search(schema["pattern"], text)


def defaults(schema: dict[str, Any]) -> Any:
    """Return what *schema* says about defaults, as a document that spells them out."""
    if "default" in schema:
        return schema["default"]
    found = {key: defaults(value) for key, value in schema.get("properties", {}).items()}
    if schema.get("required"):
        return None
    return {key: value for key, value in found.items() if value is not None} or None


def test_the_defaults_that_are_described_are_those_that_hold() -> None:
    import json  # noqa: PLC0415 - only here

    spelled_out = {
        key: value
        for key, schema in SCHEMA["properties"].items()
        if (value := defaults(schema)) is not None
    }
    assert spelled_out["session"]["lease"] == "500ms"
    text = MINIMAL + "".join(f"{key}: {json.dumps(value)}\n" for key, value in spelled_out.items())
    assert configuration(text) == configuration(MINIMAL)


def test_the_defaults_inside_lists_and_upstreams_hold_too() -> None:
    def with_(key: str, value: str) -> str:
        return MINIMAL.replace("access: signed-in", f"access: signed-in\n    {key}: {value}")

    route = SCHEMA["properties"]["routes"]["items"]["properties"]
    for key in ("unauthenticated", "on_store_outage", "allow_encoded_slash"):
        value = str(route[key]["default"]).lower()
        assert configuration(with_(key, value)).routes == configuration(MINIMAL).routes
    upstream = SCHEMA["properties"]["upstreams"]["additionalProperties"]["anyOf"][1]
    spelled_out = {key: defaults(upstream["properties"][key]) for key in ("balance", "timeouts")}
    long_form = {"endpoints": ["http://127.0.0.1:9001"], **spelled_out}
    text = MINIMAL.replace("http://127.0.0.1:9001", str(long_form).replace("'", '"'))
    assert configuration(text).upstreams == configuration(MINIMAL).upstreams

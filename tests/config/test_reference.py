import re

from config.presets import PRESETS
from config.reference import BEGIN, END, render_reference
from config.schema import SCHEMA
from tests.config.reading_support import ROOT, configuration

DOCUMENT = (ROOT / "docs" / "routes.md").read_text()


def test_the_document_carries_the_tables_of_the_schema() -> None:
    tables = DOCUMENT.partition(BEGIN)[2].partition(END)[0].strip()
    assert tables == render_reference().strip(), (
        "put what config.reference.render_reference() returns between the two comments"
    )


def test_every_key_of_the_schema_has_its_row() -> None:
    def keys(schema: object) -> set[str]:
        found: set[str] = set()
        if isinstance(schema, dict):
            for key, value in schema.items():
                found |= set(value) if key == "properties" and isinstance(value, dict) else set()
                found |= keys(value)
        elif isinstance(schema, list):
            found |= set().union(*map(keys, schema))
        return found

    rows = set(
        re.findall(r"^(?:\| |### )`(?:[^`]*[.\]])?([a-z_]+)`", render_reference(), re.MULTILINE)
    )
    assert keys(SCHEMA) == rows


def test_every_preset_is_documented_with_its_fields() -> None:
    for name, fields in PRESETS.items():
        (row,) = re.findall(rf"^\| `{name}` \|.*$", DOCUMENT, re.MULTILINE)
        assert all(f"`{field}`" in row for field, _ in fields)


def test_the_smallest_file_of_the_document_loads() -> None:
    text = DOCUMENT.partition("```yaml\n")[2].partition("```")[0]
    assert [route.id for route in configuration(text).routes] == ["wiki"]

"""Text in columns."""

import pytest

from gateway.columns import in_columns


def test_a_column_is_as_wide_as_the_longest_of_it_and_nothing_trails() -> None:
    text = in_columns([("LOGIN", "NAME"), ("ada", "Ada Lovelace"), ("bartholomew", "")])

    assert text.split("\n") == ["LOGIN        NAME", "ada          Ada Lovelace", "bartholomew"]


def test_a_row_that_lacks_a_cell_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="shorter"):
        in_columns([("LOGIN", "NAME"), ("ada",)])

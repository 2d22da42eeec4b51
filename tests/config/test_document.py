import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.document import (
    MAXIMUM_DEPTH,
    MAXIMUM_SIZE,
    PlacedMapping,
    PlacedSequence,
    plain_value,
    quoted,
    read_document,
)
from config.problem import Problem


def only_problem(text: str) -> Problem:
    (problem,) = read_document(text).problems
    return problem


def test_every_key_value_and_item_remembers_its_place() -> None:
    root = read_document('a: 1\nlist:\n  - x\n  - {k: "é", z: [y]}\n').root
    assert root == {"a": 1, "list": ["x", {"k": "é", "z": ["y"]}]}
    assert root.key_places == {"a": (1, 1), "list": (2, 1)}
    assert root.places == {"a": (1, 4), "list": (3, 3)}
    items = root["list"]
    assert isinstance(items, PlacedSequence)
    assert items.places == [(3, 5), (4, 5)]
    inner = items[1]
    assert isinstance(inner, PlacedMapping)
    assert inner.key_places == {"k": (4, 6), "z": (4, 14)}
    assert inner["z"].places == [(4, 18)]


def test_json_reads_like_yaml() -> None:
    assert read_document('{\n\t"a":1,"b":[true,null,"x\\ny"]}').root == {
        "a": 1,
        "b": [True, None, "x\ny"],
    }


def test_columns_count_characters_also_behind_wide_ones_and_a_byte_order_mark() -> None:
    document = read_document("\ufeff🙂k: v\nb: 🙂🙂 x\n")
    assert document.root.places["🙂k"] == (1, 5)
    assert document.root.key_places["🙂k"] == (1, 1)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("127.0.0.1", "127.0.0.1"),
        ("1_000", "1_000"),
        ("true", True),
        ("False", False),
        ("", None),
        ("~", None),
        ("NULL", None),
        ("-7", -7),
        ("0x1F", 31),
        ("0o17", 15),
        ("017", 17),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".inf", ".inf"),
        ("9" * 5000, "9" * 5000),
        ("-", "-"),
        (".", "."),
    ],
)
def test_plain_scalars_follow_the_core_schema(text: str, value: object) -> None:
    assert plain_value(text) == value
    assert type(plain_value(text)) is type(value)


def test_a_parameter_and_a_variable_stand_unquoted_in_flow_style() -> None:
    text = "{path: /users/{user}/v/{x}/*, t: [${A}, a${file:b}c], e: {a: {b: 1}}}"
    document = read_document(text)
    assert not document.problems
    assert document.root == {
        "path": "/users/{user}/v/{x}/*",
        "t": ["${A}", "a${file:b}c"],
        "e": {"a": {"b": 1}},
    }
    assert document.root.key_places["e"] == (1, text.index("e: {a") + 1)


def test_the_shield_never_touches_private_characters_of_the_text() -> None:
    text = "{a: \ue000\ue001, path: /{x}}"
    assert read_document(text).root == {"a": "\ue000\ue001", "path": "/{x}"}
    everything = "".join(map(chr, range(0xE000, 0xF900)))
    assert read_document(f"a: '{everything}'\nb: /{{x}}\n").root == {"a": everything, "b": "/{x}"}


@pytest.mark.parametrize(
    ("text", "line", "column", "part"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, 1, "second time; see line 1"),
        ("{a: 1, a: 2}", 1, 8, "second time"),
        ("a: *x\n", 1, 4, "aliases"),
        ("a: &x 1\n", 1, 4, "anchors"),
        ("a: &x [1]\n", 1, 4, "anchors"),
        ("a: !!python/object:os.system x\n", 1, 4, "tags"),
        ("a: !!map {}\n", 1, 4, "tags"),
        ("a:\n  <<: {b: 1}\n", 2, 3, "merge keys"),
        ("? {a: 1}\n: b\n", 1, 3, "a key must be text"),
        ("? [a]\n: {c: d}\nx: y\n", 1, 3, "a key must be text"),
        ("a: 1\n---\nb: 2\n", 2, 1, "a second document"),
        ("a:\n\tb: 1\n", 2, 1, "never with tabs"),
        ("a: b: c\n", 1, 5, "quote a value"),
        ("a: [1,\n  2\n", 3, 1, "begins on line 1"),
        ("a: 'x\n", 2, 1, "not closed"),
        ("é: x\ny: a\x07b\n", 2, 5, r'the character "\x07"'),
        ("y: a\ud800b\n", 1, 5, "UTF-8"),
        ("", 1, 1, "empty"),
        ("# only a comment\n", 1, 1, "empty"),
    ],
)
def test_what_is_wrong_with_the_writing_is_told_at_its_place(
    text: str, line: int, column: int, part: str
) -> None:
    problem = only_problem(text)
    assert (problem.line, problem.column) == (line, column)
    assert part in problem.message


def test_reading_goes_on_after_a_duplicate_key_and_keeps_the_first_value() -> None:
    document = read_document("a: 1\na: 2\nb: 3\nb: 4\n")
    assert document.root == {"a": 1, "b": 3}
    assert [problem.line for problem in document.problems] == [2, 4]


def test_a_file_over_the_limit_is_not_parsed() -> None:
    assert "larger" in only_problem("#" * (MAXIMUM_SIZE + 1)).message


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_deep_nesting_ends_at_the_limit_and_at_once(opening: str) -> None:
    begun = time.process_time()
    problems = read_document(opening * 200_000).problems
    assert f"more than {MAXIMUM_DEPTH} levels" in problems[-1].message
    assert len(problems) <= MAXIMUM_DEPTH + 1
    assert time.process_time() - begun < 5


def test_a_billion_laughs_stay_a_few_bytes() -> None:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60)]
    document = read_document("\n".join(lines))
    assert document.root["a59"] == [None, None]
    assert len(document.problems) == 60 + 59 * 2


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("w: a == b\n", (1, 4)),
        ('w: "a == b"\n', (1, 5)),
        ("w: 'a == b'\n", (1, 5)),
        ("w: |\n\n    a == b\n", (3, 5)),
        ("w: >-\n  a\n  == b\n", (2, 3)),
        ("w: |\n", (1, 4)),
    ],
)
def test_the_content_of_a_scalar_is_found_behind_its_quote(
    text: str, place: tuple[int, int]
) -> None:
    document = read_document(text)
    assert document.content_place(document.root.places["w"]) == place


def test_the_places_to_fill_are_found_in_mappings_and_lists() -> None:
    document = read_document("a: x${A}\nb: [1, '${B}', {c: $C}]\n")
    (mapping, key), (items, index) = document.holes
    assert (mapping is document.root, key) == (True, "a")
    assert (items is document.root["b"], index) == (True, 1)


def test_a_place_that_is_not_in_the_text_is_its_own_content() -> None:
    document = read_document("w: 1\n")
    assert [document.content_place(place) for place in ((0, 1), (9, 1))] == [(0, 1), (9, 1)]


def test_a_quoted_text_cannot_write_to_the_terminal() -> None:
    assert quoted("a\x1b[31m\n" + "b" * 100) == '"a\\x1b[31m\\n' + "b" * 50 + '..."'


@given(st.text(alphabet=st.characters(), max_size=200))
def test_no_text_makes_reading_raise(text: str) -> None:
    document = read_document(text)
    assert document.root is not None or document.problems


@given(
    st.lists(st.sampled_from([*"{}[]:,-?&*!|>'\"%@`#\n\t ", "a", "1", "${", "/{", "}", "<<", "~"]))
)
def test_no_sequence_of_indicators_makes_reading_raise(parts: list[str]) -> None:
    document = read_document("".join(parts))
    assert document.root is not None or document.problems
    for problem in document.problems:
        assert problem.line >= 1
        assert problem.column >= 1
        assert "\n" not in problem.message

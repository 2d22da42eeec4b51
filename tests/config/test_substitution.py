import pytest

from config.document import read_document
from config.substitution import Filled, fill, fill_document


def read_file(path: str) -> str:
    files = {"secret": "from file\n", "windows": "from file\r\n", "two": "a\n\n", "x/${A}": "kept"}
    if path == "binary":
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    if path not in files:
        raise FileNotFoundError(2, "No such file or directory", path)
    return files[path]


ENVIRONMENT = {"A": "one", "EMPTY": "", "HOLE": "${A} $${A}"}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("${A}", "one"),
        ("x ${A}-${A} y", "x one-one y"),
        ("${EMPTY}", ""),
        ("${A:-two}", "one"),
        ("${EMPTY:-two}", "two"),
        ("${MISSING:-two words: }", "two words: "),
        ("${MISSING:-}", ""),
        ("${file:secret}", "from file"),
        ("${file:windows}", "from file"),
        ("${file:two}", "a\n"),
        ("$${A}", "${A}"),
        ("$$${A}", "$${A}"),
        ("$${A} ${A}", "${A} one"),
        ("$A $ {A} $$A", "$A $ {A} $$A"),
        ("${HOLE}", "${A} $${A}"),
    ],
)
def test_what_is_put_in(text: str, result: str) -> None:
    filled, errors = fill(text, ENVIRONMENT, read_file)
    assert (str(filled), errors) == (result, [])
    assert type(filled) is Filled


@pytest.mark.parametrize(
    ("text", "offset", "part"),
    [
        ("${MISSING}", 0, "MISSING is not set"),
        ("a ${MISSING} b", 2, "MISSING is not set"),
        ("${file:none}", 0, '"none" cannot be read: No such file or directory'),
        ("${file:binary}", 0, "no UTF-8 text"),
        ("${A", 0, "not closed"),
        ("x${", 1, "not closed"),
        ("${}", 0, "names no variable"),
        ("${A B}", 0, "names no variable"),
        ("${A:=x}", 0, "names no variable"),
        ("${1A}", 0, "names no variable"),
    ],
)
def test_what_cannot_be_put_in_is_told(text: str, offset: int, part: str) -> None:
    _, (error,) = fill(text, ENVIRONMENT, read_file)
    assert error.offset == offset
    assert part in str(error)


def test_every_missing_variable_of_a_document_is_told_at_its_place() -> None:
    document = read_document(
        'a: x ${M}\nb: ["${N} ${O}", ok]\nc: |\n  text\n  ${P}\nd: "\\t${Q}"\n'
    )
    unfilled = fill_document(document, {}, read_file).unfilled
    places = [(problem.line, problem.column) for problem in document.problems]
    assert places == [(1, 6), (2, 6), (2, 11), (3, 4), (6, 4)]
    assert unfilled == {(1, 4), (2, 5), (3, 4), (6, 4)}


def test_the_files_that_values_come_from_are_told_with_their_places() -> None:
    document = read_document("a: x\nb: ['${file:secret}/${file:two}', $${file:no}]\nc: ${A}\n")
    assert fill_document(document, ENVIRONMENT, read_file).files == [
        ("secret", (2, 5)),
        ("two", (2, 5)),
    ]


def test_keys_are_never_filled() -> None:
    document = read_document('"${A}": 1\n')
    fill_document(document, ENVIRONMENT, read_file)
    assert document.root == {"${A}": 1}

from hypothesis import given
from hypothesis import strategies as st

from config.formats import FORMATS


def refusal(name: str, text: str) -> str | None:
    """Return why *text* is refused, None if it is not, and nothing but a `ValueError` is caught."""
    try:
        FORMATS[name](text)
    except ValueError as error:
        message = str(error)
        return message if "\n" not in message and type(error) is ValueError else ""
    return None


@given(st.sampled_from(sorted(FORMATS)), st.text(max_size=40))
def test_a_format_returns_or_says_why_not_in_one_line(name: str, text: str) -> None:
    assert refusal(name, text) != ""


@given(
    st.sampled_from(sorted(FORMATS)),
    st.text(alphabet="abc:/.@?#[]{}*%0129-_ \\~;=&", max_size=30),
)
def test_a_format_survives_punctuation(name: str, text: str) -> None:
    for candidate in (text, f"http://{text}", f"/{text}", f"redis://{text}", f"unix:/{text}"):
        assert refusal(name, candidate) != ""

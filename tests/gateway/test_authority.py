"""Authorities: one spelling of a host, or a refusal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.authority import Authority, read_authority
from gateway.bad_request import BadRequest


@pytest.mark.parametrize(
    ("text", "host", "shown"),
    [
        ("app.example.com", "app.example.com", "app.example.com"),
        ("APP.Example.COM", "app.example.com", "app.example.com"),
        ("app.example.com.", "app.example.com", "app.example.com"),
        ("app.example.com:8080", "app.example.com", "app.example.com:8080"),
        ("app.example.com:80", "app.example.com", "app.example.com"),
        ("app.example.com:0443", "app.example.com", "app.example.com:443"),
        ("localhost", "localhost", "localhost"),
        ("my_service:1", "my_service", "my_service:1"),
        ("127.0.0.1:9", "127.0.0.1", "127.0.0.1:9"),
        ("[::1]", "::1", "[::1]"),
        ("[0:0:0:0:0:0:0:1]:8080", "::1", "[::1]:8080"),
        ("[2001:DB8::A]", "2001:db8::a", "[2001:db8::a]"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example", "xn--bcher-kva.example"),
    ],
)
def test_a_host_has_one_spelling(text: str, host: str, shown: str) -> None:
    assert read_authority(text, "http") == Authority(host, shown)


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "..", "a..b", ".a", "a.b..", "-a", "a-", "a b", "a,b", "a/b", "a\\b", "a@b"),
        *("user@a", "a:b@c", "a#b", "a?b", "a%2eb", "a:", "a:x", "a:80x", "a:-1", "a:99999", "a:0"),
        *("a:123456", "[::1", "::1", "[::1]x", "[::g]", "[::1%25eth0]", "[v1.a]", "[127.0.0.1]"),
        *("[]", "2130706433", "0x7f.1", "127.1", "1.2.3.4.5", "0177.0.0.1", "256.1.1.1", "a.0x10"),
        *("\u00e4", "a\tb", "a\x00", "a\x7f", "a" * 64, ".".join(["a" * 60] * 5)),
    ],
)
def test_an_odd_host_is_refused(text: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        read_authority(text, "http")
    assert refusal.value.status == 400


def test_the_default_port_is_that_of_the_scheme() -> None:
    assert read_authority("a:443", "https").text == "a"
    assert read_authority("a:80", "https").text == "a:80"


@given(
    st.text(st.sampled_from("aB1.-_:[]%@/ \\0f"), max_size=24), st.sampled_from(["http", "https"])
)
def test_a_canonical_authority_is_a_fixed_point(text: str, scheme: str) -> None:
    try:
        authority = read_authority(text, scheme)
    except BadRequest:
        return
    assert read_authority(authority.text, scheme) == authority

"""Where a form came from, by what a browser says and a page cannot choose."""

import pytest

from auth.login.provenance import FormTokens, Provenance, origin_of, own_origins, provenance_of

OWN = frozenset({"https://app.example.com", "http://127.0.0.1:8080"})


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"origin": "https://app.example.com"}, Provenance.OWN),
        ({"origin": "http://127.0.0.1:8080"}, Provenance.OWN),
        ({"origin": "null"}, Provenance.FOREIGN),
        ({"origin": ""}, Provenance.FOREIGN),
        ({"origin": "https://evil.example"}, Provenance.FOREIGN),
        ({"origin": "http://app.example.com"}, Provenance.FOREIGN),
        ({"origin": "https://app.example.com:8443"}, Provenance.FOREIGN),
        ({"origin": "https://app.example.com.evil.example"}, Provenance.FOREIGN),
        ({"origin": "https://evil.example/https://app.example.com"}, Provenance.FOREIGN),
        ({"origin": "https://app.example.com, https://evil.example"}, Provenance.FOREIGN),
        ({"origin": "https://evil.example https://app.example.com"}, Provenance.FOREIGN),
        # The first word counts: a foreign Origin is not mended by what follows.
        ({"origin": "null", "sec-fetch-site": "same-origin"}, Provenance.FOREIGN),
        ({"origin": "https://evil.example", "sec-fetch-site": "none"}, Provenance.FOREIGN),
        ({"sec-fetch-site": "same-origin"}, Provenance.OWN),
        ({"sec-fetch-site": "none"}, Provenance.OWN),
        ({"sec-fetch-site": "same-site"}, Provenance.FOREIGN),
        ({"sec-fetch-site": "cross-site"}, Provenance.FOREIGN),
        ({"sec-fetch-site": "Same-Origin"}, Provenance.FOREIGN),
        ({"sec-fetch-site": ""}, Provenance.FOREIGN),
        ({"referer": "https://app.example.com/"}, Provenance.UNKNOWN),
        ({}, Provenance.UNKNOWN),
    ],
    ids=str,
)
def test_a_form_is_judged_by_origin_then_by_fetch_metadata(
    fields: dict[str, str], expected: Provenance
) -> None:
    assert provenance_of(fields, OWN) is expected


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://App.Example.com/a?b", "https://app.example.com"),
        ("https://app.example.com:443", "https://app.example.com"),
        ("http://app.example.com:80/", "http://app.example.com"),
        ("http://app.example.com:443", "http://app.example.com:443"),
        ("http://[::1]:8080/x", "http://[::1]:8080"),
        ("HTTP://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("ftp://app.example.com", ""),
        ("https://user@app.example.com", ""),
        ("https://app.example.com:port", ""),
        ("https://", ""),
        ("null", ""),
        ("", ""),
    ],
)
def test_an_origin_is_written_as_browsers_write_it(url: str, origin: str) -> None:
    assert origin_of(url) == origin


@pytest.mark.parametrize(
    ("public_url", "origin", "host", "expected"),
    [
        ("http://a:8080", "", "", {"http://a:8080"}),
        ("http://a:8080", "", "b:9", {"http://a:8080", "http://b:9"}),
        ("http://a:8080", "https://b", "ignored", {"http://a:8080", "https://b"}),
        ("https://a", "", "b", {"https://a", "https://b"}),
        # Anybody on the path can be http://a, and set what a browser sends there.
        ("https://a", "http://a", "a", {"https://a"}),
        # A proxy before us may end TLS without telling: browsers are on https nevertheless.
        ("https://a", "http://b:8443", "b:8443", {"https://a", "https://b:8443"}),
        ("https://a", "", "user@b", {"https://a"}),
        ("https://a", "", "b:port", {"https://a"}),
    ],
    ids=lambda value: str(sorted(value)) if isinstance(value, set) else str(value),
)
def test_our_origins_are_the_public_one_and_the_one_that_was_asked(
    public_url: str, origin: str, host: str, expected: set[str]
) -> None:
    assert own_origins(public_url=public_url, origin=origin, host=host) == expected


def test_a_token_is_good_for_its_browser_and_its_session_only() -> None:
    tokens = FormTokens(b"k" * 32)
    mine, other = tokens.new_nonce(), tokens.new_nonce()
    token = tokens.token(mine, "digest-1")
    assert tokens.is_token(token, mine, "digest-1")
    assert not tokens.is_token(token, other, "digest-1")
    assert not tokens.is_token(token, mine, "digest-2")
    assert not tokens.is_token(token, mine, "")
    assert not FormTokens(b"K" * 32).is_token(token, mine, "digest-1")


@pytest.mark.parametrize("token", ["", "é", "\udc80", "A" * 43, "A" * 10_000])
def test_a_token_that_was_never_made_is_not_good(token: str) -> None:
    tokens = FormTokens(b"k" * 32)
    assert not tokens.is_token(token, tokens.new_nonce(), "")


@pytest.mark.parametrize("nonce", ["", "x", "A" * 25, "A" * 23 + "\n", "A" * 23 + ";", "é" * 24])
def test_a_nonce_of_another_shape_is_none_of_ours(nonce: str) -> None:
    tokens = FormTokens(b"k" * 32)
    assert not tokens.is_nonce(nonce)
    assert not tokens.is_token(tokens.token(nonce, ""), nonce, "")


def test_two_browsers_never_get_the_same_nonce() -> None:
    tokens = FormTokens(b"k" * 32)
    assert len({tokens.new_nonce() for _ in range(100)}) == 100


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        FormTokens(b"k" * 31)

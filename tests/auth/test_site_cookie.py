"""The cookies of sites that share a sign-in."""

import pytest

from auth.session import SessionRecord, SiteKey, digest
from auth.site_cookie import (
    Opener,
    is_site_cookie,
    may_open,
    read_cookie,
    site_cookie,
    site_secret,
    tokens_secret,
)

COOKIE, NAME = "c" * 43, "0123456789abcdef" * 4
SECRET = site_secret(COOKIE, "shop.example.com")
RECORD = SessionRecord(
    1, "u1", 0.0, 1.0, sites={"shop.example.com": SiteKey(digest(SECRET)), "b": SiteKey("")}
)


def test_a_sites_cookie_says_its_session_and_secret() -> None:
    value = site_cookie(NAME, SECRET)
    assert read_cookie(value) == Opener(NAME, digest(SECRET), SECRET)
    assert is_site_cookie(value)


@pytest.mark.parametrize(
    "value",
    [
        "",
        COOKIE,
        "site.",
        f"site.{NAME}",
        f"site.{NAME}.{SECRET}x",
        f"site.{NAME}.{SECRET[1:]}",
        f"site.{NAME.upper()}.{SECRET}",
        f"site.{NAME}.{SECRET}\n",
        f"Site.{NAME}.{SECRET}",
        f" site.{NAME}.{SECRET}",
    ],
)
def test_any_other_value_is_a_sessions_own_cookie(value: str) -> None:
    assert read_cookie(value) == Opener(digest(value))
    assert not is_site_cookie(value)


def test_a_secret_is_good_at_its_own_host_alone() -> None:
    key = digest(SECRET)
    assert may_open(RECORD, host="shop.example.com", site_key=key)
    assert not may_open(RECORD, host="help.example.org", site_key=key)
    assert not may_open(RECORD, host="shop.example.com", site_key=digest("another"))
    assert not may_open(RECORD, host="b", site_key="")


def test_every_host_and_every_purpose_has_a_secret_of_its_own_and_always_the_same() -> None:
    secrets = [
        *(site_secret(COOKIE, host) for host in ("a", "b", "")),
        *(site_secret("d" * 43, "a"), tokens_secret(COOKIE), tokens_secret("d" * 43)),
    ]
    assert len(set(secrets)) == len(secrets)
    assert all(read_cookie(site_cookie(NAME, secret)).site_key for secret in secrets[:3])
    assert site_secret(COOKIE, "a") == secrets[0]

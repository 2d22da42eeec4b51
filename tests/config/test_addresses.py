from ipaddress import ip_network

import pytest

from config.addresses import (
    Url,
    address,
    database_url,
    endpoint,
    host_name,
    host_pattern,
    is_loopback,
    is_wildcard,
    ldap_host,
    ldap_url,
    network,
    origin,
    path_or_url,
    secure_url,
    store_url,
)
from config.model import Address, Endpoint


@pytest.mark.parametrize(
    ("written", "host"),
    [
        ("App.Example.COM", "app.example.com"),
        ("example.com.", "example.com"),
        ("127.0.0.1", "127.0.0.1"),
        ("[::1]", "::1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("a_b.example", "a_b.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
    ],
)
def test_a_host_has_one_spelling(written: str, host: str) -> None:
    assert host_name(written) == host


@pytest.mark.parametrize(
    "written",
    ["", ".", "a..b", "-a.b", "a-.b", "bücher.example", "127.1", "0x7f.1", "1.2.3.4.5", "256.1.1.1",
     "2130706433", "a b", "a\n", "[::1", "::1]", "a:b", "a" * 64, ".".join(["a" * 60] * 5), "a/b"],
)  # fmt: skip
def test_what_is_no_host_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match=r"[a-z]"):
        host_name(written)


@pytest.mark.parametrize(
    ("written", "pattern"),
    [("*.Example.com", "*.example.com"), ("A.example", "a.example"), ("[::1]", "::1")],
)
def test_a_route_takes_a_host_or_a_suffix(written: str, pattern: str) -> None:
    assert host_pattern(written) == pattern


@pytest.mark.parametrize(
    ("written", "part"),
    [
        ("*", "leave hosts out"),
        ("a.*.b", "whole first label"),
        ("*a.b", "whole first label"),
        ("*.*.b", "letters"),
        ("*.10.0.0.1", "not before an address"),
        ("example.com:443", "without its port"),
        ("[::1]:80", "without its port"),
        ("https://example.com", "without scheme"),
        ("example.com/a", "without scheme"),
    ],
)
def test_a_host_pattern_of_another_form_is_refused(written: str, part: str) -> None:
    with pytest.raises(ValueError, match=part):
        host_pattern(written)


def test_an_address_is_a_host_and_a_port() -> None:
    assert address("127.0.0.1:8080") == Address("127.0.0.1", 8080)
    assert address("[::]:0") == Address("::", 0)
    assert address("Localhost:65535") == Address("localhost", 65535)


@pytest.mark.parametrize(
    "written", ["8080", ":8080", "*:8080", "::1:8080", "a:", "a:x", "a:65536", "a:-1", "a:1\n", ""]
)
def test_an_address_of_another_form_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match=r"[a-z]"):
        address(written)


def test_loopback_and_wildcard_are_known() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "localhost", "a.localhost")))
    assert not any(
        map(is_loopback, ("10.0.0.1", "example.com", "localhost.example.com", "0.0.0.0"))
    )
    assert is_wildcard("0.0.0.0")
    assert is_wildcard("::")
    assert not is_wildcard("127.0.0.1")


def test_a_network_is_a_cidr_or_an_address() -> None:
    assert network("10.0.0.0/8") == ip_network("10.0.0.0/8")
    assert network("::1") == ip_network("::1/128")
    with pytest.raises(ValueError, match=r"write 10\.0\.0\.0/8"):
        network("10.1.2.3/8")
    with pytest.raises(ValueError, match="write a network"):
        network("10.0.0.0/33")


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("https://App.Example.com:443/", "https://app.example.com"),
        ("http://[::1]:80", "http://[::1]"),
        ("HTTP://a:8080", "http://a:8080"),
    ],
)
def test_an_origin_is_written_as_browsers_write_it(written: str, canonical: str) -> None:
    assert origin(written) == canonical


@pytest.mark.parametrize(
    "written",
    ["a.example", "//a", "ftp://a", "http://", "http:///a", "http://a b", "http://a#b", "http://u@a",
     "http://u:p@a", "http://a\\b", "http://a:0", "http://a:99999", "http://é", "http://a/\n",
     "javascript:alert(1)", "http://[::1", "http://a@b@c/"],
)  # fmt: skip
def test_a_url_of_another_form_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match=r"[a-z]"):
        Url(written)


def test_a_public_url_has_no_path() -> None:
    with pytest.raises(ValueError, match="only scheme, host and port"):
        origin("https://a/b")


def test_keys_come_over_https_or_from_this_machine() -> None:
    assert secure_url("https://idp.example.com/x") == "https://idp.example.com/x"
    assert secure_url("http://127.0.0.1:9/x") == "http://127.0.0.1:9/x"
    with pytest.raises(ValueError, match="must be https"):
        secure_url("http://idp.example.com/x")
    with pytest.raises(ValueError, match="must be https"):
        secure_url("http://127.0.0.1.example.com/x")


def test_a_login_page_is_a_path_or_a_url() -> None:
    assert path_or_url("/login?x=1") == "/login?x=1"
    assert path_or_url("https://Login.example.com/a?b") == "https://login.example.com/a?b"
    for bad in ("login", "//evil.example", "/\\evil", "javascript:x", "/a b", "/a#b"):
        with pytest.raises(ValueError, match=r"[a-z]"):
            path_or_url(bad)


@pytest.mark.parametrize(
    ("written", "parsed"),
    [
        ("http://A:9001", Endpoint("http", "a", 9001)),
        ("https://a", Endpoint("https", "a", 443)),
        ("http://a/base/", Endpoint("http", "a", 80, "/base")),
        ("http://[::1]:1", Endpoint("http", "::1", 1)),
        ("unix:/run/a.sock", Endpoint("unix", "/run/a.sock")),
        ("unix:///run/a.sock", Endpoint("unix", "/run/a.sock")),
    ],
)
def test_an_endpoint_is_http_https_or_a_socket(written: str, parsed: Endpoint) -> None:
    assert endpoint(written) == parsed


@pytest.mark.parametrize(
    "written",
    ["a:80", "http://a?x", "http://a/b/../c", "http://a//b", "unix:a.sock", "unix:", "ws://a",
     "http://u:p@a", "unix:/" + "a" * 107, "unix:/a\nb"],
)  # fmt: skip
def test_an_endpoint_of_another_form_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match=r"[a-z]"):
        endpoint(written)


@pytest.mark.parametrize(
    "written",
    ["embedded", "redis://h", "redis://u:p@h:6379/0", "rediss://h:1", "unix:///run/r.sock",
     "unix://u:p@/run/r.sock?db=1", "redis+sentinel://h1,h2:26379/main", "redis+cluster://h1,h2",
     "redis://[::1]:6379/0"],
)  # fmt: skip
def test_a_store_is_embedded_or_a_redis_url(written: str) -> None:
    assert store_url(written) == written


@pytest.mark.parametrize(
    "written",
    ["", "embeded", "redis", "redis://", "http://h", "unix://run/r", "redis+sentinel://h1,h2",
     "redis://h:x", "redis://a b", "redis+cluster://h1,,h2", "redis://h\n"],
)  # fmt: skip
def test_a_store_of_another_form_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match=r"[a-z]"):
        store_url(written)


@pytest.mark.parametrize(
    "written",
    ["postgresql://db/people", "postgres://u:p@h1,h2:5432/n?sslmode=verify-full",
     "postgresql:///people?host=/run/postgresql"],
)  # fmt: skip
def test_a_database_is_a_postgresql_url(written: str) -> None:
    assert database_url(written) == written


@pytest.mark.parametrize(
    "written", ["", "postgresql", "postgresql://", "mysql://h/n", "postgresql://h/n\n", "x://a b"]
)
def test_a_database_of_another_form_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match=r"postgresql://|no spaces"):
        database_url(written)


@pytest.mark.parametrize("written", ["https://u@a", "https://u:p@a/b", "https://a@b@c"])
def test_a_url_with_credentials_is_told_what_is_wrong_with_it(written: str) -> None:
    with pytest.raises(ValueError, match="must not carry a user name or password"):
        secure_url(written)


@pytest.mark.parametrize(
    ("written", "host"),
    [("ldaps://ldap.example.com", "ldap.example.com"), ("ldap://127.0.0.1:3890", "127.0.0.1"),
     ("ldap://[::1]:389", "::1")],
)  # fmt: skip
def test_a_directory_is_an_ldap_url(written: str, host: str) -> None:
    assert ldap_url(written) == written
    assert ldap_host(written) == host


@pytest.mark.parametrize(
    "written",
    ["", "ldap.example.com", "ldap://", "http://h", "ldapi:///x", "ldap://h/dc=x", "ldap://h?x",
     "ldap://u@h", "ldap://a b", "ldap://h1 ldap://h2"],
)  # fmt: skip
def test_a_directory_of_another_form_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match=r"[a-z]"):
        ldap_url(written)

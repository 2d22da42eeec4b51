"""The gateway's own origins."""

import pytest

from auth.origins import Origins, host_of
from config.model import Configuration
from config.reading import read_configuration

PLAIN = Origins(
    public="http://127.0.0.1:8080",
    scheme="http",
    hosts=frozenset({"127.0.0.1", "app.example.com", "::1"}),
    suffixes=(".tenant.example.com",),
)
SECURE = Origins(
    public="https://app.example.com",
    scheme="https",
    hosts=frozenset({"app.example.com", "api.example.com"}),
    suffixes=(),
)


@pytest.mark.parametrize(
    ("origins", "host", "authority", "origin"),
    [
        (PLAIN, "127.0.0.1", "127.0.0.1:8080", "http://127.0.0.1:8080"),
        (PLAIN, "127.0.0.1", "127.0.0.1:9999", "http://127.0.0.1:9999"),
        (PLAIN, "app.example.com", "app.example.com:80", "http://app.example.com"),
        (PLAIN, "::1", "[::1]:8080", "http://[::1]:8080"),
        (PLAIN, "a.tenant.example.com", "a.tenant.example.com", "http://a.tenant.example.com"),
        # TLS ends before us: the scheme is the browser's.
        (SECURE, "app.example.com", "app.example.com", "https://app.example.com"),
        (SECURE, "api.example.com", "api.example.com:443", "https://api.example.com"),
        # A name that is nobody's never becomes a place to come back to.
        (PLAIN, "localhost", "localhost:8080", "http://127.0.0.1:8080"),
        (PLAIN, "tenant.example.com", "tenant.example.com", "http://127.0.0.1:8080"),
        (PLAIN, "eviltenant.example.com", "eviltenant.example.com", "http://127.0.0.1:8080"),
        (SECURE, "evil.example", "evil.example", "https://app.example.com"),
    ],
)
def test_a_request_to_a_host_of_ours_has_its_own_origin_and_any_other_the_public_one(
    origins: Origins, host: str, authority: str, origin: str
) -> None:
    assert origins.of_request(host, authority) == origin
    assert origin in origins.accepted(host, authority)


def test_a_sign_in_may_return_to_the_named_hosts_and_nowhere_else() -> None:
    assert SECURE.accepted("evil.example", "evil.example") == {
        "https://app.example.com",
        "https://api.example.com",
    }
    assert PLAIN.accepted("localhost", "localhost:8080") == {
        "http://127.0.0.1:8080",
        "http://app.example.com:8080",
        "http://[::1]:8080",
    }


def test_the_hosts_of_a_route_file_are_ours_and_so_is_what_is_below_a_suffix() -> None:
    text = """\
version: 1
server: {listen: 127.0.0.1:8080, public_url: "https://app.example.com:8443"}
admin: {listen: 127.0.0.1:8081}
store: {url: embedded}
upstreams: {notes: http://127.0.0.1:9001}
routes:
  - id: a
    match: {hosts: [api.example.com, "*.tenant.example.com"], path: /*}
    upstream: notes
    access: public
  - {id: b, match: {path: /*}, upstream: notes, access: public}
"""
    configuration = read_configuration(text, environment={}, read_file=str, base_dir=".")
    assert isinstance(configuration, Configuration)
    origins = Origins.of(configuration)
    assert origins == Origins(
        public="https://app.example.com:8443",
        scheme="https",
        hosts=frozenset({"app.example.com", "api.example.com"}),
        suffixes=(".tenant.example.com",),
    )


def test_sites_are_ours_with_their_own_port_and_may_be_returned_to() -> None:
    text = """
version: 1
server: {public_url: "https://login.example.com"}
login: {sites: ["https://shop.example.org:8443", "https://[::1]"]}
upstreams: {up: "http://127.0.0.1:1"}
routes: [{id: all, match: {path: /*}, upstream: up, access: signed-in}]
"""
    found = read_configuration(text, environment={}, read_file=lambda path: path, base_dir="/")
    assert isinstance(found, Configuration), found
    origins = Origins.of(found)
    assert origins.sites == {"https://shop.example.org:8443", "https://[::1]"}
    assert {host_of(each) for each in origins.sites} == {"shop.example.org", "::1"}
    assert all(origins.is_own(host) for host in ("login.example.com", "shop.example.org", "::1"))
    assert not origins.is_own("other.example.org")
    accepted = origins.accepted("login.example.com", "login.example.com")
    assert accepted > origins.sites
    assert origins.of_request("shop.example.org", "shop.example.org:8443") in origins.sites
    assert origins.of_request("shop.example.org", "shop.example.org") not in origins.sites

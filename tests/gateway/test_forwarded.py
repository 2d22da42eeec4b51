"""Who is calling behind proxies: nobody is believed who was not named."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.model import Limits
from gateway.bad_request import BadRequest
from gateway.forwarded import Client, canonical_address, continued_trace, read_client
from gateway.head import RequestHead
from gateway.reading import HeadReader, read_request_head

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


def head_with(*lines: str) -> RequestHead:
    text = "GET / HTTP/1.1\r\nHost: app.example.com\r\n" + "".join(f"{line}\r\n" for line in lines)
    return read_request_head(f"{text}\r\n".encode("latin-1"), scheme="http", limits=Limits())


def client_of(peer: str, *lines: str) -> Client:
    return read_client(peer, head_with(*lines), scheme="http", trusted_proxies=TRUSTED)


LIES = (
    "X-Forwarded-For: 1.2.3.4",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: evil.example",
    "Forwarded: for=9.9.9.9;proto=https;host=evil.example",
    "X-Request-Id: forged",
)


@pytest.mark.parametrize(
    "line",
    [
        "X-Forwarded-For: 1.2.3.4",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: other.example",
        "Forwarded: for=9.9.9.9",
        "X-Request-Id: another",
    ],
)
def test_what_a_proxy_said_of_its_last_client_is_not_said_of_the_next(line: str) -> None:
    """A proxy sends the requests of many people on one connection."""
    reader, peer, scheme = HeadReader("http"), "10.0.0.1", "http"

    def client_of_next(*lines: str) -> Client:
        fields = "".join(f"{each}\r\n" for each in ("Host: app.example.com", *lines))
        head = reader.read(f"GET / HTTP/1.1\r\n{fields}\r\n".encode(), Limits())
        return read_client(peer, head, scheme=scheme, trusted_proxies=TRUSTED)

    plain = client_of_next("Accept: */*")
    assert client_of_next("Accept: text/html") is plain, "the same as before: found out once"
    assert client_of_next("Accept: */*", line) == client_of(peer, line)
    assert client_of_next("Accept: */*") == plain


@pytest.mark.parametrize("peer", ["192.0.2.1", "127.0.0.1", "::1", "11.0.0.1"])
def test_a_peer_that_is_not_named_is_not_believed(peer: str) -> None:
    expected = Client(peer, "http", "app.example.com", trusted=False, forwarded_for=peer)
    assert client_of(peer, *LIES) == expected


def test_nobody_is_trusted_by_default() -> None:
    client = read_client("10.0.0.1", head_with(*LIES), scheme="https")
    assert client == Client(
        "10.0.0.1", "https", "app.example.com", trusted=False, forwarded_for="10.0.0.1"
    )
    assert client.origin == "https://app.example.com"


@pytest.mark.parametrize(
    ("lines", "address", "chain"),
    [
        ((), "10.0.0.1", "10.0.0.1"),
        (("X-Forwarded-For: 1.2.3.4",), "1.2.3.4", "1.2.3.4, 10.0.0.1"),
        (("X-Forwarded-For: 6.6.6.6, 1.2.3.4",), "1.2.3.4", "1.2.3.4, 10.0.0.1"),
        (
            ("X-Forwarded-For: 6.6.6.6, 1.2.3.4, 10.0.0.2",),
            *("1.2.3.4", "1.2.3.4, 10.0.0.2, 10.0.0.1"),
        ),
        (("X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 1.2.3.4"), "1.2.3.4", "1.2.3.4, 10.0.0.1"),
        (("X-Forwarded-For: 10.0.0.3, 10.0.0.2",), "10.0.0.3", "10.0.0.3, 10.0.0.2, 10.0.0.1"),
        (("X-Forwarded-For: 1.2.3.4, junk",), "10.0.0.1", "10.0.0.1"),
        (("X-Forwarded-For: 1.2.3.4, unknown, 10.0.0.2",), "10.0.0.2", "10.0.0.2, 10.0.0.1"),
        (("X-Forwarded-For: 1.2.3.4:5678",), "1.2.3.4", "1.2.3.4, 10.0.0.1"),
        (("X-Forwarded-For: [2001:DB8::1]:5",), "2001:db8::1", "2001:db8::1, 10.0.0.1"),
        (("X-Forwarded-For: ::ffff:1.2.3.4",), "1.2.3.4", "1.2.3.4, 10.0.0.1"),
        (("X-Forwarded-For: 01.2.3.4",), "10.0.0.1", "10.0.0.1"),
        (("X-Forwarded-For:",), "10.0.0.1", "10.0.0.1"),
        (("Forwarded: for=6.6.6.6, for=1.2.3.4",), "1.2.3.4", "1.2.3.4, 10.0.0.1"),
        (('Forwarded: For="[2001:db8::1]:4711"',), "2001:db8::1", "2001:db8::1, 10.0.0.1"),
        (("Forwarded: for=1.2.3.4;by=10.0.0.1 , for=_hidden",), "10.0.0.1", "10.0.0.1"),
        (("Forwarded: for=1.2.3.4", "X-Forwarded-For: 1.2.3.4"), "1.2.3.4", "1.2.3.4, 10.0.0.1"),
        (("Forwarded: for=1.2.3.4,",), "1.2.3.4", "1.2.3.4, 10.0.0.1"),
    ],
)
def test_a_trusted_chain_is_walked_from_the_right(
    lines: tuple[str, ...], address: str, chain: str
) -> None:
    client = client_of("10.0.0.1", *lines)
    assert (client.address, client.forwarded_for, client.trusted) == (address, chain, True)


@pytest.mark.parametrize(
    ("line", "scheme"),
    [
        ("X-Forwarded-Proto: https", "https"),
        ("X-Forwarded-Proto: HTTPS", "https"),
        ("X-Forwarded-Proto: wss", "https"),
        ("X-Forwarded-Proto: http, https", "https"),
        ("X-Forwarded-Proto: https, http", "http"),
        ("X-Forwarded-Proto: javascript", "http"),
        ("X-Forwarded-Proto:", "http"),
        ("Forwarded: proto=http, proto=https", "https"),
    ],
)
def test_the_nearest_proxy_says_how_the_client_spoke(line: str, scheme: str) -> None:
    assert client_of("10.0.0.1", line).scheme == scheme


@pytest.mark.parametrize(
    ("line", "host"),
    [
        ("X-Forwarded-Host: WWW.example.com:8443", "www.example.com:8443"),
        ("X-Forwarded-Host: a.example, b.example", "b.example"),
        ("X-Forwarded-Host: evil.example/x", "app.example.com"),
        ("X-Forwarded-Host: user@evil.example", "app.example.com"),
        ("Forwarded: host=b.example", "b.example"),
        ('Forwarded: host="b.example:81"', "b.example:81"),
    ],
)
def test_the_nearest_proxy_says_what_host_was_asked_for(line: str, host: str) -> None:
    assert client_of("10.0.0.1", line).host == host


@pytest.mark.parametrize(
    ("lines", "request_id"),
    [
        (("X-Request-Id: abc-1",), "abc-1"),
        (("X-Request-Id: a b",), ""),
        (("X-Request-Id: a", "X-Request-Id: b"), ""),
        (("X-Request-Id: " + "a" * 129,), ""),
        (("X-Request-Id: a", "X-Forwarded-For: 1.2.3.4"), "a"),
    ],
)
def test_a_request_id_is_kept_when_a_trusted_proxy_sent_it(
    lines: tuple[str, ...], request_id: str
) -> None:
    assert client_of("10.0.0.1", *lines).request_id == request_id


@pytest.mark.parametrize(
    "lines",
    [
        ("Forwarded: for=1.2.3.4", "X-Forwarded-For: 6.6.6.6"),
        ("Forwarded: for=1.2.3.4", "X-Forwarded-Proto: https"),
        ("Forwarded: for=_hidden", "X-Forwarded-For: 1.2.3.4"),
        ("Forwarded: proto=https", "X-Forwarded-Proto: http"),
        ("Forwarded: proto=https", "X-Forwarded-For: 1.2.3.4"),
        ("Forwarded: for=1.2.3.4;proto=https", "X-Forwarded-For: 1.2.3.4"),
        ("Forwarded: host=evil.example", "X-Forwarded-Host: app.example.com"),
        ("Forwarded: host=evil.example", "X-Forwarded-For: 1.2.3.4"),
        ("Forwarded: for=1.2.3.4;host=evil.example", "X-Forwarded-For: 1.2.3.4"),
        ("Forwarded: for=1.2.3.4 for=6.6.6.6",),
        ("Forwarded: for=1.2.3.4;for=6.6.6.6",),
        ('Forwarded: for="1.2.3.4',),
        ("Forwarded: for=1.2.3.4;;",),
        ("Forwarded: 1.2.3.4",),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(lines: tuple[str, ...]) -> None:
    with pytest.raises(BadRequest) as refusal:
        client_of("10.0.0.1", *lines)
    assert refusal.value.status == 400


def test_both_families_are_believed_when_they_say_the_same() -> None:
    client = client_of(
        "10.0.0.1",
        "Forwarded: for=6.6.6.6, for=1.2.3.4;proto=HTTPS;host=B.example",
        "X-Forwarded-For: 6.6.6.6, 1.2.3.4",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: b.example:443",
    )
    assert (client.address, client.origin) == ("1.2.3.4", "https://b.example")
    less = client_of(
        "10.0.0.1",
        "Forwarded: for=1.2.3.4",
        "X-Forwarded-For: 1.2.3.4",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: b.example",
    )
    assert less == client


def test_a_peer_may_be_written_in_ways_of_its_own() -> None:
    assert client_of("::ffff:10.0.0.1", "X-Forwarded-For: 1.2.3.4").address == "1.2.3.4"
    assert client_of("fd00::1%eth0", "X-Forwarded-For: 1.2.3.4").address == "1.2.3.4"
    assert client_of("", "X-Forwarded-For: 1.2.3.4").forwarded_for == "unknown"


def test_a_long_chain_costs_no_more_than_its_end() -> None:
    client = client_of("10.0.0.1", "X-Forwarded-For: " + ", ".join(["10.0.0.2"] * 2000))
    assert client.forwarded_for.count(",") <= 32


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("lines", "continued"),
    [
        ((f"traceparent: {TRACE}",), TRACE),
        ((), ""),
        ((f"traceparent: {TRACE.upper()}",), ""),
        ((f"traceparent: 01{TRACE[2:]}",), ""),
        ((f"traceparent: 00-{'0' * 32}-00f067aa0ba902b7-01",), ""),
        ((f"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01",), ""),
        ((f"traceparent: {TRACE}-x",), ""),
        ((f"traceparent: {TRACE}", f"traceparent: {TRACE}"), ""),
    ],
)
def test_a_trace_is_continued_if_it_is_one(lines: tuple[str, ...], continued: str) -> None:
    assert continued_trace(head_with(*lines)) == continued


ADDRESSES = st.one_of(
    st.ip_addresses().map(str), st.sampled_from(["10.0.0.2", "fd00::2", "junk", "unknown", ""])
)


@given(st.lists(ADDRESSES, max_size=8))
def test_the_client_is_the_first_from_the_right_that_is_not_trusted(entries: list[str]) -> None:
    client = client_of("10.0.0.1", f"X-Forwarded-For: {', '.join(entries)}")
    chain = client.forwarded_for.split(", ")
    assert chain[0] == client.address
    assert chain[-1] == "10.0.0.1"
    for hop in chain[1:]:
        assert any(ip_address(hop) in network for network in TRUSTED)


@given(st.text(max_size=40) | st.ip_addresses().map(str))
def test_an_address_has_one_spelling(text: str) -> None:
    address = canonical_address(text)
    assert canonical_address(address) == address

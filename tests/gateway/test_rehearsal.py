"""Composing a request that nobody sent."""

import pytest

from auth.identity import ABSENT
from gateway.bad_request import BadRequest
from gateway.rehearsal import compose_head, rehearse
from tests.gateway.decision_table import ROUTES
from tests.gateway.loading import snapshot_of

SNAPSHOT = snapshot_of(ROUTES)
_ANY_PORT = ROUTES.replace("  public_url: http://127.0.0.1:8080\n", "").replace(":8080", ":0")

URLS = [
    ("/a?b=%2e", "127.0.0.1:8080", "/a?b=%2e"),
    ("http://app.example.com", "app.example.com", "/"),
    ("http://app.example.com?x", "app.example.com", "/?x"),
    ("HTTPS://app.example.com:443/a/../b#c", "app.example.com", "/b"),
    ("http://app.example.com/ä b", "app.example.com", "/%C3%A4%20b"),
    ("notes", "127.0.0.1:8080", "/notes"),
]


@pytest.mark.parametrize(("url", "authority", "target"), URLS)
def test_a_url_is_sent_as_a_browser_would_send_it(url: str, authority: str, target: str) -> None:
    head = compose_head(SNAPSHOT, "GET", url, ())
    assert (head.authority, head.target.text) == (authority, target)


def test_a_port_that_is_not_chosen_yet_is_in_no_request() -> None:
    snapshot = snapshot_of(_ANY_PORT)
    assert compose_head(snapshot, "GET", "/a", ()).authority == "127.0.0.1"


def test_a_host_field_replaces_the_one_of_the_url() -> None:
    head = compose_head(SNAPSHOT, "GET", "/a", [("host", "app.example.com")])
    assert head.host == "app.example.com"


def test_what_a_client_may_not_send_is_refused_by_the_same_reading() -> None:
    for method, url in [("GET", "/a;b"), ("G T", "/"), ("GET", "http://a b/")]:
        with pytest.raises(BadRequest):
            compose_head(SNAPSHOT, method, url, ())
    refused = rehearse(SNAPSHOT, "GET", "/a%00", caller=ABSENT).refused
    assert refused is not None
    assert refused.status == 400

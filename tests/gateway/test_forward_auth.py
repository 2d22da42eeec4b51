import pytest

from config.model import Limits
from gateway.bad_request import BadRequest
from gateway.forward_auth import original_request
from gateway.head import RequestHead
from gateway.reading import read_request_head


def asking(*fields: str) -> RequestHead:
    lines = "".join(f"{field}\r\n" for field in ("Host: gate.example", *fields))
    return read_request_head(
        f"GET /.doorward/auth HTTP/1.1\r\n{lines}\r\n".encode("latin-1"),
        scheme="http",
        limits=Limits(),
    )


TRAEFIK = (
    "X-Forwarded-Method: POST",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: App.Example:443",
    "X-Forwarded-Uri: /a/../notes/1?x=%2F",
)
NGINX = ("X-Original-Method: POST", "X-Original-URL: https://app.example/notes/1?x=%2F")


@pytest.mark.parametrize("fields", [TRAEFIK, NGINX, (*TRAEFIK, *NGINX)])
def test_the_original_request_is_read_canonically(fields: tuple[str, ...]) -> None:
    original = original_request(asking("Cookie: doorward=x", *fields), trusted=True)

    assert original.method == "POST"
    assert original.host == original.authority == "app.example"
    assert original.target.text == "/notes/1?x=%2F"
    assert original.field("cookie") == "doorward=x"


def test_only_a_trusted_proxy_may_ask() -> None:
    with pytest.raises(BadRequest) as refused:
        original_request(asking(*TRAEFIK), trusted=False)
    assert refused.value.status == 403


@pytest.mark.parametrize(
    "fields",
    [
        (),
        TRAEFIK[1:],
        (TRAEFIK[0], *TRAEFIK[2:]),
        (*TRAEFIK[:2], TRAEFIK[3]),
        ("X-Forwarded-Method: post", *TRAEFIK[1:]),
        (*TRAEFIK[:3], "X-Forwarded-Uri: notes"),
        (*TRAEFIK[:3], "X-Forwarded-Uri: /a%00b"),
        (*TRAEFIK, "X-Forwarded-Uri: /public"),
        (NGINX[1],),
        (NGINX[0], "X-Original-URL: /notes/1"),
        (NGINX[0], "X-Original-URL: ftp://app.example/notes/1"),
    ],
)
def test_missing_or_malformed_fields_are_refused(fields: tuple[str, ...]) -> None:
    with pytest.raises(BadRequest) as refused:
        original_request(asking(*fields), trusted=True)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    "other",
    [
        "X-Original-URL: https://app.example/public",
        "X-Original-URL: https://other.example/notes/1?x=%2F",
    ],
)
def test_two_families_that_disagree_are_refused(other: str) -> None:
    # One of them came from the asking proxy's own client.
    with pytest.raises(BadRequest, match="disagree"):
        original_request(asking(*TRAEFIK, NGINX[0], other), trusted=True)


def test_two_families_with_different_methods_are_refused() -> None:
    with pytest.raises(BadRequest, match="disagree"):
        original_request(asking(*TRAEFIK, "X-Original-Method: GET", NGINX[1]), trusted=True)

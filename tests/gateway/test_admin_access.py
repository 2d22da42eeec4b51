import base64

import pytest

from config.model import Address, Admin, Secret
from gateway.admin_access import AdminRequest, refusal_of

ADMIN = Admin(listen=Address("127.0.0.1", 8081), token=Secret("s3cret"))
BEARER = "Bearer s3cret"


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"anybody:{password}".encode()).decode()


def request(  # noqa: PLR0917
    method: str = "GET",
    path: str = "/api/status",
    host: str = "127.0.0.1:8081",
    authorization: str = BEARER,
    origin: str = "",
    site: str = "",
    mode: str = "",
) -> AdminRequest:
    return AdminRequest(method, path, host, authorization, origin, site, mode)


@pytest.mark.parametrize(
    "good",
    [
        request(),
        request(authorization="bearer  s3cret "),
        request(authorization=basic("s3cret")),
        request(host="localhost:8081", authorization=basic("s3cret")),
        request(host="[::1]:8081", authorization=basic("s3cret")),
        request(host="gateway.internal:8081"),
        request("POST", origin="http://127.0.0.1:8081", site="same-origin"),
        request("DELETE", site="none"),
        request(path="/", authorization=basic("s3cret"), site="cross-site", mode="navigate"),
    ],
    ids=[
        "bearer",
        "any-case",
        "password",
        "localhost",
        "ipv6",
        "bearer-on-a-service-name",
        "own-origin",
        "typed-in",
        "a-link-to-the-dashboard",
    ],
)
def test_the_token_opens(good: AdminRequest) -> None:
    assert refusal_of(good, ADMIN) is None


@pytest.mark.parametrize(
    ("bad", "status"),
    [
        (request(authorization=""), 401),
        (request(authorization="Bearer "), 401),
        (request(authorization="Bearer s3cre"), 401),
        (request(authorization="Bearer s3cretX"), 401),
        (request(authorization="Bearer \udcff"), 401),
        (request(authorization="s3cret"), 401),
        (request(authorization="Basic s3cret"), 401),
        (request(authorization=basic("wrong")), 401),
        (request(authorization="Basic !!"), 401),
        (request("POST", authorization=basic("s3cret")), 403),
        (request("DELETE", authorization=basic("s3cret")), 403),
        (request(host="rebound.example:8081", authorization=basic("s3cret")), 403),
        (request(host="127.0.0.1.rebound.example", authorization=basic("s3cret")), 403),
        (request(host="[", authorization=basic("s3cret")), 403),
        (request("POST", origin="https://evil.example"), 403),
        (request("POST", origin="null"), 403),
        (request("POST", origin="http://127.0.0.1:9999"), 403),
        (request("POST", site="cross-site"), 403),
        (request("POST", site="same-site"), 403),
        (request(site="cross-site", mode="navigate"), 403),
        (request("POST", path="/", site="cross-site", mode="navigate"), 403),
    ],
)
def test_everything_else_is_refused(bad: AdminRequest, status: int) -> None:
    refusal = refusal_of(bad, ADMIN)
    assert refusal is not None
    assert refusal.status == status


@pytest.mark.parametrize("authorization", ["", "Bearer ", BEARER, basic("")])
def test_without_a_configured_token_nothing_opens(authorization: str) -> None:
    closed = Admin(listen=Address("127.0.0.1", 8081))
    refusal = refusal_of(request(authorization=authorization), closed)
    assert refusal is not None
    assert refusal.status == 403
    assert "admin.token" in refusal.detail


@pytest.mark.parametrize("authorization", ["Bearer ", basic(""), ""])
def test_an_empty_token_opens_nothing(authorization: str) -> None:
    empty = Admin(listen=Address("127.0.0.1", 8081), token=Secret(""))
    assert refusal_of(request(authorization=authorization), empty) is not None


def test_a_browser_is_asked_for_a_password_on_the_dashboard_only() -> None:
    dashboard = refusal_of(request(path="/", authorization=""), ADMIN)
    api = refusal_of(request(authorization=""), ADMIN)
    assert dashboard is not None
    assert api is not None
    assert [c.split()[0] for c in dashboard.challenges] == ["Bearer", "Basic"]
    assert [c.split()[0] for c in api.challenges] == ["Bearer"]


def test_a_refusal_does_not_repeat_what_was_sent() -> None:
    refusal = refusal_of(request(authorization="Bearer canary"), ADMIN)
    assert refusal is not None
    assert "canary" not in refusal.detail

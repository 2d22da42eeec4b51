"""The keys of issuers over real HTTP, and what issuers may do wrong."""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec

import auth.io.jwks
from auth.io.fetching import DocumentFetcher
from auth.io.jwks import IssuerKeys
from auth.keys import public_jwk
from auth.ports import AuthUnavailable
from config.model import TokenIssuer
from tests.auth.io.issuer import Issuer

WELL_KNOWN = "/.well-known/openid-configuration"


def document(*kids: str) -> str:
    keys = [
        {**public_jwk(ec.generate_private_key(ec.SECP256R1())), "kid": kid, "alg": "ES256"}
        for kid in kids
    ]
    return json.dumps({"keys": keys})


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(5000):
        if holds():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never came to hold")


async def test_keys_are_found_at_the_configured_url(issuer: Issuer, fetch: DocumentFetcher) -> None:
    issuer.publish("/jwks", document("a"))
    keys = IssuerKeys(issuer.named(), fetch)
    assert await keys.find("a", "ES256") is not None
    assert issuer.asked == ["/jwks"]


async def test_keys_are_discovered_from_the_issuer(issuer: Issuer, fetch: DocumentFetcher) -> None:
    metadata = {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/elsewhere"}
    issuer.publish(WELL_KNOWN, json.dumps(metadata))
    issuer.publish("/elsewhere", document("a"))
    keys = IssuerKeys(issuer.named(jwks_uri=None), fetch)
    assert await keys.find("a", "ES256") is not None
    assert issuer.asked == [WELL_KNOWN, "/elsewhere"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"issuer": "{url}/"}, "another issuer"),
        ({"issuer": "https://idp.example.com"}, "another issuer"),
        ({"issuer": None}, "another issuer"),
        ({"issuer": ["{url}"]}, "another issuer"),
        ({"jwks_uri": None}, "names no jwks_uri"),
        ({"jwks_uri": ["{url}/jwks"]}, "names no jwks_uri"),
        ({"jwks_uri": "file:///etc/passwd"}, "not http or https"),
        ({"jwks_uri": "//evil.example/jwks"}, "not http or https"),
        ({"jwks_uri": "http://[::1/jwks"}, "not http or https"),
        ({"jwks_uri": "https://"}, "not http or https"),
    ],
)
async def test_metadata_that_is_not_exactly_the_issuers_is_refused(
    issuer: Issuer, fetch: DocumentFetcher, change: dict[str, Any], message: str
) -> None:
    metadata = {"issuer": issuer.url, "jwks_uri": f"{issuer.url}/jwks", **change}
    issuer.publish(WELL_KNOWN, json.dumps(metadata).replace("{url}", issuer.url))
    issuer.publish("/jwks", document("a"))
    keys = IssuerKeys(issuer.named(jwks_uri=None), fetch)
    with pytest.raises(AuthUnavailable, match=message):
        await keys.find("a", "ES256")
    assert issuer.asked == [WELL_KNOWN]


async def test_the_keys_of_an_https_issuer_are_not_taken_from_http() -> None:
    async def fetch(url: str) -> bytes:
        assert url == f"https://idp.example.com{WELL_KNOWN}"
        metadata = {"issuer": "https://idp.example.com", "jwks_uri": "http://169.254.169.254/"}
        return json.dumps(metadata).encode()

    keys = IssuerKeys(TokenIssuer("https://idp.example.com", ("gw",), ("ES256",)), fetch)
    with pytest.raises(AuthUnavailable, match="not https"):
        await keys.find("a", "ES256")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "<html>sign in</html>",
        "[]",
        "null",
        "{}",
        '{"keys": {}}',
        '{"keys": []}',
        '{"keys": [1, null, {}]}',
        '{"keys": [{"kty": "oct", "k": "AAAA", "kid": "a"}]}',
        '{"keys": [], "keys": []}',
        '{"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "a"}]}',
        '{"keys": [{"kty": "RSA", "n": 1, "e": 2, "kid": "a"}]}',
    ],
)
async def test_content_without_a_usable_key_is_an_outage(
    issuer: Issuer, fetch: DocumentFetcher, content: str
) -> None:
    issuer.publish("/jwks", content)
    with pytest.raises(AuthUnavailable):
        await IssuerKeys(issuer.named(), fetch).find("a", "ES256")


async def test_an_issuer_that_is_not_there_is_an_outage(fetch: DocumentFetcher) -> None:
    keys = IssuerKeys(
        TokenIssuer("x", ("gw",), ("ES256",), jwks_uri="http://127.0.0.1:1/jwks"), fetch
    )
    with pytest.raises(AuthUnavailable, match="cannot be read"):
        await keys.find("a", "ES256")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_a_new_key_is_found_at_once_and_unknown_ones_ask_once_in_thirty_seconds(
    issuer: Issuer, fetch: DocumentFetcher
) -> None:
    clock = Clock()
    issuer.publish("/jwks", document("a"))
    keys = IssuerKeys(issuer.named(), fetch, clock=clock)
    assert await keys.find("a", "ES256") is not None
    issuer.publish("/jwks", document("a", "b"))
    assert await keys.find("b", "ES256") is not None
    assert len(issuer.asked) == 2
    for attempt in range(200):
        assert await keys.find(f"random-{attempt}", "ES256") is None
    assert len(issuer.asked) == 2
    clock.now += 30
    assert await keys.find("random", "ES256") is None
    assert len(issuer.asked) == 3


async def test_the_limit_on_asking_also_holds_when_asking_fails(
    issuer: Issuer, fetch: DocumentFetcher
) -> None:
    clock = Clock()
    issuer.publish("/jwks", document("a"))
    keys = IssuerKeys(issuer.named(), fetch, clock=clock)
    assert await keys.find("a", "ES256") is not None
    issuer.publish("/jwks", "down", status=500)
    for attempt in range(50):
        assert await keys.find(f"random-{attempt}", "ES256") is None
    assert len(issuer.asked) == 2
    assert await keys.find("a", "ES256") is not None, "the good keys are still in force"


async def test_without_any_keys_a_flood_of_tokens_asks_once_in_five_seconds(
    issuer: Issuer, fetch: DocumentFetcher
) -> None:
    clock = Clock()
    issuer.publish("/jwks", "down", status=500)
    keys = IssuerKeys(issuer.named(), fetch, clock=clock)
    for _ in range(50):
        with pytest.raises(AuthUnavailable) as outage:
            await keys.find("a", "ES256")
        assert outage.value.retry_after == 5
    assert len(issuer.asked) == 1
    issuer.publish("/jwks", document("a"))
    clock.now += 5
    assert await keys.find("a", "ES256") is not None


async def test_many_requests_share_one_load(issuer: Issuer, fetch: DocumentFetcher) -> None:
    go = asyncio.Event()

    async def answer(_: web.Request) -> web.Response:
        await go.wait()
        return web.Response(text=document("a"))

    issuer.answers["/jwks"] = answer
    keys = IssuerKeys(issuer.named(), fetch)
    waiting = [asyncio.create_task(keys.find("a", "ES256")) for _ in range(20)]
    await until(lambda: bool(issuer.asked))
    waiting[0].cancel()  # the one that began it goes away; the others must not notice
    go.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert all(key is not None and not isinstance(key, BaseException) for key in found[1:])
    assert len(issuer.asked) == 1


async def test_keys_are_used_for_a_day_after_the_issuer_was_lost_and_no_longer(
    issuer: Issuer, fetch: DocumentFetcher
) -> None:
    clock = Clock()
    issuer.publish("/jwks", document("a"))
    keys = IssuerKeys(issuer.named(), fetch, clock=clock)
    assert await keys.find("a", "ES256") is not None
    issuer.publish("/jwks", "down", status=500)
    clock.now += 86_400
    assert await keys.find("a", "ES256") is not None
    clock.now += 1
    with pytest.raises(AuthUnavailable):
        await keys.find("a", "ES256")


async def test_a_change_is_told_and_the_same_keys_are_none(
    issuer: Issuer, fetch: DocumentFetcher
) -> None:
    clock, changes = Clock(), []
    same = document("a")
    issuer.publish("/jwks", same)
    keys = IssuerKeys(
        issuer.named(), fetch, clock=clock, on_change=lambda: changes.append(clock.now)
    )
    await keys.find("a", "ES256")
    await keys.find("unknown", "ES256")
    assert (len(issuer.asked), len(changes)) == (2, 1)
    issuer.publish("/jwks", document("a"))  # the same name, another key
    clock.now += 30
    await keys.find("unknown", "ES256")
    assert (len(issuer.asked), len(changes)) == (3, 2)


async def test_a_key_file_is_read_again_when_it_changes(
    tmp_path: Path, fetch: DocumentFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth.io.jwks, "_FILE_LOOK", 0.001)
    path, changed = tmp_path / "jwks.json", asyncio.Event()
    path.write_text(document("a"))
    issuer = TokenIssuer("x", ("gw",), ("ES256",), jwks_file=str(path))
    keys = IssuerKeys(issuer, fetch, on_change=changed.set)
    task = asyncio.create_task(keys.keep_fresh())
    await asyncio.wait_for(changed.wait(), 5)
    assert await keys.find("a", "ES256") is not None
    changed.clear()
    replacement = tmp_path / "new"
    replacement.write_text(document("b"))
    os.replace(replacement, path)  # noqa: PTH105 - as a deployer's tool does it
    await asyncio.wait_for(changed.wait(), 5)
    found = keys.key_set()
    assert found is not None
    assert [key.kid for key in found.keys] == ["b"]
    path.write_text("broken")
    await until(lambda: bool(keys.last_error))
    assert await keys.find("b", "ES256") is not None, "a broken file leaves the old keys"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await keys.close()


async def test_a_key_file_that_is_not_there_is_an_outage_that_names_it(
    tmp_path: Path, fetch: DocumentFetcher
) -> None:
    path = str(tmp_path / "none.json")
    keys = IssuerKeys(TokenIssuer("x", ("gw",), ("ES256",), jwks_file=path), fetch)
    with pytest.raises(AuthUnavailable, match=r"none\.json cannot be read: No such file"):
        await keys.find("a", "ES256")


async def test_a_key_file_that_is_too_large_is_not_read(
    tmp_path: Path, fetch: DocumentFetcher
) -> None:
    path = tmp_path / "jwks.json"
    path.write_text(document("a") + " " * 1_048_576)
    keys = IssuerKeys(TokenIssuer("x", ("gw",), ("ES256",), jwks_file=str(path)), fetch)
    with pytest.raises(AuthUnavailable, match="larger than"):
        await keys.find("a", "ES256")


async def test_a_key_file_that_stays_the_same_stays_good(
    tmp_path: Path, fetch: DocumentFetcher
) -> None:
    clock, path = Clock(), tmp_path / "jwks.json"
    path.write_text(document("a"))
    issuer = TokenIssuer("x", ("gw",), ("ES256",), jwks_file=str(path))
    keys = IssuerKeys(issuer, fetch, clock=clock)
    assert await keys.find("a", "ES256") is not None
    for _ in range(3):
        clock.now += 80_000
        assert await keys.find("unknown", "ES256") is None
    assert await keys.find("a", "ES256") is not None


async def test_metadata_that_is_no_json_is_an_outage(
    issuer: Issuer, fetch: DocumentFetcher
) -> None:
    issuer.publish(WELL_KNOWN, "<html>")
    with pytest.raises(AuthUnavailable, match="no metadata document"):
        await IssuerKeys(issuer.named(jwks_uri=None), fetch).find("a", "ES256")


async def test_a_lost_issuer_is_asked_again_in_the_background(
    issuer: Issuer, fetch: DocumentFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth.io.jwks, "_LONGEST_PAUSE", 0.001)
    changed = asyncio.Event()
    issuer.publish("/jwks", "down", status=503)
    keys = IssuerKeys(issuer.named(), fetch, on_change=changed.set)
    task = asyncio.create_task(keys.keep_fresh())
    await until(lambda: len(issuer.asked) >= 3)
    issuer.publish("/jwks", document("a"))
    await asyncio.wait_for(changed.wait(), 5)
    assert await keys.find("a", "ES256") is not None
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await keys.close()

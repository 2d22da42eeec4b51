import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import time
from typing import Any

import msgspec
import pytest

from auth.identity import ABSENT
from auth.login.messages import LoginRequest
from auth.ports import AuthUnavailable
from auth.session import SessionRecord, digest, session_key
from config.model import AccessRule, Assertion, Configuration, PageSettings, TokenIssuer
from gateway.io.assembly import Assembly, LateLogin, Parts
from tests.config.reading_support import configuration as read
from tests.conftest import Valkey
from tests.gateway.io.supervised import configuration

EVERYTHING = """\
version: 1
server: {public_url: "https://login.example.com"}
login:
  sites: [https://shop.example.com]
  registration: {enabled: true, tenant: acme}
  mail: {from: door@example.com, webhook: {url: "https://mail.example.com", secret: sealed-seals}}
  providers:
    - {id: corp, issuer: "https://idp.example.com", client_id: gateway, client_secret: corps}
    - id: github
      protocol: github
      issuer: https://github.com
      client_id: gateway
      client_secret: github
tokens:
  - {issuer: "https://idp.example.com", audience: [api], algorithms: [ES256], jwks_file: /no/file}
upstreams: {shop: "http://127.0.0.1:9"}
routes:
  - {id: shop, match: {hosts: [shop.example.com], path: /*}, upstream: shop, access: signed-in}
"""
LOGIN_PAGE = LoginRequest(
    method="GET",
    path="/.doorward/login",
    query={},
    form={},
    cookies={},
    fields={"accept": "text/html"},
    client_address="127.0.0.1",
    caller=ABSENT,
)


def with_tokens(audience: str) -> Configuration:
    issuer = TokenIssuer(
        issuer="https://idp.example",
        audience=(audience,),
        algorithms=("ES256",),
        jwks_file="/nowhere/jwks.json",
    )
    return msgspec.structs.replace(configuration(), tokens=(issuer,))


@asynccontextmanager
async def assembly(url: str, directory: Path) -> AsyncIterator[Assembly]:
    opened = await Assembly.open(url, configuration(), directory)
    try:
        yield opened
    finally:
        await opened.close()


async def live(of: Assembly, configured: Configuration, generation: int) -> Parts:
    parts = await of.make(configured, generation)
    of.use(parts)
    return parts


async def test_a_reload_forgets_no_token_and_no_assertion_that_it_did_not_change(
    tmp_path: Path, valkey: Valkey
) -> None:
    async with assembly(valkey.url, tmp_path) as parts_of:
        before = await live(parts_of, with_tokens("api"), 1)
        after = await live(parts_of, with_tokens("api"), 2)
        assert after.verifier is before.verifier
        assert after.signer is before.signer
        assert after.state.snapshot.generation == 2


async def test_changed_issuers_and_assertions_are_made_anew(tmp_path: Path, valkey: Valkey) -> None:
    async with assembly(valkey.url, tmp_path) as parts_of:
        before = await live(parts_of, with_tokens("api"), 1)
        changed = with_tokens("another")
        identity = msgspec.structs.replace(changed.identity, assertion=Assertion(ttl=5.0))
        changed = msgspec.structs.replace(changed, identity=identity)
        after = await live(parts_of, changed, 2)
        assert after.verifier is not before.verifier
        assert after.signer is not before.signer
        none = await live(parts_of, configuration(), 3)
        assert none.verifier is None


async def test_what_was_prepared_and_thrown_away_leaves_what_serves_alone(
    tmp_path: Path, valkey: Valkey
) -> None:
    async with assembly(valkey.url, tmp_path) as parts_of:
        serving = await live(parts_of, with_tokens("api"), 1)
        parts_of.discard(await parts_of.make(with_tokens("api"), 2))
        parts_of.discard(await parts_of.make(with_tokens("another"), 2))
        await asyncio.sleep(0)
        assert (await live(parts_of, with_tokens("api"), 2)).verifier is serving.verifier


async def test_a_configuration_with_problems_is_refused(tmp_path: Path, valkey: Valkey) -> None:
    bad = configuration()
    rule = AccessRule("signed-in", when="no.such.thing")
    bad = msgspec.structs.replace(
        bad, routes=(msgspec.structs.replace(bad.routes[0], access=rule),)
    )
    async with assembly(valkey.url, tmp_path) as parts_of:
        with pytest.raises(ValueError, match="when"):
            await parts_of.make(bad, 1)


async def test_the_login_page_of_a_worker_is_there_once_the_store_is(
    tmp_path: Path, valkey: Valkey
) -> None:
    async with assembly(f"unix://{tmp_path}/nobody.sock", tmp_path) as without:
        parts = await live(without, configuration(), 1)
        with pytest.raises(AuthUnavailable):
            await parts.state.login.handle(LOGIN_PAGE)
    async with assembly(valkey.url, tmp_path) as parts_of:
        first = await live(parts_of, configuration(), 1)
        assert (await first.state.login.handle(LOGIN_PAGE)).status == 200
        second = await live(parts_of, configuration(), 2)
        assert (await second.state.login.handle(LOGIN_PAGE)).status == 200


async def test_a_reload_takes_up_the_times_of_sessions_and_leaves_the_lease(
    tmp_path: Path, valkey: Valkey
) -> None:
    before = configuration()
    session = msgspec.structs.replace(before.session, idle_timeout=40.0, lease=9.0)
    async with assembly(valkey.url, tmp_path) as parts_of:
        await live(parts_of, msgspec.structs.replace(before, session=session), 1)
        now = time()
        cookie = await parts_of.store.create(SessionRecord(1, "u1", now, now + 3600))
        left = valkey.client.ttl(session_key(digest(cookie)))
        assert 30 < int(left) <= 40
        workers: Any = valkey.client.hgetall("doorward:workers")
        leases = {value.split()[1] for name, value in workers.items() if name != b"~"}
        assert leases == {b"%d" % round(before.session.lease * 1000)}


async def test_the_pages_are_compiled_before_a_generation_serves_and_kept_while_they_look_the_same(
    tmp_path: Path, valkey: Valkey
) -> None:
    """Compiling takes a tenth of a second, in which the loop would do nothing else."""
    same = configuration()
    other = msgspec.structs.replace(same, pages=PageSettings(name="Another Corp"))
    async with assembly(valkey.url, tmp_path) as parts_of:
        first = await live(parts_of, same, 1)
        second = await live(parts_of, with_tokens("api"), 2)
        third = await live(parts_of, other, 3)
        assert second.pages is first.pages
        assert third.pages is not first.pages
        for parts, site in ((first, b"127.0.0.1"), (third, b"Another Corp")):
            assert site in (await parts.state.login.handle(LOGIN_PAGE)).body
            assert isinstance(parts.state.login, LateLogin)
            service = parts.state.login._service
            assert service is not None
            assert service._answers._pages is parts.pages


async def test_a_generation_that_was_replaced_leaves_nothing_to_the_collector(
    tmp_path: Path, valkey: Valkey
) -> None:
    """In a worker the collector comes rarely, and a site may be reloaded every few seconds."""
    settings = read(EVERYTHING)
    async with assembly(valkey.url, tmp_path) as parts_of:
        for generation in (1, 2):  # what is made once
            serving = await live(parts_of, settings, generation)
            assert (await serving.state.login.handle(LOGIN_PAGE)).status == 200
        gc.collect()
        gc.disable()
        try:
            serving = await live(parts_of, settings, 3)
            assert (await serving.state.login.handle(LOGIN_PAGE)).status == 200
            serving = await live(parts_of, settings, 4)
            assert gc.collect() == 0
        finally:
            gc.enable()

import msgspec
import pytest

from config.model import AccessRule, Configuration, Match, Route, Secret, Store
from gateway.io.packing import ROUTES_AT_ONCE, pack_configuration, unpack_configuration
from tests.gateway.io.supervised import configuration


def with_routes(count: int) -> Configuration:
    rule = AccessRule("signed-in", roles=frozenset({"a", "b"}), when="true")
    routes = tuple(Route(f"r{n}", Match(f"/{n}"), "notes", rule, line=n) for n in range(count))
    return msgspec.structs.replace(configuration(), routes=routes)


@pytest.mark.parametrize("count", [0, 1, ROUTES_AT_ONCE, ROUTES_AT_ONCE + 1, 3 * ROUTES_AT_ONCE])
def test_what_is_unpacked_equals_what_was_packed(count: int) -> None:
    packed = with_routes(count)
    assert unpack_configuration(pack_configuration(packed)) == packed


def test_secrets_arrive() -> None:
    packed = msgspec.structs.replace(configuration(), store=Store(url=Secret("redis://:pw@host")))
    assert unpack_configuration(pack_configuration(packed)).store.url.value == "redis://:pw@host"

import msgspec
import pytest

from config.model import IdentityHeaders, Timeouts, Upstream
from gateway.io.generation import make_generation
from tests.gateway.io.harness import (
    ALL,
    EchoLogin,
    Sessions,
    configuration,
    endpoint,
    state_of,
)


async def test_pools_of_equal_upstreams_are_taken_over_and_others_made_anew() -> None:
    first = {name: Upstream(name, (endpoint(port),)) for name, port in (("app", 1), ("b", 2))}
    second = {
        "app": Upstream("app", (endpoint(1),)),  # equal, another object
        "b": Upstream("b", (endpoint(2),), timeouts=Timeouts(connect=9)),
        "c": Upstream("c", (endpoint(3),)),
    }
    old = make_generation(state_of(configuration(first, [ALL]), Sessions(), EchoLogin()), None)
    new = make_generation(state_of(configuration(second, [ALL]), Sessions(), EchoLogin()), old)

    assert new.pools["app"] is old.pools["app"]
    assert new.pools["b"] is not old.pools["b"]
    assert set(new.pools) == {"app", "b", "c"}
    assert new.snapshot is new.state.snapshot


async def test_rules_that_say_the_same_are_those_that_upstreams_remember_answers_by() -> None:
    """What 64 heads of an endpoint remember would else hold the rules of as many generations."""
    upstreams = {"app": Upstream("app", (endpoint(1),))}
    settings = configuration(upstreams, [ALL])
    identity = IdentityHeaders((("X-Other", "subject"),), settings.identity.assertion)
    changed = msgspec.structs.replace(settings, identity=identity)
    old = make_generation(state_of(settings, Sessions(), EchoLogin()), None)
    same = make_generation(state_of(settings, Sessions(), EchoLogin()), old)
    other = make_generation(state_of(changed, Sessions(), EchoLogin()), same)

    assert same.snapshot.field_rules is not old.snapshot.field_rules
    assert same.rules is old.rules
    assert other.rules is other.snapshot.field_rules


async def test_a_generation_cannot_be_changed() -> None:
    upstreams = {"app": Upstream("app", (endpoint(1),))}
    made = make_generation(state_of(configuration(upstreams, [ALL]), Sessions(), EchoLogin()), None)

    with pytest.raises(AttributeError):
        made.pools = {}  # type: ignore[misc]

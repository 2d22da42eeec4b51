"""What a sign-in must come to, as the parameters of a request for one."""

import pytest

from auth.decision import StepUp, step_up_in


@pytest.mark.parametrize(
    ("step_up", "parameters"),
    [
        (StepUp(("mfa",)), {"acr_values": "mfa"}),
        (StepUp(("phr", "mfa"), 300.0), {"acr_values": "phr mfa", "max_age": "300"}),
        (StepUp((), 1.0), {"max_age": "1"}),
    ],
)
def test_what_is_asked_for_survives_the_way_to_the_login_page(
    step_up: StepUp, parameters: dict[str, str]
) -> None:
    assert step_up.parameters == parameters
    assert step_up_in(parameters) == step_up


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"acr_values": " "},
        {"max_age": "-1"},
        {"max_age": "1e9"},
        {"max_age": "\u0665\u00b2"},
        {"max_age": "9" * 400},
    ],
)
def test_what_makes_no_sense_asks_for_nothing(parameters: dict[str, str]) -> None:
    assert step_up_in(parameters) is None


def test_a_stranger_cannot_ask_for_more_ways_than_a_route_would() -> None:
    asked = step_up_in({"acr_values": "a " * 10_000})
    assert asked is not None
    assert len(asked.acr_values) == 16


@pytest.mark.parametrize(
    ("step_up", "acr", "amr", "enough"),
    [
        (StepUp(("mfa",)), "mfa", (), True),
        (StepUp(("mfa",)), "pwd", (), False),
        (StepUp(("mfa",)), "", ("pwd", "mfa"), True),
        (StepUp(("phr",)), "", ("pwd", "mfa"), False),
        (StepUp((), 60.0), "", (), True),
    ],
)
def test_a_sign_in_is_as_strong_as_its_acr_or_the_method_mfa_says(
    step_up: StepUp, acr: str, amr: tuple[str, ...], *, enough: bool
) -> None:
    assert step_up.is_strong_enough(acr, amr) is enough


def test_an_age_is_too_much_only_where_a_limit_is_asked_for() -> None:
    assert StepUp((), 60.0).is_too_old(60.1)
    assert not StepUp((), 60.0).is_too_old(60.0)
    assert not StepUp(("mfa",)).is_too_old(1e9)

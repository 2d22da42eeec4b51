"""Whole gateways for the tests of what happens to them."""

from tests.end_to_end.conftest import start_gateway as start_gateway  # noqa: PLC0414 - a fixture

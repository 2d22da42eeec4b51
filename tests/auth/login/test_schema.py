"""What was released stays as it is; that it works: `test_accounts`, on both databases."""

import hashlib

from auth.login.schema import VERSIONS

RELEASED = ("592d72b8585e967b",)
"""Digests of the versions that databases out there have; append, never change."""


def test_a_version_that_was_released_is_not_changed() -> None:
    digests = tuple(
        hashlib.sha256("\n".join(version).encode()).hexdigest()[:16] for version in VERSIONS
    )
    assert digests[: len(RELEASED)] == RELEASED

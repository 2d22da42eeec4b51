import msgspec

from auth.identity import Identity
from config.model import Assertion, IdentityHeaders
from gateway.forwarding import identity_block
from gateway.identity_blocks import IdentityBlocks

HEADERS = IdentityHeaders((("X-Auth-Subject", "subject"), ("X-Auth-Roles", "roles")), Assertion())
ADA = Identity("ada", roles=("member",))


def test_a_block_is_written_once_for_an_identity_and_its_assertion() -> None:
    blocks = IdentityBlocks(HEADERS)
    first = blocks.block(ADA, "a.b.c")

    assert first == identity_block(HEADERS, ADA, "a.b.c")
    assert blocks.block(ADA, "a.b.c") is first


def test_another_identity_never_gets_a_remembered_block() -> None:
    blocks = IdentityBlocks(HEADERS)
    blocks.block(ADA, "a.b.c")
    # Not even with the same assertion, which a signer never gives to two.
    bob = msgspec.structs.replace(ADA, subject="bob")

    assert b"X-Auth-Subject: bob\r\n" in blocks.block(bob, "a.b.c")
    assert b"X-Auth-Subject: ada\r\n" in blocks.block(ADA, "a.b.c")


def test_another_token_of_the_same_person_gets_the_block_that_says_the_same() -> None:
    blocks = IdentityBlocks(HEADERS)
    first = blocks.block(msgspec.structs.replace(ADA, expires_at=1.0), "a.b.c")

    assert blocks.block(msgspec.structs.replace(ADA, expires_at=2.0), "a.b.c") is first
    more = msgspec.structs.replace(ADA, roles=("admin",), expires_at=3.0)
    assert b"X-Auth-Roles: admin\r\n" in blocks.block(more, "a.b.c")


def test_a_new_assertion_makes_a_new_block() -> None:
    blocks = IdentityBlocks(HEADERS)
    blocks.block(ADA, "a.b.c")

    assert b"X-Auth-Assertion: d.e.f\r\n" in blocks.block(ADA, "d.e.f")


def test_without_an_assertion_nothing_is_remembered() -> None:
    blocks = IdentityBlocks(HEADERS)
    blocks.block(ADA, "")

    assert len(blocks) == 0


def test_the_memory_is_bounded() -> None:
    blocks = IdentityBlocks(HEADERS, capacity=3)
    for number in range(10):
        blocks.block(ADA, f"a.b.{number}")

    assert len(blocks) <= 3

import pytest

from config.model import Address, Configuration
from config.overriding import move_addresses
from tests.config.reading_support import MINIMAL, configuration


def moved(text: str, **environment: str) -> Configuration:
    result = move_addresses(configuration(text), environment)
    assert isinstance(result, Configuration), result
    return result


def refused(text: str, **environment: str) -> list[str]:
    result = move_addresses(configuration(text), environment)
    assert isinstance(result, list)
    return [problem.message for problem in result]


def test_nothing_moves_without_a_variable() -> None:
    assert moved(MINIMAL, DOORWARD_LISTEN="") == configuration(MINIMAL)


def test_both_addresses_move() -> None:
    loaded = moved(MINIMAL, DOORWARD_LISTEN="127.0.0.1:9", DOORWARD_ADMIN_LISTEN="[::1]:10")
    assert loaded.server.listen == Address("127.0.0.1", 9)
    assert loaded.admin.listen == Address("::1", 10)


@pytest.mark.parametrize(
    ("given", "listen", "public_url"),
    [
        ("", "127.0.0.1:9", "http://127.0.0.1:9"),
        ("public_url: 'http://127.0.0.1:8080'", "127.0.0.1:9", "http://127.0.0.1:9"),
        ("public_url: 'https://a.example'", "127.0.0.1:9", "https://a.example"),
        ("public_url: 'http://localhost:8080'", "127.0.0.1:9", "http://localhost:8080"),
        ("", "0.0.0.0:9", "http://127.0.0.1:9"),
        ("", "[::1]:9", "http://[::1]:9"),
    ],
)
def test_the_public_url_moves_when_it_names_the_listening_address(
    given: str, listen: str, public_url: str
) -> None:
    loaded = moved(f"{MINIMAL}server: {{{given}}}\n", DOORWARD_LISTEN=listen)
    assert loaded.server.public_url == public_url
    assert loaded.identity.assertion.issuer == public_url


def test_an_issuer_of_ones_own_stays() -> None:
    text = MINIMAL + "identity: {assertion: {issuer: 'https://me'}}\n"
    assert moved(text, DOORWARD_LISTEN="127.0.0.1:9").identity.assertion.issuer == "https://me"


def test_every_malformed_address_is_told() -> None:
    messages = refused(MINIMAL, DOORWARD_LISTEN="9", DOORWARD_ADMIN_LISTEN="x:y")
    assert [message.partition(":")[0] for message in messages] == [
        "the environment variable DOORWARD_LISTEN",
        "the environment variable DOORWARD_ADMIN_LISTEN",
    ]


def test_a_short_admin_token_does_not_move_to_where_others_reach_it() -> None:
    text = MINIMAL + "admin: {token: short}\n"
    (message,) = refused(text, DOORWARD_ADMIN_LISTEN="0.0.0.0:9")
    assert "at least 16 characters" in message
    assert "short" not in message
    assert moved(text, DOORWARD_ADMIN_LISTEN="127.0.0.2:9").admin.token is not None
    long_enough = MINIMAL + "admin: {token: 1234567890123456-x}\n"
    assert moved(long_enough, DOORWARD_ADMIN_LISTEN="0.0.0.0:9").admin.listen.port == 9

"""The structure of `login`."""

from typing import Any

import jsonschema
import pytest

from config.login_schema import LOGIN

PROVIDER = {"id": "corp", "issuer": "https://idp.example.com", "client_id": "doorward"}


def is_valid(login: Any) -> bool:
    return bool(jsonschema.Draft202012Validator(LOGIN).is_valid(login))


@pytest.mark.parametrize("missing", PROVIDER)
def test_a_provider_needs_an_id_an_issuer_and_a_client_id(missing: str) -> None:
    provider = {key: value for key, value in PROVIDER.items() if key != missing}

    assert is_valid({"providers": [PROVIDER]})
    assert not is_valid({"providers": [provider]})


@pytest.mark.parametrize(
    "login",
    [
        {"mail": {"webhook": {"url": "https://m.example"}}},
        {"mail": {"webhook": {"url": "https://m.example", "secret": "short"}}},
        {"mail": {"smtp": {"security": "tls"}}},
        {"user_service": {"timeout": "5s"}},
        {"ldap": {"base": "dc=example"}},
        {"ldap": {"url": "ldaps://h", "security": "tls"}},
        {"registration": {"enabled": "perhaps"}},
        {"passwords": True},
    ],
    ids=str,
)
def test_what_is_missing_or_unknown_is_a_problem(login: object) -> None:
    assert not is_valid(login)

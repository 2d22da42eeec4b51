import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from auth.decision import Reason
from auth.keys import SigningKey, signing_key
from auth.logout_token import EVENT, LIVES_FOR, logout_token
from auth.tokens import read_token


@pytest.fixture
def key() -> SigningKey:
    private = ec.generate_private_key(ec.SECP256R1())
    return signing_key(private, created_at=0.0, active_at=0.0)


def made(key: SigningKey, subject: str = "u1") -> str:
    return logout_token(
        key,
        issuer="https://gateway.example",
        audience="video",
        subject=subject,
        session="d" * 64,
        event_id="17-0",
        ended_at=1_700_000_000.9,
    )


def test_it_says_what_the_specification_asks_for(key: SigningKey) -> None:
    """OpenID Connect Back-Channel Logout 1.0, section 2.4."""
    token = made(key)
    header = jwt.get_unverified_header(token)
    claims = jwt.decode(
        token,
        key.private_key.public_key(),
        algorithms=["ES256"],
        audience="video",
        issuer="https://gateway.example",
        options={"verify_exp": False},
    )
    assert header == {"alg": "ES256", "kid": key.kid, "typ": "logout+jwt"}
    assert claims == {
        "iss": "https://gateway.example",
        "aud": "video",
        "iat": 1_700_000_000,
        "exp": 1_700_000_000 + LIVES_FOR,
        "jti": "17-0",
        "events": {EVENT: {}},
        "sub": "u1",
        "sid": "d" * 64,
    }
    assert "nonce" not in claims


def test_an_unknown_subject_is_left_out(key: SigningKey) -> None:
    claims = jwt.decode(made(key, ""), options={"verify_signature": False})
    assert "sub" not in claims


def test_it_passes_for_no_bearer_token(key: SigningKey) -> None:
    assert isinstance(read_token(made(key)), Reason)

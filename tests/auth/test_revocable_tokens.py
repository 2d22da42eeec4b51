import asyncio

import msgspec
import pytest

from auth.decision import Reason
from auth.identity import Authenticated, Caller, Identity, Rejected
from auth.ports import AuthUnavailable, Ended
from auth.revocable_tokens import _MOST_REFERENCES, RevocableTokens
from auth.revocation import TokenRef, epoch_name, token_name

GOOD = Authenticated(
    Identity(
        "u1",
        method="bearer",
        issuer="https://idp",
        token_digest="d1",
        expires_at=900.0,
        claims={"jti": "j1", "iat": 100},
    )
)
BAD = Rejected(Reason.TOKEN_SIGNATURE)
REVOKED = Rejected(Reason.TOKEN_REVOKED)


class Signatures:
    def __init__(self, caller: Caller | None) -> None:
        self._caller = caller

    def verify_at_once(self, token: str) -> Caller | None:
        return self._caller

    async def verify(self, token: str) -> Caller:
        assert self._caller is not None
        return self._caller


class Revocations:
    """Knows one answer; None: the store is out."""

    def __init__(self, *, revoked: bool | None) -> None:
        self._revoked = revoked
        self.asked: list[TokenRef] = []
        self.served_cached = 0.0

    def peek_revoked(self, token: TokenRef) -> bool | None:
        self.asked.append(token)
        return self._revoked

    async def is_revoked(self, token: TokenRef, *, serve_cached: float = 0.0) -> bool:
        self.asked.append(token)
        self.served_cached = serve_cached
        if self._revoked is None:
            raise AuthUnavailable("the store is out")
        return self._revoked

    async def revoke_token(
        self, issuer: str, jti: str, expires_at: float, *, reason: str = ""
    ) -> Ended:
        raise NotImplementedError

    async def revoke_tokens_of(self, issuer: str, subject: str, *, reason: str = "") -> Ended:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("caller", "revoked", "at_hand", "verdict"),
    [
        (GOOD, False, GOOD, GOOD),
        (GOOD, True, REVOKED, REVOKED),
        (BAD, True, BAD, BAD),
        (BAD, None, BAD, BAD),
    ],
    ids=["good", "revoked", "never good, revoked", "never good, store out"],
)
def test_a_token_is_good_when_its_signature_and_the_store_say_so(
    caller: Caller, *, revoked: bool | None, at_hand: Caller, verdict: Caller
) -> None:
    tokens = RevocableTokens(Signatures(caller), Revocations(revoked=revoked))
    assert tokens.peek("t") == at_hand
    assert asyncio.run(tokens.verify("t")) == verdict


def test_a_good_token_is_an_outage_while_the_store_is_out() -> None:
    tokens = RevocableTokens(Signatures(GOOD), Revocations(revoked=None))
    assert tokens.peek("t") is None
    with pytest.raises(AuthUnavailable):
        asyncio.run(tokens.verify("t"))


def test_an_unknown_token_is_not_asked_for() -> None:
    revocations = Revocations(revoked=True)
    assert RevocableTokens(Signatures(None), revocations).peek("t") is None
    assert not revocations.asked


def test_a_token_is_named_by_its_issuer_its_id_its_subject_and_its_time() -> None:
    revocations = Revocations(revoked=False)
    tokens = RevocableTokens(Signatures(GOOD), revocations)
    tokens.peek("t")
    asyncio.run(tokens.verify("t"))
    assert revocations.asked[0] is revocations.asked[1]
    name, epoch = token_name("https://idp", "j1"), epoch_name("https://idp", "u1")
    assert revocations.asked[0] == TokenRef(name, epoch, 100.0, 900.0)


def test_a_token_with_a_good_signature_is_not_let_in_before_its_revocation_is_known() -> None:
    for revoked, verdict in ((False, GOOD), (True, REVOKED), (None, None)):
        assert RevocableTokens(Signatures(GOOD), Revocations(revoked=revoked)).peek("t") == verdict


def test_an_outage_leaves_a_token_for_as_long_as_the_route_says() -> None:
    revocations = Revocations(revoked=False)
    tokens = RevocableTokens(Signatures(GOOD), revocations)
    assert asyncio.run(tokens.verify("t", serve_cached=7.0)) == GOOD
    assert revocations.served_cached == 7.0


def test_the_names_of_tokens_are_remembered_within_bounds() -> None:
    """Whoever has an issuer's tokens has many; the memory of their names must not be theirs."""

    class Many(Signatures):
        def verify_at_once(self, token: str) -> Caller | None:
            return Authenticated(msgspec.structs.replace(GOOD.identity, token_digest=token))

    revocations = Revocations(revoked=False)
    tokens = RevocableTokens(Many(GOOD), revocations)
    for number in range(_MOST_REFERENCES + 1):
        tokens.peek(str(number))
    assert len(tokens._references) == 1
    tokens.peek("0")
    assert revocations.asked[0] == revocations.asked[-1]
    assert revocations.asked[0] is not revocations.asked[-1]

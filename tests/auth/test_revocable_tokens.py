import asyncio

import msgspec
import pytest

from auth.decision import Reason
from auth.identity import Authenticated, Caller, Identity, Rejected
from auth.ports import AuthUnavailable, Ended
from auth.revocable_tokens import RevocableTokens
from auth.revocation import TokenRef

GOOD = Authenticated(
    Identity(
        "u1",
        method="bearer",
        issuer="https://idp",
        token=TokenRef("n1", "e1", 100.0, 900.0),
        expires_at=900.0,
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


def test_the_store_is_asked_for_the_token_by_the_name_that_its_claims_gave_it() -> None:
    revocations = Revocations(revoked=False)
    tokens = RevocableTokens(Signatures(GOOD), revocations)
    tokens.peek("t")
    asyncio.run(tokens.verify("t"))
    assert [each is GOOD.identity.token for each in revocations.asked] == [True, True]


def test_a_token_with_a_good_signature_is_not_let_in_before_its_revocation_is_known() -> None:
    for revoked, verdict in ((False, GOOD), (True, REVOKED), (None, None)):
        assert RevocableTokens(Signatures(GOOD), Revocations(revoked=revoked)).peek("t") == verdict


def test_an_outage_leaves_a_token_for_as_long_as_the_route_says() -> None:
    revocations = Revocations(revoked=False)
    tokens = RevocableTokens(Signatures(GOOD), revocations)
    assert asyncio.run(tokens.verify("t", serve_cached=7.0)) == GOOD
    assert revocations.served_cached == 7.0


def test_a_caller_of_whom_nobody_can_tell_is_never_let_in() -> None:
    nameless = Authenticated(msgspec.structs.replace(GOOD.identity, token=None))
    with pytest.raises(AssertionError):
        RevocableTokens(Signatures(nameless), Revocations(revoked=False)).peek("t")

"""Cookie x token -> caller."""

import pytest

from auth.authentication import (
    Authenticator,
    Credentials,
    find_credentials,
    is_our_authorization,
)
from auth.decision import Reason
from auth.identity import ABSENT, Authenticated, Caller, Identity, Rejected
from auth.ports import AuthUnavailable, OnFound
from auth.session import SessionRecord, SiteKey, digest
from auth.site_cookie import site_cookie
from tests.auth.session_double import NothingWritten

NOW = 1000.0
ALICE = SessionRecord(v=1, subject="alice", created_at=0, expires_at=2000, roles=("a",))
OVER = SessionRecord(v=1, subject="alice", created_at=0, expires_at=1000)


class Sessions(NothingWritten):
    """A store that says what the test wrote down; a fault is raised where one is."""

    def __init__(self, **answers: SessionRecord | str | AuthUnavailable) -> None:
        self.answers = answers
        self.at_hand = True
        self.served_cached: list[float] = []

    def peek(self, session_digest: str) -> SessionRecord | None:
        found = self.answers.get(session_digest)
        return found if self.at_hand and isinstance(found, SessionRecord) else None

    def ask(self, session_digest: str, then: OnFound) -> None:
        found = self.answers.get(session_digest, Reason.SESSION_UNKNOWN.value)
        then(None if isinstance(found, AuthUnavailable) else found)

    async def find(self, session_digest: str, *, serve_cached: float = 0.0) -> SessionRecord | str:
        self.served_cached.append(serve_cached)
        found = self.answers.get(session_digest, Reason.SESSION_UNKNOWN.value)
        if isinstance(found, AuthUnavailable):
            raise found
        return found


def bearer(subject: str, expires_at: float = 2000) -> Authenticated:
    return Authenticated(Identity(subject, method="bearer", expires_at=expires_at))


class Tokens:
    def __init__(self, **answers: Caller) -> None:
        self.answers = answers
        self.served_cached: list[float] = []

    def peek(self, token: str) -> Caller | None:
        return self.answers.get(token)

    async def verify(self, token: str, *, serve_cached: float = 0.0) -> Caller:
        self.served_cached.append(serve_cached)
        return self.answers.get(token, Rejected(Reason.TOKEN_SIGNATURE))


SESSIONS = Sessions(
    alice=ALICE, over=OVER, ended=Reason.SESSION_ENDED.value, outage=AuthUnavailable("out")
)
TOKENS = Tokens(alice=bearer("alice"), bob=bearer("bob"), old=bearer("alice", expires_at=1000))


def authenticator(sessions: Sessions = SESSIONS, tokens: Tokens | None = TOKENS) -> Authenticator:
    return Authenticator(sessions, tokens, cookie_name="doorward")


@pytest.mark.parametrize(
    ("session", "token", "expected"),
    [
        ("", "", ABSENT),
        ("alice", "", "session"),
        ("over", "", Reason.SESSION_EXPIRED),
        ("unknown", "", Reason.SESSION_UNKNOWN),
        ("ended", "", Reason.SESSION_ENDED),
        ("", "alice", "bearer"),
        ("", "forged", Reason.TOKEN_SIGNATURE),
        ("", "old", Reason.TOKEN_EXPIRED),
        ("alice", "alice", "bearer"),
        ("alice", "bob", Reason.CREDENTIALS_CONFLICT),
        ("alice", "forged", Reason.TOKEN_SIGNATURE),
        ("alice", "old", Reason.TOKEN_EXPIRED),
        ("over", "alice", "bearer"),
        ("over", "bob", "bearer"),
        ("unknown", "alice", "bearer"),
        ("ended", "forged", Reason.TOKEN_SIGNATURE),
    ],
)
async def test_the_credentials_decide_who_is_calling(
    session: str, token: str, expected: object
) -> None:
    credentials = Credentials(session, token)
    caller = await authenticator().authenticate(credentials, NOW)
    if isinstance(caller, Authenticated):
        assert caller.identity.method == expected
    elif isinstance(caller, Rejected):
        assert caller.reason == expected
    else:
        assert caller is expected
    at_once = authenticator().peek(credentials, NOW)
    assert at_once is None or at_once == caller, "what is said at once is what is said later"


async def test_a_store_that_is_out_is_an_outage_even_beside_a_good_token() -> None:
    for token in ("", "alice"):
        with pytest.raises(AuthUnavailable):
            await authenticator().authenticate(Credentials("outage", token), NOW)


async def test_how_long_a_cached_session_may_be_served_is_handed_to_the_store() -> None:
    sessions = Sessions(alice=ALICE)
    await authenticator(sessions).authenticate(Credentials("alice"), NOW, serve_cached=60.0)
    assert sessions.served_cached == [60.0]


async def test_how_long_a_known_token_may_be_served_is_handed_on_too() -> None:
    tokens = Tokens(alice=bearer("alice"))
    await authenticator(tokens=tokens).authenticate(
        Credentials(token="alice"), NOW, serve_cached=60.0
    )
    assert tokens.served_cached == [60.0]


def test_what_is_not_at_hand_is_not_guessed() -> None:
    sessions = Sessions(alice=ALICE)
    sessions.at_hand = False
    assert authenticator(sessions).peek(Credentials("alice"), NOW) is None
    assert authenticator(sessions).peek(Credentials("alice", "alice"), NOW) is None
    assert authenticator().peek(Credentials("alice", "unseen"), NOW) is None
    assert authenticator().peek(Credentials("", "unseen"), NOW) is None


def test_one_record_gives_one_identity_and_another_record_another() -> None:
    sessions = Sessions(alice=ALICE)
    asked = authenticator(sessions)
    first = asked.peek(Credentials("alice"), NOW)
    assert asked.peek(Credentials("alice"), NOW) is first
    sessions.answers["alice"] = SessionRecord(1, "alice", 0, 2000, roles=("admin",))
    second = asked.peek(Credentials("alice"), NOW)
    assert isinstance(second, Authenticated)
    assert second.identity.roles == ("admin",)
    sessions.answers.clear()
    assert asked.peek(Credentials("alice"), NOW) is None


def test_the_identities_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("auth.authentication._MOST_IDENTITIES", 2)
    sessions = Sessions(**dict.fromkeys("abcde", ALICE))
    asked = authenticator(sessions)
    for name in "abcde":
        assert isinstance(asked.peek(Credentials(name), NOW), Authenticated)
        assert len(asked._identities) <= 2


async def test_a_token_that_does_not_speak_for_anybody_is_never_a_session() -> None:
    """Whatever a verifier answers, only `Authenticated` beside a cookie is somebody."""
    asked = authenticator(tokens=Tokens(odd=ABSENT))
    assert await asked.authenticate(Credentials("alice", "odd"), NOW) is ABSENT


async def test_without_issuers_a_token_speaks_for_nobody() -> None:
    asked = authenticator(tokens=None)
    assert not asked.issuers_configured
    assert asked.find_credentials([], ["Bearer alice"]) == Credentials()
    caller = await asked.authenticate(Credentials("", "alice"), NOW)
    assert caller == Rejected(Reason.TOKEN_ISSUER_UNKNOWN)
    assert asked.peek(Credentials("", "alice"), NOW) is None


COOKIE = "a" * 43


@pytest.mark.parametrize(
    ("cookies", "authorization", "expected"),
    [
        ([], [], Credentials()),
        ([f"doorward={COOKIE}"], [], Credentials(digest(COOKIE))),
        ([f"x=y; doorward={COOKIE}"], ["Bearer t"], Credentials(digest(COOKIE), "t")),
        (["doorward="], [], Credentials()),
        (["Doorward=x"], [], Credentials()),
        ([f"doorward={COOKIE}; doorward=x"], [], Rejected(Reason.COOKIE_AMBIGUOUS)),
        ([f"doorward={COOKIE}", f"doorward={COOKIE}"], [], Rejected(Reason.COOKIE_AMBIGUOUS)),
        (["doorward=a; doorward=b"], ["Bearer t"], Rejected(Reason.COOKIE_AMBIGUOUS)),
        ([], ["Bearer t"], Credentials("", "t")),
        ([], ["bEARER   t"], Credentials("", "t")),
        ([], ["Bearer"], Rejected(Reason.TOKEN_MALFORMED)),
        ([], ["Bearer "], Rejected(Reason.TOKEN_MALFORMED)),
        ([], ["Bearer\tt"], Credentials("", "\tt")),
        ([], ["Bearer t t"], Credentials("", "t t")),
        ([], ["Bearer t", "Bearer t"], Rejected(Reason.TOKEN_MALFORMED)),
        ([], ["Basic eA==", "Bearer t"], Rejected(Reason.TOKEN_MALFORMED)),
        ([], ["Basic eA=="], Credentials()),
        ([], ["Basic eA==", "Basic eB=="], Credentials()),
        ([], ["BearerX t"], Credentials()),
        ([], ["DPoP t"], Credentials()),
        ([], ["t"], Credentials()),
        ([], [""], Credentials()),
    ],
)
def test_credentials_are_found_in_their_one_place(
    cookies: list[str], authorization: list[str], expected: Credentials | Rejected
) -> None:
    assert find_credentials(cookies, authorization, "doorward") == expected


@pytest.mark.parametrize(
    ("value", "ours"),
    [
        ("Bearer t", True),
        ("bearer", True),
        ("BEARER\tx", True),
        ("Basic t", False),
        ("Bearerx t", False),
        ("", False),
        (" Bearer t", False),
        ("Negotiate Bearer", False),
    ],
)
def test_a_bearer_token_is_ours_only_if_an_issuer_is_configured(value: str, *, ours: bool) -> None:
    assert is_our_authorization(value, issuers_configured=True) is ours
    assert is_our_authorization(value, issuers_configured=False) is False


def test_credentials_do_not_show_the_token() -> None:
    assert "secret" not in repr(Credentials("d", "secret"))
    assert "secret" not in str(Credentials("d", "secret"))


@pytest.mark.parametrize(
    ("credentials", "expected"),
    [
        (Credentials(session_digest="ended"), Rejected(Reason.SESSION_ENDED)),
        (Credentials(session_digest="nobody"), Rejected(Reason.SESSION_UNKNOWN)),
        (Credentials(session_digest="over"), Rejected(Reason.SESSION_EXPIRED)),
        (Credentials(session_digest="outage"), None),
        (Credentials(), None),
        (Credentials(token="alice"), None),
        (Credentials(session_digest="alice", token="alice"), None),
    ],
    ids=[
        *("ended", "unknown", "over", "an outage", "no credential", "a token"),
        "a cookie and a token",
    ],
)
def test_a_caller_whom_the_store_alone_can_tell_is_told_without_a_task(
    credentials: Credentials, expected: Caller | None
) -> None:
    told: list[Caller | None] = []
    authenticator().ask(credentials, NOW, told.append)
    assert told == [expected]


async def test_a_caller_is_the_same_however_one_asks() -> None:
    told: list[Caller | None] = []
    credentials = Credentials(session_digest="alice")
    authenticator().ask(credentials, NOW, told.append)
    assert told == [await authenticator().authenticate(credentials, NOW)]
    assert isinstance(told[0], Authenticated)


SHOP_SECRET = "s" * 43
SHOPPER = SessionRecord(
    1, "alice", 0, 2000, sites={"shop.example": SiteKey(digest(SHOP_SECRET)), "b": SiteKey("x")}
)
SHOPPING = "f" * 64


@pytest.mark.parametrize(
    ("host", "secret", "reason"),
    [
        ("shop.example", SHOP_SECRET, ""),
        ("b", SHOP_SECRET, "cookie_of_other_site"),
        ("", SHOP_SECRET, "cookie_of_other_site"),
        ("login.example", SHOP_SECRET, "cookie_of_other_site"),
        ("shop.example", "t" * 43, "cookie_of_other_site"),
    ],
)
async def test_a_sites_cookie_is_good_at_its_host_and_its_secret_is_looked_at_every_time(
    host: str, secret: str, reason: str
) -> None:
    asking = authenticator(Sessions(**{SHOPPING: SHOPPER}))
    # Its own cookie first, and the site's: what is remembered of them opens nothing.
    for each in (Credentials(SHOPPING), shown(SHOP_SECRET, "shop.example")):
        assert isinstance(asking.peek(each, NOW), Authenticated)
    credentials = shown(secret, host)
    callers: list[Caller | None] = [asking.peek(credentials, NOW)]
    asking.ask(credentials, NOW, callers.append)
    callers.append(await asking.authenticate(credentials, NOW))
    for caller in callers:
        if reason:
            assert caller == Rejected(reason)
        else:
            assert caller is asking.peek(Credentials(SHOPPING), NOW)


def shown(secret: str, host: str) -> Credentials:
    cookie = f"doorward={site_cookie(SHOPPING, secret)}"
    found = find_credentials([cookie], [], "doorward", host=host)
    assert isinstance(found, Credentials)
    assert found.session_digest == SHOPPING
    return found


def test_a_bearer_token_does_not_cover_for_a_sites_cookie() -> None:
    found = find_credentials(
        [f"doorward={site_cookie(SHOPPING, SHOP_SECRET)}"], ["Bearer bob"], "doorward", host="b"
    )
    assert isinstance(found, Credentials)
    assert (found.token, found.host, found.site_key) == ("bob", "b", digest(SHOP_SECRET))


def test_credentials_shown_elsewhere_are_others_only_if_they_are_a_sites() -> None:
    own, of_site = Credentials("d"), shown(SHOP_SECRET, "shop.example")
    assert own.shown_at("b") is own
    assert of_site.shown_at("shop.example") is of_site
    assert of_site.shown_at("b").host == "b"

"""Fields: what a client may not say, however it is spelt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.model import Assertion, IdentityHeaders
from gateway.fields import FieldRules, Handling, end_to_end, fold, listed_names

IDENTITY = IdentityHeaders(
    (("X-My-User", "subject"), ("Remote-Groups", "groups")), Assertion(header="X-Proof")
)
SEPARATORS = "!#$%&'*+-.^_`|~"


def rules() -> FieldRules:
    return FieldRules(IDENTITY, cookie_names=("doorward",))


@pytest.mark.parametrize(
    ("name", "folded"),
    [
        ("X-Auth-User", "X_AUTH_USER"),
        ("x_auth.USER", "X_AUTH_USER"),
        ("X--Auth", "X__AUTH"),
        ("a1~", "A1_"),
        ("\u017ftatic", "STATIC"),
        ("\xe9", "_"),
    ],
)
def test_names_fold_as_cgi_and_php_fold_them(name: str, folded: str) -> None:
    assert fold(name) == folded


@pytest.mark.parametrize("separator", SEPARATORS)
@pytest.mark.parametrize("name", ["X-My-User", "X-Proof", "X-Auth-Subject", "X-Forwarded-For"])
def test_no_spelling_of_a_managed_name_goes_on(name: str, separator: str) -> None:
    for spelling in (name, name.lower(), name.upper()):
        assert rules().request[spelling.replace("-", separator)] is Handling.DROP


@pytest.mark.parametrize(
    "name",
    [
        *("Connection", "Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Transfer-Encoding"),
        *("Upgrade", "HTTP2-Settings", "Proxy-Authorization", "Expect", "Host", "Content-Length"),
        *("Forwarded", "X-Real-Ip", "X-Request-Id", "X-Forwarded-Prefix", "X-Original-URL"),
        *("X-Rewrite-URL", "Proxy", "X-HTTP-Method-Override", "X-Middleware-Subrequest"),
        *("Remote-User", "X-Remote-User", "X-Doorward-Internal", "X-Pomerium-Claim-Email"),
        *("X-Amzn-Oidc-Identity", "X-Goog-Authenticated-User-Email", "Client-Cert", "X_Custom"),
        *("X.Custom", "Content_Type", "Transfer_Encoding", "Host_"),
    ],
)
def test_what_is_not_the_clients_to_say_ends_here(name: str) -> None:
    assert rules().request[name] is Handling.DROP


@pytest.mark.parametrize(
    "name",
    [
        *(
            "Accept",
            "User-Agent",
            "Content-Type",
            "Accept-Language",
            "Origin",
            "X-Custom",
            "X-Api-Key",
        ),
        *("X-Requested-With", "Sec-WebSocket-Key", "If-None-Match", "Range", "baggage", "X-Author"),
    ],
)
def test_what_is_the_clients_to_say_goes_on(name: str) -> None:
    assert rules().request[name] is Handling.PASS


@pytest.mark.parametrize(
    "name", ["Authorization", "Cookie", "VIA", "Max-Forwards", "traceparent", "tracestate"]
)
def test_what_goes_on_changed_is_left_to_forwarding(name: str) -> None:
    assert rules().request[name] is Handling.SPECIAL


@pytest.mark.parametrize(
    ("name", "handling"),
    [
        ("Content-Type", Handling.PASS),
        ("X_Custom", Handling.PASS),
        ("Set-Cookie", Handling.SPECIAL),
        ("SET-COOKIE", Handling.SPECIAL),
        ("Set-Cookie2", Handling.DROP),
        ("Content-Length", Handling.DROP),
        ("Connection", Handling.DROP),
        ("Transfer-Encoding", Handling.DROP),
        ("Upgrade", Handling.DROP),
        ("X-Doorward-Error", Handling.DROP),
        ("x_doorward_error", Handling.DROP),
        ("X-My-User", Handling.DROP),
        ("X-Proof", Handling.DROP),
        ("X-Auth-Subject", Handling.DROP),
        ("X-Gateway-Internal", Handling.DROP),
        ("X-Request-Id", Handling.PASS),
    ],
)
def test_an_upstream_does_not_speak_as_the_gateway(name: str, handling: Handling) -> None:
    assert rules().response[name] is handling


def test_a_connection_option_takes_a_field_out_but_not_one_that_decides() -> None:
    fields = [("X-Foo", "1"), ("Origin", "b"), ("Content-Type", "c"), ("X-Bar", "2")]
    options = frozenset({"x-foo", "origin", "content-type", "close"})
    assert end_to_end(fields, rules(), options) == [*fields[1:]]
    assert end_to_end(fields, rules(), frozenset({"close"})) == fields
    assert listed_names(options) == {"x-foo"}


def test_names_are_remembered_within_bounds() -> None:
    ours = rules()
    for number in range(5000):
        assert ours.request[f"X-N{number}"] is Handling.PASS
    assert ours.request["X-" + "a" * 5000] is Handling.PASS
    assert len(ours.request) <= 2048
    assert max(map(len, ours.request)) <= 64


@given(st.text(st.sampled_from("xX-_.~aAuUtThHsSeErR1"), min_size=1, max_size=16))
def test_whatever_folds_to_a_managed_name_never_goes_on(name: str) -> None:
    managed = fold(name) == "X_MY_USER" or fold(name).startswith(("X_AUTH_", "X_FORWARDED_"))
    if managed:
        assert rules().request[name] is Handling.DROP
    assert (rules().request[name] is Handling.PASS) <= name.replace("-", "a").isalnum()


@pytest.mark.parametrize(
    "other",
    [
        FieldRules(IDENTITY, cookie_names=("doorward",), bearer_is_ours=True),
        FieldRules(IDENTITY, cookie_names=("doorward", "more")),
        FieldRules(IdentityHeaders((), IDENTITY.assertion), cookie_names=("doorward",)),
        # Managed in any case, but only a name of the file's is kept from clients.
        FieldRules(
            IdentityHeaders((*IDENTITY.fields, ("X-User", "name")), IDENTITY.assertion),
            cookie_names=("doorward",),
        ),
    ],
    ids=["bearer", "cookies", "fields", "managed"],
)
def test_rules_say_the_same_only_if_every_field_is_handled_alike(other: FieldRules) -> None:
    assert rules().says_the_same_as(rules())
    assert not rules().says_the_same_as(other)
    assert not other.says_the_same_as(rules())

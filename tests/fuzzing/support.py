"""The permit and the route that every fuzzed request has, and the issuer of every fuzzed token."""

from auth.decision import Allow, Reason
from auth.identity import Identity
from auth.policy import compile_rule
from config.model import (
    AccessRule,
    Assertion,
    IdentityHeaders,
    Match,
    Route,
    TokenIssuer,
    Upstream,
)
from gateway.fields import FieldRules
from gateway.precedence import compile_route
from gateway.routing import Matched

SUBJECT = "the-real-subject"
HEADERS = IdentityHeaders(
    (("X-Auth-User", "subject"), ("X-Auth-Groups", "groups")), Assertion("X-Auth-Assertion")
)
RULES = FieldRules(HEADERS, cookie_names=("doorward", "doorward-form"), bearer_is_ours=True)
PERMIT = Allow(Reason.ALLOWED, Identity(subject=SUBJECT, groups=("staff",), method="session"))
_RULE = AccessRule("signed-in")
_ROUTE = Route("all", Match("/*"), "app", _RULE, allow_encoded_slash=True)
MATCHED = Matched(compile_route(_ROUTE, compile_rule(_RULE), Upstream("app", ())), {})

NOW = 1_800_000_000.0
TOKEN_ISSUER = TokenIssuer("https://idp.example.com", ("gw",), ("RS256",))
ALL_FIELDS = IdentityHeaders(
    (
        ("X-Auth-Subject", "subject"),
        ("X-Auth-Name", "name"),
        ("X-Auth-Tenant", "tenant"),
        ("X-Auth-Email", "email"),
        ("X-Auth-Roles", "roles"),
        ("X-Auth-Groups", "groups"),
        ("X-Auth-Scopes", "scopes"),
        ("X-Auth-Method", "method"),
    ),
    Assertion("X-Auth-Assertion"),
)

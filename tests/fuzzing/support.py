"""The permit and the route that every fuzzed request has."""

from auth.decision import Allow, Reason
from auth.identity import Identity
from auth.policy import compile_rule
from config.model import AccessRule, Assertion, IdentityHeaders, Match, Route, Upstream
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

"""May they: an access rule, compiled at load, and the function that applies it.

How this works: `compile_rule` turns an `AccessRule` into a `Policy` whose CEL condition has been
parsed and type-checked; `authorize` is the only function in the project that makes an `Allow`.

The order in which a rule is applied, so that the reason in the log is always the same one:

1. `public`: nobody is looked up; a condition, if there is one, can only read the request.
2. Nobody signed in, or a credential that is no good: `Challenge`, unless the level is `optional`
   and the rule asks nothing of the identity.
3. Tenant, groups, roles, scopes, condition: the first that does not hold denies.
4. Signed in too weakly (`acr`) or too long ago (`max_age`): `Challenge`. Last, so that nobody is
   asked for a second factor only to hear that they may not.
5. Nothing was left that could deny: `Allow`.

A condition that raises an error, or whose value is anything but true, denies: an operator's
mistake closes a route and never opens one.
"""

from math import inf

import msgspec

from auth.condition import (
    Condition,
    PolicyError,
    RequestFacts,
    compile_condition,
    evaluate_condition,
)
from auth.decision import Allow, Challenge, Decision, Deny, Reason, StepUp
from auth.identity import Authenticated, Caller, Identity, Rejected
from config.model import AccessRule

__all__ = ["Policy", "PolicyError", "RequestFacts", "authorize", "compile_rule"]


class Policy(msgspec.Struct, frozen=True):
    """An access rule, ready to be applied."""

    rule: AccessRule
    reads_request: bool
    """Whether the condition reads anything of the request but its route and method."""
    condition: Condition | None = None
    asks_identity: bool = False
    """Whether any part of the rule can hold for somebody only."""
    reads: frozenset[str] = frozenset()
    """The attributes of `RequestFacts` that the condition reads; `now`, if the time matters."""
    step_up: StepUp | None = None
    """How people must have signed in, if that matters."""


_NOBODY = Identity(subject="")
_REASONS = {reason.value: reason for reason in Reason}


def compile_rule(rule: AccessRule) -> Policy:
    """Compile *rule*.

    Raises:
        PolicyError: the condition does not parse or is not a boolean, or a `public` rule asks
            something of a caller whom it never looks up.
    """
    condition = compile_condition(rule.when) if rule.when is not None else None
    asks = bool(rule.roles or rule.scopes or rule.groups or rule.tenants)
    asks = asks or (condition is not None and condition.reads_identity)
    timed = rule.max_age is not None
    step_up = StepUp(rule.acr, rule.max_age) if rule.acr or timed else None
    asks = asks or step_up is not None
    if rule.level == "public" and asks:
        raise PolicyError("a public route looks nobody up, so it cannot ask anything of a caller")
    reads = condition.reads if condition is not None else frozenset()
    return Policy(
        rule=rule,
        reads_request=condition is not None and condition.reads_request,
        condition=condition,
        asks_identity=asks,
        reads=reads | {"now"} if timed else reads,
        step_up=step_up,
    )


def authorize(
    policy: Policy, caller: Caller, facts: RequestFacts | None, now: float = inf
) -> Decision:
    """Decide whether *caller* satisfies *policy*. Default deny.

    *facts* may be None when the policy has no condition that reads the request; a condition that
    does fails without them. *now* is epoch seconds; without it every sign-in was too long ago for a
    policy with `max_age`.

    Returns:
        Challenge if signing in could help, Deny if it could not.
    """
    rule = policy.rule
    if rule.level == "public":
        return _authorize_nobody(policy, Reason.PUBLIC, facts)
    if not isinstance(caller, Authenticated):
        if rule.level == "optional" and not policy.asks_identity:
            return _authorize_nobody(policy, Reason.ANONYMOUS_ALLOWED, facts)
        if isinstance(caller, Rejected):
            reason = _REASONS.get(caller.reason, Reason.NO_CREDENTIAL)
            return Challenge(reason, policy.step_up)
        return Challenge(Reason.NO_CREDENTIAL, policy.step_up)
    return _authorize_somebody(policy, caller.identity, facts, now)


def _authorize_somebody(
    policy: Policy, identity: Identity, facts: RequestFacts | None, now: float
) -> Decision:
    rule = policy.rule
    if rule.tenants and identity.tenant not in rule.tenants:
        return _deny(Reason.TENANT_MISMATCH, "tenant", rule.tenants, identity)
    if rule.groups and rule.groups.isdisjoint(identity.groups):
        return _deny(Reason.GROUP_MISSING, "group", rule.groups, identity)
    if rule.roles and rule.roles.isdisjoint(identity.roles):
        return _deny(Reason.ROLE_MISSING, "role", rule.roles, identity)
    if rule.scopes and not rule.scopes.issubset(identity.scopes):
        missing = ", ".join(sorted(rule.scopes.difference(identity.scopes)))
        return Deny(Reason.SCOPE_MISSING, f"scopes missing: {missing}", identity)
    if policy.condition is not None:
        verdict = evaluate_condition(policy.condition, identity, facts)
        if verdict is not True:
            return _deny_condition(identity, verdict=verdict)
    step_up = policy.step_up
    if step_up is not None:
        if not step_up.is_strong_enough(identity.acr, identity.amr):
            return Challenge(Reason.ACR_MISSING, step_up)
        if step_up.is_too_old(now - identity.auth_time):
            return Challenge(Reason.AUTH_TIME_TOO_OLD, step_up)
    return Allow(Reason.ALLOWED, identity)


def _authorize_nobody(policy: Policy, reason: Reason, facts: RequestFacts | None) -> Decision:
    if policy.condition is not None:
        verdict = evaluate_condition(policy.condition, _NOBODY, facts)
        if verdict is not True:
            return _deny_condition(None, verdict=verdict)
    return Allow(reason)


def _deny(reason: Reason, what: str, wanted: frozenset[str], identity: Identity) -> Deny:
    return Deny(reason, f"{what} is none of: {', '.join(sorted(wanted))}", identity)


def _deny_condition(identity: Identity | None, *, verdict: bool | None) -> Deny:
    if verdict is None:
        return Deny(Reason.CONDITION_FAILED, "the condition raised an error", identity)
    return Deny(Reason.CONDITION_FALSE, "the condition is not true", identity)

"""Permits that were given before and may be given again without applying the rule again.

How this works. `authorize` is pure: the same rule, the same caller and the same facts of the
request lead to the same decision. So a permit is remembered under the credential, the route and the
values that the route's condition reads, and given again while the caller is the very same object.
That object stands for one reading of one record (`auth.authentication`): a session that was ended,
changed or read again is another one, or none, before this is asked. Who is calling is thus found
out anew for every request; only "may they?" is not.

Only permits are remembered: a refusal is worked out each time, with its reason. A condition that
reads `request.headers` and a rule with `max_age` are applied each time as well. The memory is
bounded and belongs to one snapshot, so a reload begins without one.
"""

from collections.abc import Hashable

from auth.decision import Allow, Decision
from auth.identity import Authenticated, Caller
from auth.policy import RequestFacts, authorize
from gateway.head import RequestHead
from gateway.routing import Matched

_MOST_PERMITS = 20_000
"""Remembered by a snapshot."""
_MOST_CHARACTERS = 256
"""Of a path that is part of a remembered permit's name."""
_NOTHING: tuple[Hashable, ...] = ()


class Permits:
    """The memory of one snapshot; at most *capacity* permits."""

    def __init__(self, *, capacity: int = _MOST_PERMITS) -> None:
        self._capacity = capacity
        self._given: dict[Hashable, tuple[Authenticated, Allow]] = {}

    def __len__(self) -> int:
        return len(self._given)

    def conclude(self, matched: Matched, caller: Caller, head: RequestHead, now: float) -> Decision:
        """Do what the function `conclude` does, from memory if that says the same."""
        if type(caller) is not Authenticated:
            return conclude(matched, caller, head, now)
        route, identity = matched.route, caller.identity
        reads = route.policy.reads
        values = _values(reads, matched, head) if reads else _NOTHING
        if values is None:
            return conclude(matched, caller, head, now)
        name = (identity.session_digest or identity.token, route, values)
        given = self._given.get(name)
        if given is not None and given[0] is caller:
            return given[1]
        decision = conclude(matched, caller, head, now)
        if type(decision) is Allow:
            if len(self._given) >= self._capacity:
                self._given.clear()
            self._given[name] = (caller, decision)
        return decision


def conclude(matched: Matched, caller: Caller, head: RequestHead, now: float) -> Decision:
    """Apply the route's access rule to *caller*; the condition sees the request as it was read.

    *now* is epoch seconds.
    """
    policy = matched.route.policy
    if policy.rule.when is None:
        return authorize(policy, caller, None, now)
    fields = head.by_name if "headers" in policy.reads else {}
    facts = RequestFacts(
        method=head.method,
        path=head.target.path,
        host=head.host,
        params=matched.params,
        headers={name: ", ".join(values) for name, values in fields.items()},
    )
    return authorize(policy, caller, facts, now)


def _values(
    reads: frozenset[str], matched: Matched, head: RequestHead
) -> tuple[Hashable, ...] | None:
    """Return the values behind *reads*, None if they are not to be remembered."""
    path = head.target.path
    if "headers" in reads or "now" in reads or len(path) > _MOST_CHARACTERS:
        return None
    # A route's parameters are always the same names in the same order.
    return (
        head.method if "method" in reads else None,
        path if "path" in reads else None,
        head.host if "host" in reads else None,
        tuple(matched.params.values()) if "params" in reads else None,
    )

"""May they: an access rule, compiled at load, and the function that applies it.

How this works: `compile_rule` turns an `AccessRule` into a `Policy` whose CEL condition has been
parsed and type-checked; `authorize` is the only function in the project that makes an `Allow`.
"""

from collections.abc import Mapping

import msgspec

from auth.decision import Decision
from auth.identity import Caller
from config.model import AccessRule


class RequestFacts(msgspec.Struct, frozen=True):
    """What a `when:` condition may read of the request."""

    method: str
    path: str
    host: str
    params: Mapping[str, str]
    headers: Mapping[str, str]
    """Lower-case name to value; a name that came more than once is joined with a comma."""


class PolicyError(ValueError):
    """A `when:` that cannot be compiled. `column` counts characters of the expression, from 1."""

    def __init__(self, message: str, *, column: int = 1) -> None:
        super().__init__(message)
        self.column = column


class Policy(msgspec.Struct, frozen=True):
    """An access rule, ready to be applied."""

    rule: AccessRule
    reads_request: bool
    """Whether the condition reads anything of the request but its route and method."""


def compile_rule(rule: AccessRule) -> Policy:
    """Compile *rule*; raise `PolicyError` if its condition does not parse or is not a boolean."""
    raise NotImplementedError


def authorize(policy: Policy, caller: Caller, facts: RequestFacts | None) -> Decision:
    """Decide whether *caller* satisfies *policy*. Default deny."""
    raise NotImplementedError

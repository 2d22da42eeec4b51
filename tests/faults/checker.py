"""Whether a history keeps the promises of `docs/revocation.md`. Pure, and linear in its length.

A session is a register that goes from alive to ended once, so linearizability needs no search: it
is enough to know, for each session, the earliest moment at which somebody was *told* that it is
over. The rules, with the promise each of them checks:

- `admitted_after_end`: an ending was answered before the request started (promise 1).
- `admitted_after_delete`: the record was deleted, or its subject's epoch was written, by whoever,
  more than a lease before (promise 2).
- `came_back`: somebody was refused because the session is over, more than a lease before. This also
  covers endings whose answer never came (promise 3). Or this very worker saw that it has ended, at
  any time before.
- `admitted_after_expiry`, `stale_record`: the record's own limits and its replacement.
- `wrong_identity`: a session was taken for somebody else's.
- `wrongly_refused`: nothing had touched the session, and it was refused for a reason that is no
  outage (promise 4); `cookie_cleared`: an outage took the client's cookie.
- `not_recovered`: an outage long after the last fault.

A rollback (a new primary without the last writes) undoes what only the store knew: endings count
after it if every gateway had acknowledged them; bare deletes and sign-ins do not. The store knows
nothing of a bearer token but that it is revoked: for tokens FLUSHALL is a rollback to the start.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator

import msgspec

from tests.faults.history import History, Operation

NEVER = float("inf")
# The rates of two clocks, and what lies between reading them (docs/revocation.md, Assumptions).
MARGIN = 0.01
MADE = frozenset({"create", "put", "issue"})
ENDINGS = frozenset({"end", "end_subject", "end_all"})
OVER = frozenset({"session_ended", "session_unknown"})


class Violation(msgspec.Struct, frozen=True):
    """A broken promise."""

    rule: str
    operation: Operation
    because: Operation | None = None

    def __str__(self) -> str:
        because = f"\n    although {self.because}" if self.because else ""
        return f"{self.rule}: {self.operation}{because}"


def check(history: History) -> list[Violation]:
    """Return every broken promise, in the order of the operations."""
    judge = _Judge(history)
    return [found for each in history.operations for found in judge.judge(each)]


class _Facts(msgspec.Struct):
    """What is known of one session over the whole history."""

    made: Operation
    ended: list[Operation] = []
    """Endings that were answered."""
    deleted: list[Operation] = []
    touched_from: float = NEVER
    """From then on something may have ended it, whether anybody knows or not."""
    refused: list[Operation] = []
    replaced: list[Operation] = []


class _Judge:
    """All facts of a history, and the rules over them."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._rollbacks = [each for each in history.operations if each.kind == "rollback"]
        self._flushes = [each for each in history.operations if each.kind == "flush"]
        self._sessions: dict[str, _Facts] = {}
        by_subject: dict[str, list[_Facts]] = defaultdict(list)
        for each in history.operations:
            if each.kind in MADE and each.result == "ok":
                facts = self._sessions[each.session] = _Facts(each)
                by_subject[each.subject].append(facts)
        for each in sorted(history.operations, key=lambda operation: operation.ended):
            self._note(each, by_subject)

    def _note(self, each: Operation, by_subject: dict[str, list[_Facts]]) -> None:
        if each.kind in ENDINGS | {"delete", "epoch", "flush", "rollback"}:
            for facts in self._concerned(each, by_subject):
                if each.result == "ok" and each.ended <= facts.made.started:
                    continue  # what was answered before it was made is not about it
                facts.touched_from = min(facts.touched_from, each.started)
                # What was made while it was under way may or may not be covered.
                if each.result == "ok" and facts.made.ended <= each.started:
                    if each.kind in ENDINGS:
                        facts.ended.append(each)
                    elif each.kind != "rollback":
                        facts.deleted.append(each)
            return
        known = self._sessions.get(each.session)
        if known is None:
            return
        if each.kind == "replace" and each.result == "ok":
            known.replaced.append(each)
        elif each.kind == "use" and each.result == "refused" and each.reason in OVER:
            known.refused.append(each)

    def _concerned(self, each: Operation, by_subject: dict[str, list[_Facts]]) -> Iterable[_Facts]:
        if each.kind in ("end_all", "flush"):
            return [facts for facts in self._sessions.values() if facts.made.kind != "issue"]
        if each.kind == "rollback":
            return [facts for facts in self._sessions.values() if facts.made.ended >= each.since]
        if each.kind in ("end_subject", "epoch"):
            return by_subject[each.subject]
        facts = self._sessions.get(each.session)
        return (facts,) if facts else ()

    def judge(self, use: Operation) -> Iterator[Violation]:
        """Yield what is wrong with *use*."""
        if use.kind != "use":
            return
        if use.result in ("unavailable", "unknown"):
            if use.cleared_cookie:
                yield Violation("cookie_cleared", use)
            if use.started > self._history.healed_at + self._history.recovery:
                yield Violation("not_recovered", use)
            return
        facts = self._sessions.get(use.session)
        if facts is None:
            if use.result == "admitted":
                yield Violation("wrong_identity", use)
        elif use.result == "admitted":
            yield from self._judge_admitted(use, facts)
        else:
            yield from self._judge_refused(use, facts)

    def _judge_admitted(self, use: Operation, facts: _Facts) -> Iterator[Violation]:
        made, late = facts.made, self._history.lease + MARGIN
        if use.subject != made.subject:
            yield Violation("wrong_identity", use, made)
        if use.started > made.expires_at + MARGIN:
            yield Violation("admitted_after_expiry", use, made)
        ended = self._first_in_force(facts, facts.ended, use.started)
        if ended is not None:
            yield Violation("admitted_after_end", use, ended)
        deleted = self._first_in_force(facts, facts.deleted, use.started - late)
        if deleted is not None:
            yield Violation("admitted_after_delete", use, deleted)
        refused = self._seen(facts, use)
        if not self._only_remembered(facts, use):
            refused = refused or self._first_in_force(facts, facts.refused, use.started - late)
        if refused is not None:
            yield Violation("came_back", use, refused)
        for replaced in facts.replaced:
            outdated = replaced.ended < use.started - late and not self._is_lost(replaced, use)
            if outdated and use.version < replaced.version:
                yield Violation("stale_record", use, replaced)
                break

    def _first_in_force(
        self, facts: _Facts, told: list[Operation], before: float
    ) -> Operation | None:
        """Return the first of *told* that ended before then and was not undone; they are sorted."""
        undoing = self._rollbacks + (self._flushes if facts.made.kind == "issue" else [])
        for each in told:
            if each.ended >= before:
                return None
            if not any(self._undoes(rollback, each) for rollback in undoing):
                return each
        return None

    def _only_remembered(self, facts: _Facts, use: Operation) -> bool:
        """Whether what others refuse before *use* they may know from memory alone.

        That a token is revoked is not told to a server that was emptied and is still the same.
        """
        flushed = any(flush.started < use.started for flush in self._flushes)
        return flushed and facts.made.kind == "issue"

    def _seen(self, facts: _Facts, use: Operation) -> Operation | None:
        """Return the refusal by which the worker of *use* knew: no rollback undoes what it saw."""
        if not self._history.one_worker_each:
            return None
        for each in facts.refused:
            known = each.reason == "session_ended" and each.ended < use.started
            if known and each.gateway == use.gateway:
                return each
        return None

    def _undoes(self, rollback: Operation, told: Operation) -> bool:
        lost = rollback.ended > told.started and told.ended >= rollback.since
        return lost and not told.confirmed

    def _is_lost(self, written: Operation, use: Operation) -> bool:
        return any(
            rollback.since <= written.ended and rollback.started < use.ended
            for rollback in self._rollbacks
        )

    def _judge_refused(self, use: Operation, facts: _Facts) -> Iterator[Violation]:
        if use.started < facts.made.ended:
            return  # not known yet
        lived_until = min(facts.made.expires_at, facts.made.idles_at) - MARGIN
        if use.ended >= min(facts.touched_from, lived_until):
            return
        yield Violation("wrongly_refused", use, facts.made)

"""No more sessions of one subject than `session.max_sessions`, over all gateways.

How this works. The record is there before its seat is asked for, and nobody has its cookie yet.
The store decides in one step: the new session takes the last seat, by an order of the store's own
that no clock can upset; if there are more than may be, all of them come back. Some may have ended
(seats are cleared later): those are looked up and handed back with the next try. When all that is
left lives, those in front give up their seats, or the new session its own. Two gateways that seat
at once each end a beginning of one and the same list, so never too few are left, nor too many.
"""

import hashlib

from auth.io.records import CallAll, read_records
from auth.revocation import LONGEST_SESSION

SEAT = """
-- KEYS: seats. ARGV: session, most, seconds to live, 1: refuse, those that are gone.
-- Returns nothing when it has its seat and nobody has to go; else all, in the order of seating.
for i = 5, #ARGV do redis.call('ZREM', KEYS[1], ARGV[i]) end
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
  redis.call('ZADD', KEYS[1], (last[2] or 0) + 1, ARGV[1])
end
redis.call('EXPIRE', KEYS[1], ARGV[3])
local all = redis.call('ZRANGE', KEYS[1], 0, -1)
if #all <= tonumber(ARGV[2]) then return {} end
if ARGV[4] == '1' then redis.call('ZREM', KEYS[1], ARGV[1]) end
return all
"""

_MOST_TRIES = 8
"""Each is another one only if sessions ended in between."""


def seats_key(subject: str) -> str:
    """Return the key of the seats of *subject*."""
    return f"doorward:seats:{{{hashlib.sha256(subject.encode()).hexdigest()}}}"


async def seat(
    call_all: CallAll, name: str, subject: str, *, most: int, refuse: bool
) -> list[str] | None:
    """Give the session *name* of *subject*, which is in the store, a seat.

    Returns:
        The sessions that have to end for it; None if it is the one (*refuse*).
    """
    gone: list[str] = []
    seated: list[str] = []
    for _ in range(_MOST_TRIES):
        facts = (name, most, LONGEST_SESSION, int(refuse))
        (reply,) = await call_all([("EVAL", SEAT, 1, seats_key(subject), *facts, *gone)])
        assert isinstance(reply, list)
        seated = [each.decode() for each in reply]
        if not seated:
            return []
        others = [each for each in seated if each != name]
        alive = {each.digest for each in await read_records(call_all, others)}
        gone = [each for each in others if each not in alive]
        if not gone:
            break
    return None if refuse else seated[: max(0, len(seated) - most)]

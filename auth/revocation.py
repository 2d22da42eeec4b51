"""What ends sessions and tokens, and how it is named in the store.

A session ends by a *tombstone* beside its record, or by an *epoch*: "everything of this subject
that was created up to then is over". An epoch is one key per issuer and subject, so no index can
miss a session; sessions have the empty issuer. One more epoch stands for every session there is.
A bearer token is revoked by its `jti`, or by the epoch of its issuer and subject. Beside either
stands the mark of its *bucket*, the first digits of its name: while a bucket has no mark, nothing
in it is revoked. So tokens that nobody has seen before can be known to be good without asking.
"""

import hashlib
import math
from functools import lru_cache

import msgspec

WORKERS_KEY = "doorward:workers"
"""Hash of the workers that may hold a lease: id to `<beat> <lease in ms>`, `~` to its birth."""
EVENTS_KEY = "doorward:events"
"""Stream of `session.started` and `session.ended`."""
EXPIRING_KEY = "doorward:expiring:{doorward:events}"
"""Sorted set of sessions by when (epoch ms) they end if nobody uses them; in the stream's slot."""
EXPIRING_FACTS_KEY = "doorward:expiring-facts:{doorward:events}"
"""Hash of what is told of those: digest to `<expires_at in ms> <subject>`."""
ENDED_CHANNEL = "doorward:ended"
ALL_SESSIONS = "all"
"""The name of the epoch of every session."""

# Browsers keep no cookie for longer than 400 days (RFC 6265bis 5.5), so no session outlives that.
LONGEST_SESSION = 400 * 86_400

_FAR = 1e12
"""Epoch seconds; what another service wrote may be any number, infinity too."""

_SESSION = "doorward:session:{"
_ENDED = "doorward:ended:{"
_REVOKED = "doorward:revoked:{"
_EPOCH = "doorward:epoch:{"
_BUCKET = "doorward:revocations:{"

# 4096 buckets: with a hundred revocations that count, one new token in twenty is asked for.
_BUCKET_DIGITS = 3
_REST = 16 ** (_BUCKET_DIGITS - 1)


def _name_of(*parts: str) -> str:
    """Hash *parts*, each with its length before it: ("a", "bc") and ("ab", "c") must differ."""
    text = "".join([f"{len(part)}:{part}" for part in parts])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@lru_cache(maxsize=2000)  # asked for twice at every read of a session, as dear as its parsing
def epoch_name(issuer: str, subject: str) -> str:
    """Name the epoch of *subject* at *issuer*; for sessions the issuer is empty."""
    return _name_of(issuer, subject)


def token_name(issuer: str, jti: str) -> str:
    """Name the token *jti* of *issuer*."""
    return _name_of(issuer, jti, "jti")


def ended_key(digest: str) -> str:
    """Return the key of a session's tombstone: in the slot of its record."""
    return f"{_ENDED}{digest}}}"


def epoch_key(name: str) -> str:
    """Return the key of an epoch."""
    return f"{_EPOCH}{name}}}"


def revoked_key(name: str) -> str:
    """Return the key that revokes a token."""
    return f"{_REVOKED}{name}}}"


def index_key(subject: str) -> str:
    """Return the key of the sorted set of a subject's sessions (score: `expires_at`)."""
    return f"doorward:sessions-of:{{{epoch_name('', subject)}}}"


def bucket_of(name: str) -> str:
    """Return the bucket of a token's name or of an epoch."""
    return name[:_BUCKET_DIGITS]


def buckets_near(bucket: str) -> list[str]:
    """Return a sixteenth of all buckets: those that begin with the same digit."""
    return [f"{bucket[0]}{rest:0{_BUCKET_DIGITS - 1}x}" for rest in range(_REST)]


def bucket_key(bucket: str) -> str:
    """Return the key of a bucket's mark, which outlives everything in it that is revoked."""
    return f"{_BUCKET}{bucket}}}"


_NAMED = (
    (_SESSION, "name"),
    (_ENDED, "name"),
    (_REVOKED, "name"),
    (_EPOCH, "epoch"),
    (_BUCKET, "bucket"),
)
_PREFIXES = tuple((prefix.encode(), len(prefix), kind) for prefix, kind in _NAMED)


def read_key(key: bytes) -> tuple[str, str]:
    """Return what depends on *key*: ("name", n), ("epoch", n), ("bucket", b) or ("", "").

    The name is a session's digest or a token's name.
    """
    for prefix, length, kind in _PREFIXES:
        if key.startswith(prefix):
            return kind, key[length:-1].decode("utf-8", "replace")
    return "", ""


def milliseconds(at: float) -> int:
    """Return epoch seconds as milliseconds, rounded down."""
    # What another service wrote may be any number, and infinity has no milliseconds.
    # Today's time has a resolution of 0.0002 ms as a float: 5 ms must not come out as 4.
    return math.floor(max(-_FAR, min(at, _FAR)) * 1000 + 0.001)


class Epoch(msgspec.Struct, frozen=True):
    """Everything created up to *at* (milliseconds) is over, but the session *keep*."""

    at: int
    keep: str = ""

    def covers(self, created_at: float, name: str) -> bool:
        """Whether what was created at *created_at* (epoch seconds) is over.

        Both times are rounded down to milliseconds, so what was made before an epoch never looks
        later; what was made in the same millisecond, or the same second if its writer counts
        seconds, is over too.
        """
        return milliseconds(created_at) <= self.at and not (self.keep and name == self.keep)

    def covers_session(self, created_at: float, name: str) -> bool:
        """As `covers`, for sessions, whose writers may count seconds.

        What says a whole second was made at any time in it, perhaps after the epoch: such a session
        counts from the end of its second. The store finds those from before the epoch and ends them
        one by one, or makes the epoch when the second is over (`end_subject`, `end_all`).
        """
        return self.covers(created_at + 0.999 if created_at % 1 == 0 else created_at, name)

    def encode(self) -> str:
        """Return the value as it stands in the store."""
        return f"{self.at} {self.keep}" if self.keep else str(self.at)


NO_EPOCH = Epoch(-1)
# A value that nobody can read ends everything: fail closed.
UNREADABLE_EPOCH = Epoch(1 << 62)


def parse_epoch(value: bytes | None) -> Epoch:
    """Read an epoch's value; no key is `NO_EPOCH`, a strange one ends everything."""
    if value is None:
        return NO_EPOCH
    at, _, keep = value.decode("ascii", "replace").partition(" ")
    if not at.isascii() or not at.isdigit() or len(at) > 18:
        return UNREADABLE_EPOCH
    return Epoch(int(at), keep)


def later(one: Epoch, other: Epoch) -> Epoch:
    """Return the epoch that is in force when both were seen."""
    return other if other.at > one.at else one


class TokenRef(msgspec.Struct, frozen=True):
    """A bearer token, as far as revocation is concerned. Make it once per token and keep it."""

    name: str
    epoch: str
    issued_at: float
    expires_at: float


def token_ref(
    *, issuer: str, subject: str, jti: str, issued_at: float, expires_at: float
) -> TokenRef:
    """Name a verified token. Without `jti` (empty) only the subject's epoch can revoke it.

    *issued_at* is 0 when the token does not say: then any epoch of its subject revokes it.
    """
    name = token_name(issuer, jti) if jti else _name_of(issuer, subject, str(issued_at), "iat")
    return TokenRef(name, epoch_name(issuer, subject), issued_at, expires_at)

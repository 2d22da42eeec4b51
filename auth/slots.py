"""The slots of a Redis or Valkey cluster: which key is in which, and which server has which.

Specification: "Redis cluster specification", key distribution model. A key's slot is the CRC16 of
its *tag*, the first non-empty part in braces, else of the whole key. What Doorward keeps of one
session has one tag, so it shares a slot; a subject's epoch and index share another.

A server *claims* slots. A slot that it is handing over (migrating) is still called its own, but
keys that are not there are already asked for, and written, elsewhere; so only what it claims and
is not handing over is *stable*, and only there is "I heard of no change" worth anything.
"""

import binascii
from functools import cache

import msgspec

from auth.revocation import WORKERS_KEY

SLOTS = 16_384
_TAG = "slot:"
_NEIGHBOURS = 16
"""Slots that share a copy of the epoch of all sessions."""

# CRC16-XMODEM, as the specification asks for, is what binascii calls crc_hqx from 0.
_crc16 = binascii.crc_hqx


class ClusterAnswerError(ValueError):
    """A server's answer about its cluster makes no sense."""


def slot_of(key: str | bytes) -> int:
    """Return the slot of *key*."""
    name = key.encode("utf-8", "surrogateescape") if isinstance(key, str) else key
    _, brace, rest = name.partition(b"{")
    if brace:
        tag, closing, _ = rest.partition(b"}")
        if closing and tag:
            name = tag
    return _crc16(name, 0) % SLOTS


def slot_of_tag(tag: str) -> int:
    """Return the slot of every key whose tag is *tag*."""
    return _crc16(tag.encode("utf-8", "surrogateescape"), 0) % SLOTS


@cache
def _tags() -> tuple[str, ...]:
    """Return a tag for each slot; a tenth of a second, once."""
    tags: dict[int, str] = {}
    number = 0
    while len(tags) < SLOTS:
        tag = f"{_TAG}{number}"
        tags.setdefault(slot_of_tag(tag), tag)
        number += 1
    return tuple(tags[slot] for slot in range(SLOTS))


def tag_of(slot: int) -> str:
    """Return a tag whose keys are in *slot*: always the same one."""
    return _tags()[slot]


def is_slot_tag(tag: str) -> bool:
    """Tell whether *tag* is one that `tag_of` returns."""
    return tag.startswith(_TAG)


def all_sessions_beside(name: str) -> str:
    """Name the copy of the epoch of all sessions that counts for the session *name*.

    On a cluster that epoch has 1,024 copies, each for 16 neighbouring slots and in the first of
    them: the one shard that had it would take all the others with it when it is down.
    """
    return tag_of(slot_of_tag(name) // _NEIGHBOURS * _NEIGHBOURS)


def all_sessions_everywhere() -> tuple[str, ...]:
    """Name every copy of the epoch of all sessions."""
    return tuple(tag_of(slot) for slot in range(0, SLOTS, _NEIGHBOURS))


def key_of(command: "tuple[object, ...]") -> str | bytes | None:
    """Return the key that says where *command* must go; None: anywhere.

    Of the commands that Doorward sends, that is; all keys of one are in one slot.
    """
    word = command[0]
    if word in ("EVAL", "EVALSHA"):
        key = command[3] if int(str(command[2])) else None
    elif word == "XREADGROUP":
        key = command[command.index("STREAMS") + 1] if "STREAMS" in command else None
    else:
        key = command[1] if len(command) > 1 else None
    return key if isinstance(key, str | bytes) else None


class Claims(msgspec.Struct, frozen=True):
    """What a server says of itself (`auth.io.scripts.CLAIMS`)."""

    text: str
    """As the server wrote it: while it is the same, nothing has changed hands."""
    is_primary: bool
    stable: bytes
    """One byte for each slot: 1 if it is this server's and not being handed over."""

    @property
    def registry_key(self) -> str | None:
        """The key of the registry of workers at this server; None if it has no stable slot."""
        first = self.stable.find(1)
        return None if first < 0 else f"{WORKERS_KEY}:{{{tag_of(first)}}}"

    @property
    def node(self) -> str:
        """The server's id in its cluster."""
        return self.text.partition(" ")[0]


NO_CLAIMS = Claims("", is_primary=False, stable=bytes(SLOTS))


def parse_claims(text: bytes) -> Claims:
    """Read `<id> <flags> <epoch> <slots>`, slots as in CLUSTER NODES: `0-99 105 [77->-id]`.

    Raises:
        ClusterAnswerError: it is something else.
    """
    stable = bytearray(SLOTS)
    given: list[int] = []
    try:
        words = text.decode("ascii").split(" ")
        flags = words[1].split(",")
        for word in filter(None, words[3:]):
            if word.startswith("["):
                slot, arrow, _ = word[1:].partition("->-")
                if arrow:  # else `<-`: it is being taken over, and not this server's yet
                    given.append(int(slot))
                continue
            first, _, last = word.partition("-")
            start, end = int(first), int(last or first) + 1
            stable[start:end] = b"\1" * (end - start)
    except (ValueError, IndexError) as error:
        raise ClusterAnswerError("the server does not say which slots it has") from error
    for handed_over in given:
        stable[handed_over : handed_over + 1] = b"\0"
    if len(stable) != SLOTS:
        raise ClusterAnswerError("the server claims slots that there are not")
    return Claims(" ".join(words), "master" in flags, bytes(stable))


class Primary(msgspec.Struct, frozen=True):
    """A server that owns slots, as the others know it."""

    node: str
    host: str
    port: int


def parse_slots(reply: object, asked: str) -> tuple[dict[str, Primary], list[str | None]]:
    """Read the answer to CLUSTER SLOTS of a server at the host *asked*.

    Returns:
        The primaries by their ids, and for each slot the id of its owner, None if it has none.

    Raises:
        ClusterAnswerError: it is something else.
    """
    primaries: dict[str, Primary] = {}
    owners: list[str | None] = [None] * SLOTS
    try:
        for first, last, primary, *_ in reply:  # type: ignore[attr-defined]
            host, port, node = primary[:3]
            name = node.decode("ascii")
            # No address: that of the server that was asked. `?`: the server does not know it.
            where = host.decode() if host else asked
            if where == "?":
                continue
            primaries[name] = Primary(name, where, int(port))
            for slot in range(int(first), int(last) + 1):
                owners[slot] = name
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise ClusterAnswerError("the server's answer to CLUSTER SLOTS makes no sense") from error
    return primaries, owners


REDIRECTS = ("MOVED ", "ASK ", "TRYAGAIN")
"""How the error of a server begins that did nothing: the slot is elsewhere, or on its way."""


class Redirect(msgspec.Struct, frozen=True):
    """Where a server sends its caller: `MOVED` for good, `ASK` for this one command."""

    host: str
    port: int
    asking: bool


def parse_redirect(error: str) -> Redirect | None:
    """Read `MOVED 3999 127.0.0.1:6381` or `ASK …`; None if *error* is something else.

    An empty host: that of the server which said it.
    """
    word, _, rest = error.partition(" ")
    if word not in ("MOVED", "ASK"):
        return None
    _, _, where = rest.partition(" ")
    host, _, port = where.rpartition(":")
    return Redirect(host, int(port), word == "ASK") if port.isdigit() else None

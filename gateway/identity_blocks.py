"""Identity fields that were written before and may be sent again.

How this works. What the fields say is decided by the identity and its assertion; an assertion is
signed anew when either changes, and every few seconds besides. So a block is remembered under its
assertion and given again while the identity is the very same object. Without an assertion nothing
is remembered. The memory is bounded and belongs to one generation.

Bearer tokens that say the same share an assertion, each with an identity of its own; so where the
identity is another object, what the fields would say of it decides.
"""

from operator import attrgetter

from auth.identity import Identity
from config.model import IdentityHeaders
from gateway.forwarding import identity_block

_MOST_BLOCKS = 10_000
"""About 10 MB; with more callers at once some blocks are written again."""


class IdentityBlocks:
    """The memory of one generation; at most *capacity* blocks."""

    def __init__(self, headers: IdentityHeaders, *, capacity: int = _MOST_BLOCKS) -> None:
        self._headers = headers
        self._capacity = capacity
        self._said_of = attrgetter("subject", *(part for _, part in headers.fields))
        self._written: dict[str, tuple[Identity, bytes]] = {}

    def __len__(self) -> int:
        return len(self._written)

    def block(self, identity: Identity, assertion: str) -> bytes:
        """Return `identity_block` of *identity*, from memory if that says the same."""
        written = self._written.get(assertion)
        if written is not None and (
            written[0] is identity or self._said_of(written[0]) == self._said_of(identity)
        ):
            return written[1]
        block = identity_block(self._headers, identity, assertion)
        if assertion:
            if len(self._written) >= self._capacity:
                self._written.clear()
            self._written[assertion] = (identity, block)
        return block

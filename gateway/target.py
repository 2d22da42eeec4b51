"""The canonical request target: decoded once, normalised once; what is matched is what is sent."""

import msgspec


class Target(msgspec.Struct, frozen=True):
    """A request target in its one canonical form."""

    path: str
    """Starts with `/`; only unreserved characters are decoded; no dot segments, no `//`."""
    query: str = ""
    """Byte for byte as it came, without the `?`; never decoded, never matched."""
    has_query: bool = False
    """Tells `/a?` from `/a`."""

    @property
    def text(self) -> str:
        """The target as it is sent in a request line."""
        return f"{self.path}?{self.query}" if self.has_query else self.path

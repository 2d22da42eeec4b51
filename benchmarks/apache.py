"""Apache with mod_auth_openidc: sessions in Redis, begun by a real sign-in at a small provider.

The provider answers for as long as the sign-in takes and says yes to everybody; the module checks
what it says as it would anybody's (state, nonce, the ID token's signature and claims).
"""

import json
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.cookiejar import CookieJar
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

from benchmarks.peers import Ground, Peer

MODULES = Path("/usr/lib/apache2/modules")
COOKIE_NAME = "mod_auth_openidc_session"
CLIENT = "bench"
_PATH = "/users/u1/notes"
_LOG_LINE = (
    '{"time":"%{%FT%T}t","method":"%m","host":"%{Host}i","path":"%U","status":%>s,'
    '"duration":%D,"bytes_out":%O,"remote":"%a","subject":"%u"}'
).replace('"', r"\"")


def mod_auth_openidc(ground: Ground) -> Peer:
    """Apache with mod_auth_openidc, which reads the session from Redis on each request."""
    provider = Provider()
    directory = ground.directory
    directory.mkdir(parents=True, exist_ok=True)
    modules = "\n".join(
        f"LoadModule {name}_module {MODULES}/mod_{name}.so"
        for name in (
            *("mpm_event", "authn_core", "authz_core", "authz_user"),
            *("headers", "proxy", "proxy_http", "auth_openidc"),
        )
    )
    (directory / "apache.conf").write_text(
        f"""{modules}
ServerName 127.0.0.1
Listen 127.0.0.1:{ground.port}
User www-data
Group www-data
PidFile {directory}/pid
DefaultRuntimeDir {directory}
ErrorLog {directory}/error.log
LogFormat "{_LOG_LINE}" json
CustomLog {directory}/access.log json
BufferedLogs On
StartServers 1
ServerLimit 1
ThreadsPerChild 128
ThreadLimit 128
MaxRequestWorkers 128
KeepAlive On
MaxKeepAliveRequests 0
OIDCProviderMetadataURL {provider.issuer}/.well-known/openid-configuration
OIDCClientID {CLIENT}
OIDCClientSecret a-secret-of-the-benchmark
OIDCRedirectURI http://127.0.0.1:{ground.port}/signed-in
OIDCCryptoPassphrase a-passphrase-of-the-benchmark
OIDCSessionType server-cache
OIDCCacheType redis
OIDCRedisCacheServer 127.0.0.1:{ground.store_port}
OIDCRemoteUserClaim sub
OIDCPassClaimsAs headers
<Location />
  AuthType openid-connect
  Require claim roles:editor
</Location>
ProxyPass / http://127.0.0.1:{ground.upstream_port}/ keepalive=On
"""
    )

    def sign_in() -> Mapping[str, str]:
        return provider.sign_in(f"http://127.0.0.1:{ground.port}{_PATH}")

    return Peer(
        "Apache + mod_auth_openidc, session in Redis",
        ["apache2", "-DFOREGROUND", "-d", str(directory), "-f", str(directory / "apache.conf")],
        path=_PATH,
        sign_in=sign_in,
    )


def is_there() -> bool:
    """Tell whether Apache has the module on this machine."""
    return (MODULES / "mod_auth_openidc.so").exists()


class Provider:
    """An OpenID provider for one client; everybody who comes is u1, an editor."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Answering)
        self._server.provider = self  # type: ignore[attr-defined]
        self.issuer = f"http://127.0.0.1:{self._server.server_port}"
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.nonce = ""

    def sign_in(self, url: str) -> Mapping[str, str]:
        """Ask for *url* as a browser would; return the field with the session's cookie.

        Raises:
            OSError: the way there did not end with a good answer. RuntimeError: it made no session.
        """
        jar = CookieJar()
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))
        browser.addheaders = [("Accept", "text/html")]  # else the module answers 401 to a script
        with self._answering(), browser.open(url, timeout=10) as answer:
            answer.read()
        for cookie in jar:
            if cookie.name == COOKIE_NAME:
                return {"Cookie": f"{cookie.name}={cookie.value}"}
        raise RuntimeError("the sign-in made no session")

    @contextmanager
    def _answering(self) -> Iterator[None]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._server.shutdown()
            self._server.server_close()

    def tokens(self) -> dict[str, object]:
        """Return the answer of the token endpoint."""
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": CLIENT, "sub": "u1", "name": "Ada Lovelace",
                  "roles": ["editor", "member"], "nonce": self.nonce, "iat": now,
                  "exp": now + 3600}  # fmt: skip
        token = jwt.encode(claims, self._key, "RS256", headers={"kid": "one"})
        return {"access_token": "a", "token_type": "Bearer", "expires_in": 3600, "id_token": token}

    def metadata(self) -> dict[str, object]:
        """Return the discovery document."""
        endpoints = {"authorization_endpoint": "authorize", "token_endpoint": "token",
                     "jwks_uri": "jwks"}  # fmt: skip
        return {
            "issuer": self.issuer,
            **{name: f"{self.issuer}/{path}" for name, path in endpoints.items()},
            "response_types_supported": ["code"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic"],
        }

    def keys(self) -> dict[str, object]:
        """Return the JWKS."""
        public = jwt.algorithms.RSAAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        return {"keys": [{**public, "kid": "one", "use": "sig", "alg": "RS256"}]}


class _Answering(BaseHTTPRequestHandler):
    """The provider's endpoints."""

    @property
    def _provider(self) -> Provider:
        return self.server.provider  # type: ignore[attr-defined,no-any-return]

    def do_GET(self) -> None:
        """Send the browser back with a code, or send the metadata or the keys."""
        target = urlsplit(self.path)
        if target.path != "/authorize":
            keys = target.path == "/jwks"
            self._send(self._provider.keys() if keys else self._provider.metadata())
            return
        asked = {name: values[0] for name, values in parse_qs(target.query).items()}
        self._provider.nonce = asked["nonce"]
        back = urlencode({"code": "a-code", "state": asked["state"]})
        self.send_response(302)
        self.send_header("Location", f"{asked['redirect_uri']}?{back}")
        self.end_headers()

    def do_POST(self) -> None:
        """Give the tokens for the code."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self._send(self._provider.tokens())

    def _send(self, value: object) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(value).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        """Say nothing."""

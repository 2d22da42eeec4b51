"""A server that verifies the bearer token of each request with PyJWT, or does not.

`python -m benchmarks.verifying PORT PEM` with the public key's file, or `-` in its place. The
difference is what the library costs in a server at work, where other code has used the processor's
caches before it is its turn again; in a loop of its own the same call takes a third less.
"""

import asyncio
import re
import sys
from pathlib import Path

import jwt
import uvloop
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

_TOKEN = re.compile(rb"\r\nauthorization: bearer ([^\r]+)", re.IGNORECASE)
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nok"


class Verifying(asyncio.Protocol):
    """One connection."""

    def __init__(self, key: ec.EllipticCurvePublicKey | None) -> None:
        self._key = key
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport (asyncio.Protocol)."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        """Answer, or close if the token is no good (asyncio.Protocol)."""
        token = _TOKEN.search(data)
        assert token is not None
        if self._key is not None:
            try:
                verify(token[1].decode(), self._key)
            except jwt.PyJWTError:
                self._transport.close()
                return
        self._transport.write(_OK)


def verify(token: str, key: ec.EllipticCurvePublicKey) -> None:
    """Do all that PyJWT offers: form, signature, issuer, audience and times."""
    jwt.decode(token, key, ["ES256"], audience="api", issuer="https://issuer")


async def main(port: int, pem: str) -> None:
    """Serve until stopped."""
    key = None if pem == "-" else load_pem_public_key(Path(pem).read_bytes())  # noqa: ASYNC240 - at the start
    assert key is None or isinstance(key, ec.EllipticCurvePublicKey)
    server = await asyncio.get_running_loop().create_server(
        lambda: Verifying(key), "127.0.0.1", port, backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2]))

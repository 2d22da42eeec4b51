"""An authenticator and the browser before it, as WebAuthn Level 3 has them.

It makes real keys and signs with them. What a hostile one would do differently is an attribute.
"""

import hashlib
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

_PRESENT, _VERIFIED, _ELIGIBLE, _BACKED_UP, _ATTESTED = 0x01, 0x04, 0x08, 0x10, 0x40


def encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Authenticator:
    """With one passkey at most."""

    def __init__(self, origin: str, *, id_: bytes = b"i" * 32, synced: bool = False) -> None:
        self.origin = origin
        self.id = id_
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.handle = b""
        self.sign_count = 0
        self.counts = not synced
        self.synced = synced
        self.verifies = True
        self.cross_origin = False
        self.rp_id = ""
        """Instead of what the options say."""

    def create(self, options: dict[str, Any]) -> str:
        """Answer `navigator.credentials.create()`."""
        self.handle = decoded(options["user"]["id"])
        assert 1 <= len(self.handle) <= 64, "browsers refuse it (WebAuthn section 5.1.3 step 5)"
        numbers = self.key.public_key().public_numbers()
        cose = {1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32), -3: numbers.y.to_bytes(32)}
        attested = bytes(16) + len(self.id).to_bytes(2) + self.id + cbor2.dumps(cose)
        data = self._data(options["rp"]["id"], _ATTESTED) + attested
        attestation = cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})
        response = {
            "clientDataJSON": encoded(self._client_data("webauthn.create", options["challenge"])),
            "attestationObject": encoded(attestation),
            "transports": ["internal", "hybrid", "by-pigeon"],
        }
        return self._credential(response)

    def get(self, options: dict[str, Any]) -> str:
        """Answer `navigator.credentials.get()`."""
        if self.counts:
            self.sign_count += 1
        data = self._data(options["rpId"], 0)
        client_data = self._client_data("webauthn.get", options["challenge"])
        signed = data + hashlib.sha256(client_data).digest()
        response = {
            "clientDataJSON": encoded(client_data),
            "authenticatorData": encoded(data),
            "signature": encoded(self.key.sign(signed, ec.ECDSA(hashes.SHA256()))),
            "userHandle": encoded(self.handle) if self.handle else None,
        }
        return self._credential(response)

    def _data(self, rp_id: str, flags: int) -> bytes:
        flags |= _PRESENT | (_VERIFIED if self.verifies else 0)
        flags |= _ELIGIBLE | _BACKED_UP if self.synced else 0
        name = hashlib.sha256((self.rp_id or rp_id).encode()).digest()
        return name + bytes([flags]) + self.sign_count.to_bytes(4)

    def _client_data(self, kind: str, challenge: str) -> bytes:
        told = {
            "type": kind,
            "challenge": challenge,
            "origin": self.origin,
            "crossOrigin": self.cross_origin,
        }
        return json.dumps(told).encode()

    def _credential(self, response: dict[str, Any]) -> str:
        name = encoded(self.id)
        told = {"id": name, "rawId": name, "type": "public-key", "response": response}
        return json.dumps(told)

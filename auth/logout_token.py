"""The signed notice that a session has ended (OpenID Connect Back-Channel Logout 1.0, section 2.4).

What makes it differ from an identity assertion of the same keys: `typ` is `logout+jwt`, and there
is an `events` claim and no identity beyond `sub` and `sid`, so neither passes for the other.
"""

import json

from auth.assertion import sign_es256
from auth.keys import SigningKey, encode_base64url

EVENT = "http://schemas.openid.net/event/backchannel-logout"
LIVES_FOR = 600.0
"""Seconds from the end of the session until nobody tries to deliver the notice any more.

The specification recommends two minutes at most against replays. A replay ends nothing here that
has not ended, and a backend that is being restarted shall still be told.
"""


def logout_token(  # noqa: PLR0913 - its claims
    key: SigningKey,
    *,
    issuer: str,
    audience: str,
    subject: str,
    session: str,
    event_id: str,
    ended_at: float,
) -> str:
    """Return the notice to *audience* that *session* (its digest) of *subject* ended.

    *event_id* becomes the `jti`: it is the same however often the notice is sent, so that a
    receiver can tell a repetition. *ended_at* is epoch seconds, and the token's `iat`.
    """
    header = {"alg": "ES256", "kid": key.kid, "typ": "logout+jwt"}
    claims: dict[str, object] = {
        "iss": issuer,
        "aud": audience,
        "iat": int(ended_at),
        "exp": int(ended_at + LIVES_FOR),
        "jti": event_id,
        "events": {EVENT: {}},
        "sid": session,
    }
    if subject:
        claims["sub"] = subject
    parts = (json.dumps(part, separators=(",", ":")).encode() for part in (header, claims))
    return sign_es256(".".join(map(encode_base64url, parts)), key)

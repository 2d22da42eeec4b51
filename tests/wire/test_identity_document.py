"""The example of `docs/identity.md`, run as a backend would."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.gateway.io.harness import PRIVATE, configuration, gateway, one_upstream, upstream

pytestmark = pytest.mark.wire

DOCUMENT = Path(__file__).parents[2] / "docs" / "identity.md"


def example(port: int, audience: str) -> Callable[[str], dict[str, Any]]:
    """The document's function, with only the address and the upstream's name changed."""
    found = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len(found) == 1
    code = found[0].replace(":8080/.doorward", f":{port}/.doorward")
    code = code.replace('audience="notes"', f'audience="{audience}"')
    names: dict[str, Any] = {}
    exec(compile(code, str(DOCUMENT), "exec"), names)
    function: Callable[[str], dict[str, Any]] = names["caller"]
    return function


async def test_the_documented_example_believes_the_gateway_and_nobody_else() -> None:
    async with (
        upstream() as backend,
        gateway(configuration(one_upstream(backend), [PRIVATE])) as running,
    ):
        cookie = running.sessions.sign_in("alice", tenant="acme", roles=("editor",))
        await running.ask(
            f"GET /private/x HTTP/1.1\r\nHost: a\r\nCookie: doorward={cookie}\r\n\r\n".encode()
        )
        head = backend.requests[0].decode()
        assertion = re.findall(r"X-Auth-Assertion: (\S+)\r\n", head)[0]
        claims = await asyncio.to_thread(example(running.port, "app"), assertion)
        assert claims["sub"] == "alice"
        assert claims["tenant"] == "acme"
        assert claims["roles"] == ["editor"]
        with pytest.raises(jwt.InvalidAudienceError):
            await asyncio.to_thread(example(running.port, "other"), assertion)
        text, _, signature = assertion.rpartition(".")
        forged = f"{text}.{signature[::-1]}"
        with pytest.raises(jwt.PyJWTError):
            await asyncio.to_thread(example(running.port, "app"), forged)

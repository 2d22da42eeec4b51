"""The compiled build: with `DOORWARD_COMPILED=1`, mypyc makes C of the modules listed here.

Everything else about the package is in pyproject.toml, and without the variable nothing is
compiled: pure Python is what is developed, tested first and installed by default. Both builds have
the same source, and the wheel carries it beside the extensions. docs/adr/0010 says what that
brings; `make compiled` and `make test-compiled` build it and test it.

What may be listed: modules on the path of every request (docs/fast-path.md) whose classes mypyc
can make native. Not those that define a `msgspec.Struct` with options: mypyc drops the options of a
class with a metaclass of its own, so that `frozen=True` would be lost without a word. Not
`gateway.io.connection`, whose class is aiohttp's. And no class that something interpreted inherits
from.
"""

COMPILED = {
    "auth/cookies.py": "the session cookie among the others, for each new set of fields",
    "gateway/reading.py": "every request head",
    "gateway/pipeline.py": "every decision",
    "gateway/permits.py": "every decision about a known caller",
    "gateway/forwarding.py": "every head to an upstream and to a client",
    "gateway/identity_blocks.py": "the identity fields of every request",
    "gateway/framing.py": "every chunk of content",
    "gateway/io/answering.py": "the gateway's own answers",
    "gateway/io/exchange.py": "what happens to a request, to its end",
    "gateway/io/ids.py": "two ids for every request",
    "gateway/io/pool.py": "a connection taken and put back for every request",
    "gateway/io/relay.py": "every WebSocket message",
    "gateway/io/serving.py": "the steps of every request",
    "gateway/io/upstream.py": "every answer of an upstream",
}
"""The modules, and what they do so often."""

if __name__ == "__main__":
    import os

    from setuptools import setup

    extensions = []
    if os.environ.get("DOORWARD_COMPILED") == "1":
        from mypyc.build import mypycify

        extensions = mypycify(["--config-file", "pyproject.toml", *COMPILED])
    setup(ext_modules=extensions)

"""What must hold of the interpreter and its libraries before anything is served."""

from importlib.metadata import version

import msgspec


class Runtime(msgspec.Struct, frozen=True):
    """What the gateway would run on."""

    optimized: bool
    """`python -O`: asserts are gone, and with them checks that others rely on."""
    uvloop_version: str
    c_parser: bool
    """Whether aiohttp parses requests with its C extension."""


def runtime_problems(runtime: Runtime) -> list[str]:
    """Return why the gateway must not start on *runtime*, and what to do about it."""
    problems = []
    if runtime.optimized:
        problems.append("python -O (or PYTHONOPTIMIZE) removes safety checks: run without it")
    version = tuple(int(part) for part in runtime.uvloop_version.split(".")[:2] if part.isdigit())
    if version < (0, 23):
        # uvloop #645: a cancelled connect could close another user's connection.
        problems.append(
            f"uvloop {runtime.uvloop_version} can mix up two users' answers: "
            "install uvloop 0.23 or newer"
        )
    if not runtime.c_parser:
        # Two parsers that differ are a class of request smuggling of their own (CVE-2023-47641).
        problems.append(
            "aiohttp's C parser is missing: install aiohttp from a wheel, "
            "and unset AIOHTTP_NO_EXTENSIONS"
        )
    return problems


def this_runtime() -> Runtime:
    """Return what this process runs on."""
    from aiohttp import http_parser  # noqa: PLC0415 - only those who run the gateway load it

    return Runtime(
        optimized=not __debug__,
        uvloop_version=version("uvloop"),
        c_parser=http_parser.HttpRequestParser is not http_parser.HttpRequestParserPy,
    )

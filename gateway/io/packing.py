"""A configuration on its way from the supervisor to a worker.

It is pickled, so that a worker serves exactly what the supervisor checked: reading the file again
could find another file, and other secrets. The bytes come over a socket pair of the two.

Unpickling 10,000 routes in one go would hold the interpreter for a sixth of a second, and requests
with it. So the routes travel in pieces, between which others have their turn.
"""

import io
import pickle

import msgspec

from config.model import Configuration, Route

ROUTES_AT_ONCE = 250
"""About four milliseconds."""


def pack_configuration(configuration: Configuration) -> bytes:
    """Return *configuration* as bytes for `unpack_configuration`."""
    packed = io.BytesIO()
    pickle.dump(msgspec.structs.replace(configuration, routes=()), packed)
    routes = configuration.routes
    for start in range(0, len(routes), ROUTES_AT_ONCE):
        pickle.dump(routes[start : start + ROUTES_AT_ONCE], packed)
    return packed.getvalue()


def unpack_configuration(packed: bytes) -> Configuration:
    """Return the configuration that was packed. To be run in a thread beside the loop."""
    rest = io.BytesIO(packed)
    configuration = pickle.load(rest)  # noqa: S301 - our supervisor's own bytes, see above
    assert isinstance(configuration, Configuration)
    routes: list[Route] = []
    while rest.tell() < len(packed):
        routes += pickle.load(rest)  # noqa: S301 - the same
    return msgspec.structs.replace(configuration, routes=tuple(routes))

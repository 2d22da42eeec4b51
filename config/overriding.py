"""The two addresses that the environment may move: `DOORWARD_LISTEN`, `DOORWARD_ADMIN_LISTEN`."""

from collections.abc import Mapping

import msgspec

from config import addresses
from config.checks import MINIMUM_TOKEN_LENGTH
from config.model import Address, Configuration
from config.problem import Problem

LISTEN = "DOORWARD_LISTEN"
ADMIN_LISTEN = "DOORWARD_ADMIN_LISTEN"


def move_addresses(
    configuration: Configuration, environment: Mapping[str, str]
) -> Configuration | list[Problem]:
    """Return *configuration* listening where *environment* says; empty variables say nothing.

    A `public_url` that names the listening address itself moves with it.
    """
    problems: list[Problem] = []
    moved: dict[str, Address] = {}
    for name in (LISTEN, ADMIN_LISTEN):
        if given := environment.get(name):
            try:
                moved[name] = addresses.address(given)
            except ValueError as error:
                problems.append(Problem(1, 1, f"the environment variable {name}: {error}"))
    admin = configuration.admin
    if ADMIN_LISTEN in moved:
        admin = msgspec.structs.replace(admin, listen=moved[ADMIN_LISTEN])
        if (
            admin.token
            and len(admin.token.value) < MINIMUM_TOKEN_LENGTH
            and not addresses.is_loopback(admin.listen.host)
        ):
            problems.append(
                Problem(
                    1,
                    1,
                    f"the environment variable {ADMIN_LISTEN}: others can reach {admin.listen}, "
                    f"so admin.token needs at least {MINIMUM_TOKEN_LENGTH} characters",
                )
            )
    if problems:
        return problems
    configuration = msgspec.structs.replace(configuration, admin=admin)
    return _move_listen(configuration, moved[LISTEN]) if LISTEN in moved else configuration


def _move_listen(configuration: Configuration, listen: Address) -> Configuration:
    server = configuration.server
    identity = configuration.identity
    public_url = server.public_url
    if public_url in {f"http://{server.listen}", f"https://{server.listen}"}:
        scheme = public_url.partition(":")[0]
        # Nobody browses to 0.0.0.0; the host stays the one that the file names.
        host = server.listen.host if addresses.is_wildcard(listen.host) else listen.host
        public_url = f"{scheme}://{Address(host, listen.port)}"
        if identity.assertion.issuer == server.public_url:
            assertion = msgspec.structs.replace(identity.assertion, issuer=public_url)
            identity = msgspec.structs.replace(identity, assertion=assertion)
    return msgspec.structs.replace(
        configuration,
        server=msgspec.structs.replace(server, listen=listen, public_url=public_url),
        identity=identity,
    )

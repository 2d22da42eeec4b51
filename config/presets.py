"""The presets of `identity.headers`: names that backends already know.

`standard` is ours. The others are whole sets as other gateways send them, for backends that were
set up for one of those.
"""

from collections.abc import Mapping
from typing import Final

from config.model import IdentityField

Fields = tuple[tuple[str, IdentityField], ...]

PRESETS: Final[Mapping[str, Fields]] = {
    "standard": (
        ("X-Auth-Subject", "subject"),
        ("X-Auth-Tenant", "tenant"),
        ("X-Auth-Roles", "roles"),
        ("X-Auth-Scopes", "scopes"),
        ("X-Auth-Method", "method"),
    ),
    # Authelia, and the many services that speak "trusted header SSO"
    "remote-user": (
        ("Remote-User", "subject"),
        ("Remote-Groups", "groups"),
        ("Remote-Name", "name"),
        ("Remote-Email", "email"),
    ),
    # oauth2-proxy as a reverse proxy
    "x-forwarded-user": (
        ("X-Forwarded-User", "subject"),
        ("X-Forwarded-Groups", "groups"),
        ("X-Forwarded-Email", "email"),
        ("X-Forwarded-Preferred-Username", "name"),
    ),
    # oauth2-proxy behind nginx's auth_request
    "x-auth-request": (
        ("X-Auth-Request-User", "subject"),
        ("X-Auth-Request-Groups", "groups"),
        ("X-Auth-Request-Email", "email"),
        ("X-Auth-Request-Preferred-Username", "name"),
    ),
}
"""Field name and the part of the identity that fills it, in the order they are sent."""

ADDED_BY_INCLUDE: Final[Mapping[str, tuple[str, IdentityField]]] = {
    "name": ("X-Auth-Name", "name"),
    "email": ("X-Auth-Email", "email"),
    "groups": ("X-Auth-Groups", "groups"),
}
"""What `identity.include` adds to `standard`: personal data goes only where it was asked for."""

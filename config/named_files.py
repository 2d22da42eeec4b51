"""Which files the route file names, and where: what has to be there before anything is served."""

from collections.abc import Callable, Iterator
from typing import Any, Literal

import msgspec

from config.document import Place, PlacedMapping, PlacedSequence

Kind = Literal["certificate", "key", "authorities", "key set"]


class NamedFile(msgspec.Struct, frozen=True):
    """A file that the route file names."""

    kind: Kind
    key: str
    """The key that names it, as the documentation writes it."""
    path: str
    place: Place
    certificate: str = ""
    """The path of the certificate that a `key` is for."""


def named_files(root: object, locate: Callable[[str], str]) -> Iterator[NamedFile]:
    """Yield the files that the document *root* names; *locate* says what a path is relative to.

    What stands where a path should and is no text is left to the schema.
    """
    tls = "server.tls.certificates[]"
    for pair in _items(root, "server", "tls", "certificates"):
        found = {"cert_file": _path(pair, "cert_file"), "key_file": _path(pair, "key_file")}
        certificate, key = (found[name] and locate(found[name]) for name in found)
        if certificate:
            yield NamedFile(
                "certificate", f"{tls}.cert_file", certificate, pair.places["cert_file"]
            )
        if key:
            yield NamedFile("key", f"{tls}.key_file", key, pair.places["key_file"], certificate)
    ldap = _below(root, "login", "ldap")
    if path := _path(ldap, "ca_file"):
        place = ldap.places["ca_file"]
        yield NamedFile("authorities", "login.ldap.ca_file", locate(path), place)
    for issuer in _items(root, "tokens"):
        if path := _path(issuer, "jwks_file"):
            place = issuer.places["jwks_file"]
            yield NamedFile("key set", "tokens[].jwks_file", locate(path), place)


def _below(value: Any, *keys: str) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, PlacedMapping) else None
    return value


def _items(root: object, *keys: str) -> list[PlacedMapping]:
    found = _below(root, *keys)
    items = found if isinstance(found, PlacedSequence) else []
    return [item for item in items if isinstance(item, PlacedMapping)]


def _path(mapping: Any, key: str) -> str:
    path = mapping.get(key) if isinstance(mapping, PlacedMapping) else None
    return path if isinstance(path, str) else ""

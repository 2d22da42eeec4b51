import json
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from config.io.files import load_configuration
from config.io.named_files import find_exposed, find_unusable
from config.model import Configuration, PrivateFile
from config.named_files import NamedFile
from tests.config.reading_support import MINIMAL
from tests.gateway.io.test_tls import make_certificate

AT = (3, 4)
ADVICE = "chmod 600, or see docs/operations.md, Secrets"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two certificates with their keys, an encrypted key, and a file of nonsense."""
    for name in ("a", "b"):
        make_certificate(tmp_path, name, f"{name}.example")
    key = load_pem_private_key((tmp_path / "a.key").read_bytes(), password=None)
    encrypted = key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    (tmp_path / "encrypted.key").write_bytes(encrypted)
    (tmp_path / "nonsense").write_text("nonsense")
    return tmp_path


def said(folder: Path, *files: NamedFile) -> list[str]:
    return [problem.message.replace(f"{folder}/", "") for problem in find_unusable(files)]


def pair(folder: Path, certificate: str, key: str) -> tuple[NamedFile, NamedFile]:
    cert_file, key_file = str(folder / certificate), str(folder / key)
    return (
        NamedFile("certificate", "cert_file", cert_file, AT),
        NamedFile("key", "key_file", key_file, AT, cert_file),
    )


@pytest.mark.parametrize(
    ("certificate", "key", "expected"),
    [
        ("a.pem", "a.key", []),
        ("a.pem", "b.key", ["key_file: b.key is the key of another certificate than"]),
        ("none", "a.key", ["cert_file: none cannot be read: No such file or directory"]),
        ("a.pem", "none", ["key_file: none cannot be read: No such file or directory"]),
        ("none", "none", ["cert_file: none cannot be read", "key_file: none cannot be read"]),
        (".", "a.key", ["cert_file: . cannot be read: Is a directory"]),
        ("nonsense", "a.key", ["cert_file: nonsense holds no certificate in PEM"]),
        ("a.key", "a.key", ["cert_file: a.key holds no certificate in PEM"]),
        ("a.pem", "nonsense", ["key_file: nonsense holds no private key in PEM"]),
        ("a.pem", "encrypted.key", ["key_file: encrypted.key holds no private key in PEM that is"]),
        ("a\0", "a.key", ["cert_file: a\0 cannot be read: embedded null byte"]),
    ],
)
def test_a_pair_that_cannot_serve_is_told_with_the_file_that_is_to_blame(
    folder: Path, certificate: str, key: str, expected: list[str]
) -> None:
    found = [
        text.replace(f"{folder}", ".") for text in said(folder, *pair(folder, certificate, key))
    ]
    assert len(found) == len(expected)
    for message, beginning in zip(found, expected, strict=True):
        assert message.startswith(beginning)


def test_authorities_must_be_certificates_and_a_key_set_must_be_there(folder: Path) -> None:
    def one(kind: str, name: str) -> list[str]:
        return said(folder, NamedFile(kind, "k", str(folder / name), AT))  # type: ignore[arg-type]

    assert one("authorities", "a.pem") == []
    assert one("authorities", "nonsense") == ["k: nonsense holds no certificate in PEM"]
    assert one("authorities", "none") == ["k: none cannot be read: No such file or directory"]
    assert one("key set", "none") == ["k: none cannot be read: No such file or directory"]
    assert one("key set", "nonsense") == []  # it may be written anew at any time


def test_a_route_file_whose_files_are_not_there_does_not_load(folder: Path) -> None:
    tls = "server:\n  tls: {certificates: [{cert_file: a.pem, key_file: %s}]}\n"
    (folder / "jwks.json").write_text(json.dumps({"keys": []}))
    tokens = "tokens: [{issuer: i, audience: [a], jwks_file: %s}]\n"
    file = folder / "routes.yaml"
    file.write_text(MINIMAL + tls % "a.key" + tokens % "jwks.json")
    assert isinstance(load_configuration(file), Configuration)
    file.write_text(MINIMAL + tls % "b.key" + tokens % "jwks.yaml")
    loaded = load_configuration(file)
    assert isinstance(loaded, list)
    assert [problem.at("f").partition(" ")[0] for problem in loaded] == ["f:10:53:", "f:11:48:"]
    assert "server.tls.certificates[].key_file" in loaded[0].message
    assert "tokens[].jwks_file" in loaded[1].message


@pytest.mark.parametrize(
    ("mode", "owner", "reader", "who"),
    [
        (0o600, 1, 1, ""),
        (0o400, 1, 2, ""),
        (0o644, 1, 1, "everybody on this machine may read"),
        (0o604, 0, 1, "everybody on this machine may read"),  # as Kubernetes mounts secrets
        (0o640, 1, 1, "a group may read"),
        (0o440, 0, 1, ""),  # read by the group: systemd, and Kubernetes with fsGroup
        (0o640, 0, 0, ""),  # root checks the file of a service
        (0o642, 0, 1, ""),  # who may write, and not read, learns nothing
    ],
)
def test_a_private_file_that_more_people_may_read_than_need_to_is_named(  # noqa: PLR0917 - a table's columns
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, owner: int, reader: int, who: str
) -> None:
    file = tmp_path / "token"
    file.touch()
    status = os.stat_result((stat.S_IFREG | mode, 1, 1, 1, owner, 0, 0, 0, 0, 0))
    monkeypatch.setattr(Path, "stat", lambda _: status)
    monkeypatch.setattr(os, "geteuid", lambda: reader)
    found = find_exposed([PrivateFile(str(file), "${file:…}", 3, 4)] * 2)
    said = [problem.at("f").partition(", which")[0] for problem in found]
    assert said == ([f"f:3:4: warning: {who} {file}"] if who else [])


def test_a_private_file_that_is_gone_by_now_is_passed_over(tmp_path: Path) -> None:
    assert find_exposed([PrivateFile(str(tmp_path / "none"), "k", 1, 1)]) == []


def test_the_private_files_of_a_route_file_are_looked_at_and_no_others(folder: Path) -> None:
    for name in ("jwks.json", "token", "password", "user"):
        (folder / name).write_text("{}" if name == "jwks.json" else "x" * 20)
    for path in folder.iterdir():
        path.chmod(0o644)
    (folder / "user").chmod(0o600)
    file = folder / "routes.yaml"
    file.write_text(
        f"{MINIMAL}server: {{tls: {{certificates: [{{cert_file: a.pem, key_file: a.key}}]}}}}\n"
        "tokens: [{issuer: i, audience: [a], jwks_file: jwks.json}]\n"
        "admin:\n  token: ${file:token}\n"
        "store:\n  url: redis://${file:user}:${file:password}@127.0.0.1\n"
    )
    loaded = load_configuration(file)
    assert isinstance(loaded, Configuration)
    found = find_exposed(loaded.private_files)
    assert [(problem.line, problem.message.rpartition(f"{folder}/")[2]) for problem in found] == [
        (9, "a.key, which holds a secret (server.tls.certificates[].key_file): " + ADVICE),
        (12, "token, which holds a secret (${file:…}): " + ADVICE),
        (14, "password, which holds a secret (${file:…}): " + ADVICE),
    ]

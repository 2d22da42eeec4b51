from config.document import read_document
from config.named_files import NamedFile, named_files
from tests.config.reading_support import place_of

TEXT = """\
server:
  tls:
    certificates:
      - {cert_file: a.pem, key_file: /keys/a.key}
      - {cert_file: b.pem}
      - {key_file: c.key}
login: {ldap: {ca_file: authorities.crt}}
tokens:
  - {issuer: i, jwks_file: jwks.json}
  - {issuer: j}
"""


def found(text: str) -> list[NamedFile]:
    def locate(path: str) -> str:
        return path if path.startswith("/") else f"/etc/{path}"

    return list(named_files(read_document(text).root, locate))


def test_every_file_that_is_named_is_found_with_its_key_and_place() -> None:
    certificate, key = "server.tls.certificates[].cert_file", "server.tls.certificates[].key_file"
    assert found(TEXT) == [
        NamedFile("certificate", certificate, "/etc/a.pem", place_of(TEXT, "a.pem")),
        NamedFile("key", key, "/keys/a.key", place_of(TEXT, "/keys/a.key"), "/etc/a.pem"),
        NamedFile("certificate", certificate, "/etc/b.pem", place_of(TEXT, "b.pem")),
        NamedFile("key", key, "/etc/c.key", place_of(TEXT, "c.key")),
        NamedFile(
            "authorities",
            "login.ldap.ca_file",
            "/etc/authorities.crt",
            place_of(TEXT, "authorities.crt"),
        ),
        NamedFile("key set", "tokens[].jwks_file", "/etc/jwks.json", place_of(TEXT, "jwks.json")),
    ]


def test_what_is_malformed_is_left_to_the_schema() -> None:
    for text in (
        *("a", "[]", "server: 1", "server: {tls: [1]}", "tokens: 3", "tokens: [a]", "login: []"),
        *("server: {tls: {certificates: {cert_file: a}}}", "login: {ldap: a}"),
        *("server: {tls: {certificates: [{cert_file: 1, key_file: [a]}]}}", "login: {ldap: }"),
        *("tokens: [{jwks_file: {}}]", "tokens: [{jwks_file: ''}]"),
    ):
        assert found(text) == []

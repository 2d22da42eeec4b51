"""A real OpenLDAP server that belongs to this test run."""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

SLAPD = shutil.which("slapd") or shutil.which("slapd", path="/usr/sbin:/usr/lib/openldap")

_CONFIGURATION = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
# As many servers in the field: an unauthenticated bind succeeds (RFC 4513 section 5.1.2).
allow bind_anon_cred bind_anon_dn
modulepath /usr/lib/ldap
moduleload back_mdb
TLSCertificateFile {certificate}
TLSCertificateKeyFile {key}
database mdb
suffix "dc=example,dc=com"
rootdn "cn=gateway,dc=example,dc=com"
rootpw gateway-password
directory {data}
access to attrs=userPassword by anonymous auth by * none
access to * by * read
"""
_ENTRIES = """\
dn: dc=example,dc=com
objectClass: dcObject
objectClass: organization
dc: example
o: Example

dn: ou=people,dc=example,dc=com
objectClass: organizationalUnit
ou: people

dn: ou=groups,dc=example,dc=com
objectClass: organizationalUnit
ou: groups

dn: uid=ada,ou=people,dc=example,dc=com
objectClass: inetOrgPerson
uid: ada
cn: Ada Lovelace
sn: Lovelace
mail: ada@example.com
userPassword: correct horse battery

dn: uid=bob,ou=people,dc=example,dc=com
objectClass: inetOrgPerson
uid: bob
cn: Bob
sn: Bob
userPassword: correct horse battery

dn: uid=eve,ou=people,dc=example,dc=com
objectClass: inetOrgPerson
uid: eve
cn: Eve without a password
sn: Eve

dn: cn=editors,ou=groups,dc=example,dc=com
objectClass: groupOfNames
cn: editors
member: uid=ada,ou=people,dc=example,dc=com

dn: cn=everybody,ou=groups,dc=example,dc=com
objectClass: groupOfNames
cn: everybody
member: uid=ada,ou=people,dc=example,dc=com
member: uid=bob,ou=people,dc=example,dc=com
"""


class Directory(NamedTuple):
    """Where it is. Not `localhost`: libldap takes that for the name of the machine."""

    port: int
    tls_port: int
    ca_file: str

    @property
    def url(self) -> str:
        return f"ldap://127.0.0.1:{self.port}"

    @property
    def tls_url(self) -> str:
        return f"ldaps://127.0.0.1:{self.tls_port}"


@contextmanager
def running_directory(certificate: str, key: str) -> Iterator[Directory]:
    """Start a server with the entries above, and stop it."""
    assert SLAPD is not None
    with tempfile.TemporaryDirectory(prefix="doorward-ldap-") as name:
        directory = Path(name)
        (directory / "data").mkdir()
        configuration = directory / "slapd.conf"
        configuration.write_text(
            _CONFIGURATION.format(certificate=certificate, key=key, data=directory / "data")
        )
        (directory / "entries.ldif").write_text(_ENTRIES)
        add = Path(SLAPD).with_name("slapadd")
        subprocess.run(
            [str(add), "-f", str(configuration), "-l", str(directory / "entries.ldif")],
            check=True,
            capture_output=True,
        )
        ports = []
        for _ in range(2):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                ports.append(probe.getsockname()[1])
        urls = f"ldap://127.0.0.1:{ports[0]} ldaps://127.0.0.1:{ports[1]}"
        process = subprocess.Popen(
            [SLAPD, "-d", "0", "-f", str(configuration), "-h", urls], stderr=subprocess.DEVNULL
        )
        try:
            while True:
                assert process.poll() is None, "slapd ended"
                try:
                    socket.create_connection(("127.0.0.1", ports[1]), 1).close()
                    break
                except OSError:
                    time.sleep(0.02)
            yield Directory(ports[0], ports[1], certificate)
        finally:
            process.terminate()
            process.wait(10)

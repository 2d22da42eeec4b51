"""A real OpenLDAP, asked as sign-ins do."""

from typing import TYPE_CHECKING

import msgspec
import pytest

from auth.ports import AuthUnavailable
from config.model import Ldap, Secret
from tests.ldap_server import Directory

if TYPE_CHECKING:
    from auth.io.ldap_directory import LdapCheck

PASSWORD = "correct horse battery"
PEOPLE = "ou=people,dc=example,dc=com"
GROUPS = "ou=groups,dc=example,dc=com"
EDITORS = "CN=Editors, ou=groups,dc=example,dc=com"
"""Written otherwise than in the directory: it is the same DN."""


def searching(directory: Directory) -> Ldap:
    return Ldap(
        directory.tls_url,
        ca_file=directory.ca_file,
        bind_dn="cn=gateway,dc=example,dc=com",
        bind_password=Secret("gateway-password"),
        base=PEOPLE,
        group_base=GROUPS,
        roles={EDITORS: "editor"},
        tenant="acme",
    )


def binding(directory: Directory) -> Ldap:
    return Ldap(
        directory.url,
        ca_file=directory.ca_file,
        user_dn=f"uid={{login}},{PEOPLE}",
        group_base=GROUPS,
        roles={EDITORS: "editor"},
        tenant="acme",
    )


@pytest.fixture(params=[searching, binding], ids=["search", "bind"])
def settings(request: pytest.FixtureRequest, directory: Directory) -> Ldap:
    made: Ldap = request.param(directory)
    return made


def check(settings: Ldap) -> "LdapCheck":
    from auth.io.ldap_directory import LdapCheck  # noqa: PLC0415 - the extra may be missing

    return LdapCheck(settings)


async def test_the_right_password_signs_in_with_groups_and_roles(settings: Ldap) -> None:
    asked = check(settings)
    ada = await asked.sign_in("ada", PASSWORD)
    bob = await asked.sign_in("bob", PASSWORD)
    assert ada is not None
    assert bob is not None
    assert (ada.name, ada.email, ada.tenant) == ("Ada Lovelace", "ada@example.com", "acme")
    assert (ada.roles, sorted(ada.groups)) == (("editor",), ["editors", "everybody"])
    assert (bob.roles, bob.groups, bob.email) == ((), ("everybody",), "")
    assert len(ada.subject) == 36  # entryUUID
    assert ada.subject != bob.subject


@pytest.mark.parametrize(
    ("login", "password"),
    [
        ("ada", "wrong"),
        ("nobody", PASSWORD),
        ("eve", PASSWORD),
        ("", PASSWORD),
        ("ada\0", PASSWORD),
        ("\udc80", PASSWORD),
    ],
    ids=["password", "name", "no password there", "empty", "nul", "surrogate"],
)
async def test_nobody_else_signs_in(settings: Ldap, login: str, password: str) -> None:
    assert await check(settings).sign_in(login, password) is None


async def test_an_empty_password_is_refused_although_the_server_takes_it(
    settings: Ldap, directory: Directory
) -> None:
    """RFC 4513 section 5.1.2: it would be an unauthenticated bind, good for everybody."""
    import ldap  # noqa: PLC0415 - the extra may be missing

    raw = ldap.initialize(directory.url)
    raw.simple_bind_s(f"uid=ada,{PEOPLE}", "")  # the server lets it succeed
    raw.unbind_ext()
    assert await check(settings).sign_in("ada", "") is None


@pytest.mark.parametrize(
    "login",
    ["*", "a*", "ada)(objectClass=*", "*)(|(uid=*", "ada,ou=people", "ada+cn=x", "bob)(uid=ada",
     f"x,{PEOPLE}", "\\61da", "ada\\", "ada,", "#61", " ada", "ada "],
)  # fmt: skip
async def test_a_login_name_says_nothing_but_a_name(settings: Ldap, login: str) -> None:
    """RFC 4515 section 3 and RFC 4514 section 2.4: else it could choose another entry."""
    assert await check(settings).sign_in(login, PASSWORD) is None


async def test_several_entries_for_one_name_let_nobody_in(directory: Directory) -> None:
    ambiguous = msgspec.structs.replace(
        searching(directory), filter="(|(uid={login})(cn=Bob)(sn=Eve))"
    )
    assert await check(ambiguous).sign_in("ada", PASSWORD) is None


@pytest.mark.parametrize(
    "change",
    [
        {"url": "ldaps://127.0.0.1:1"},
        {"bind_password": Secret("wrong")},
        {"ca_file": ""},
        {"base": "ou=nowhere,dc=example,dc=com"},
        {"subject": "employeeNumber"},
    ],
    ids=["not there", "our password", "certificate", "base", "no subject"],
)
async def test_what_is_no_clear_answer_is_an_outage(
    directory: Directory, change: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    broken = msgspec.structs.replace(searching(directory), **change)
    with pytest.raises(AuthUnavailable):
        await check(broken).sign_in("ada", PASSWORD)
    assert "the directory cannot be asked" in caplog.text
    assert PASSWORD not in caplog.text


async def test_starttls_checks_the_certificate(directory: Directory) -> None:
    unknown = msgspec.structs.replace(binding(directory), ca_file="")
    with pytest.raises(AuthUnavailable):
        await check(unknown).sign_in("ada", PASSWORD)


async def test_without_tls_on_this_machine_it_works_too(directory: Directory) -> None:
    plain = msgspec.structs.replace(binding(directory), security="none", ca_file="")
    assert await check(plain).sign_in("ada", PASSWORD) is not None

import pytest

from config.names import (
    acr,
    condition,
    cookie_name,
    field_name,
    field_value,
    fold,
    identity_field_name,
    ldap_dn,
    method,
    name,
    namespace,
    query_parameter,
    request_line,
    sender,
)


def test_a_name_is_plain() -> None:
    assert name("video-of.a_User1") == "video-of.a_User1"
    for bad in ("", "-a", ".a", "a b", "a/b", "é", "a\n", "a" * 101):
        with pytest.raises(ValueError, match="a name has"):
            name(bad)


def test_a_method_is_upper_case() -> None:
    assert method("GET") == "GET"
    assert method("M-SEARCH") == "M-SEARCH"
    with pytest.raises(ValueError, match="upper case: GET"):
        method("get")
    with pytest.raises(ValueError, match="never forwarded"):
        method("CONNECT")
    for bad in ("", "G T", "GET\n", "*"):
        with pytest.raises(ValueError, match="no method"):
            method(bad)


def test_a_cookie_name_is_a_token_without_prefix() -> None:
    assert cookie_name("doorward") == "doorward"
    for bad in ("", "a b", "a;b", "a=b", "__Host-a", "__secure-a", "a" * 65):
        with pytest.raises(ValueError, match=r"[a-z]"):
            cookie_name(bad)


def test_a_namespace_is_a_name_or_nothing() -> None:
    assert (namespace(""), namespace("corp")) == ("", "corp")
    with pytest.raises(ValueError, match="a name has"):
        namespace("a b")


def test_an_acr_fits_into_a_list_with_spaces_and_into_quotes() -> None:
    for good in ("mfa", "1", "urn:mace:incommon:iap:silver", "https://refeds.org/profile/mfa"):
        assert acr(good) == good
    for bad in ("", "a b", 'a"', "a\\", "a\n", "é", "x" * 257):
        with pytest.raises(ValueError, match="printable"):
            acr(bad)


def test_a_return_parameter_needs_no_encoding_and_is_no_form_field() -> None:
    assert query_parameter("return_to") == "return_to"
    for bad in ("", "a&b", "a=b", "a b", "é", "username", "password", "provider", "acr_values",
                "prompt", "again", "state", "code_challenge", "login_hint"):  # fmt: skip
        with pytest.raises(ValueError, match=r"[a-z]"):
            query_parameter(bad)


@pytest.mark.parametrize("field", ["X-Auth-Subject", "Remote-User", "X-Forwarded-User", "A"])
def test_a_field_of_ones_own_may_carry_identity(field: str) -> None:
    assert identity_field_name(field) == field


@pytest.mark.parametrize(
    "field",
    ["", "X_User", "X.User", "X User", "-X", "1X", "X:", "Xé", "X\n", "Cookie", "authorization",
     "Connection", "Host", "X-Forwarded-For", "x-forwarded-proto", "Forwarded", "X-Real-IP",
     "X-Request-Id", "Via", "Traceparent", "Transfer-Encoding", "Content-Length", "Set-Cookie",
     "X-Doorward-Error", "Sec-Fetch-Mode", "Proxy-Authorization", "Upgrade", "TE", "Keep-Alive"],
)  # fmt: skip
def test_a_managed_or_ambiguous_field_carries_no_identity(field: str) -> None:
    with pytest.raises(ValueError, match="field"):
        identity_field_name(field)


def test_fields_that_backends_cannot_tell_apart_fold_to_one() -> None:
    assert fold("x-Auth.user") == fold("X_AUTH-USER") == "X_AUTH_USER"


def test_a_field_of_a_request_is_a_token_with_a_clean_value() -> None:
    assert field_name("X_Any.thing") == "X_Any.thing"
    assert field_value("") == ""
    assert field_value("a b") == "a b"
    for bad in ("", "a b", "a:", "é", "a\n"):
        with pytest.raises(ValueError, match="no field name"):
            field_name(bad)
    for bad in (" a", "a\r\nb", "a\x00", "☃"):
        with pytest.raises(ValueError, match="field value"):
            field_value(bad)


def test_a_request_is_a_method_and_a_target() -> None:
    assert request_line("GET /a?b") == ("GET", "/a?b")
    assert request_line("PUT https://a.example/b") == ("PUT", "https://a.example/b")
    for bad in (
        "GET",
        "get /",
        "GET a",
        "GET  /a",
        "GET /a b",
        "GET /a#b",
        "GET http://u@a/",
        "/a",
    ):
        with pytest.raises(ValueError, match=r"[a-z]"):
            request_line(bad)


def test_an_empty_condition_is_refused() -> None:
    assert condition(" a ") == " a "
    with pytest.raises(ValueError, match="empty"):
        condition(" \n")


@pytest.mark.parametrize(
    "written", ["a@b", "no-reply@example.com", "Doorward <a@b.example>", "Grüße <a@b.example>"]
)
def test_a_sender_is_an_address_with_or_without_a_name(written: str) -> None:
    assert sender(written) == written


@pytest.mark.parametrize(
    "written",
    ["", "a", "a@", "@b", "a b@c", "a@b, c@d", "A <a@b>, B <c@d>", "a@b\r\nBcc: c@d", "A <a@b>\n",
     "<a@b>", "a@b@c", "x" * 250 + "@bcd.e"],
)  # fmt: skip
def test_a_sender_of_another_form_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="e-mail address"):
        sender(written)


@pytest.mark.parametrize(
    "written", ["dc=example", "CN=A B, ou=x,dc=y", "cn=a\\,b,dc=y", "2.5.4.3=a"]
)
def test_a_dn_is_attributes_and_values(written: str) -> None:
    assert ldap_dn(written) == written


@pytest.mark.parametrize("written", ["", "editors", "cn=", "cn=a,", "=a", "cn=a\n,dc=b"])
def test_a_dn_of_another_form_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="write a DN"):
        ldap_dn(written)

import json

import pytest

from auth.ports import SessionSummary
from auth.session import SessionRecord, SiteKey
from config.model import SessionSettings
from gateway.io.admin_sessions import UnusableRecordError, describe_session, new_record

NOW = 1_800_000_000.0
SETTINGS = SessionSettings(cookie_name="doorward", secure=False, absolute_timeout=3600.0)


def record(**members: object) -> SessionRecord:
    return new_record(json.dumps(members).encode(), SETTINGS, NOW)


def test_a_subject_is_enough() -> None:
    made = record(subject="u1")
    assert (made.v, made.subject) == (1, "u1")
    assert (made.created_at, made.expires_at) == (NOW, NOW + 3600)
    assert made.auth_time == NOW


def test_a_whole_record_is_taken_as_it_is() -> None:
    members = {
        "v": 1,
        "subject": "u1",
        "name": "Ann",
        "tenant": "acme",
        "roles": ["editor"],
        "groups": ["g"],
        "scopes": ["s"],
        "email": "a@example.com",
        "auth_time": NOW - 50,
        "amr": ["pwd", "otp", "mfa"],
        "acr": "mfa",
        "created_at": NOW - 10,
        "expires_at": NOW + 100,
        "claims": {"level": 3},
    }
    made = record(**members)
    described = describe_session(SessionSummary("d" * 64, made, NOW + 60))
    shown = json.loads(json.dumps(described))
    ours = {"begun_on": "", "begun_from": "", "refresh_at": 0, "sites": []}
    assert shown == {**members, **ours, "id": "d" * 64, "idle_expires_at": NOW + 60}


def test_of_other_sites_a_list_shows_the_hosts_and_not_what_opens_the_session_there() -> None:
    sites = {"b.example": SiteKey("e" * 64, b"sealed"), "a.example": SiteKey("f" * 64)}
    made = SessionRecord(1, "u1", NOW, NOW + 100, sites=sites)
    described = describe_session(SessionSummary("d" * 64, made, NOW + 60))
    assert described["sites"] == ["a.example", "b.example"]


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({}, "subject"),
        ({"subject": ""}, "subject"),
        ({"subject": "  "}, "subject"),
        ({"subject": 7}, "str"),
        ({"subject": "u1", "v": 2}, "`v`"),
        ({"subject": "u1", "role": ["admin"]}, "role"),
        ({"subject": "u1", "roles": "admin"}, "roles"),
        ({"subject": "u1", "roles": [1]}, "roles"),
        ({"subject": "u1", "claims": []}, "claims"),
        ({"subject": "u1", "roles": ["r"] * 5000}, "more than 8192 bytes"),
        ({"subject": "u1", "claims": {"x": "x" * 70_000}}, "65536 may be"),
        ({"subject": "u1", "created_at": NOW + 3600}, "created_at"),
        ({"subject": "u1", "created_at": -1}, "created_at"),
        ({"subject": "u1", "created_at": NOW * 1000}, "created_at"),
        ({"subject": "u1", "expires_at": NOW}, "expires_at"),
        ({"subject": "u1", "expires_at": (NOW + 60) * 1000}, "absolute_timeout"),
        ({"subject": "u1", "created_at": NOW - 3600}, "expires_at"),
    ],
)
def test_what_could_be_no_good_session_is_refused_and_the_member_is_named(
    members: dict[str, object], words: str
) -> None:
    with pytest.raises(UnusableRecordError, match=words):
        record(**members)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"\xff", b'{"subject":"\\ud800"}', b"[" * 5000]
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(UnusableRecordError):
        new_record(body, SETTINGS, NOW)

"""Guarded paths that are open to another method."""

from gateway.loopholes import find_loopholes
from tests.gateway.loading import BASE, snapshot_of


def notes_of(*routes: str) -> list[str]:
    lines = "".join(f"  - {{{line}, upstream: notes}}\n" for line in routes)
    table = snapshot_of(f"{BASE}routes:\n{lines}").table
    return [note.message for note in find_loopholes(table)]


GUARDED = "id: reports, match: {path: '/reports/{x}/*', methods: [GET]}, access: signed-in"
OPEN = "id: all, match: {path: /*}, access: public"


def test_a_guarded_path_whose_other_methods_go_to_a_public_route_is_noted() -> None:
    (note,) = notes_of(GUARDED, OPEN)
    assert note == (
        "note: route 'reports' takes only GET, HEAD; POST /reports/any goes to route 'all' "
        "(line 9), which is public"
    )


def test_a_path_that_is_closed_for_the_other_methods_is_not() -> None:
    rest = "id: rest, match: {path: '/reports/{y}/*'}, access: {roles: [admin]}"
    assert notes_of(GUARDED, OPEN, rest) == []
    assert notes_of(GUARDED) == []
    assert notes_of(GUARDED.replace("signed-in", "public"), OPEN) == []


def test_hosts_are_looked_at_under_a_name_of_theirs() -> None:
    guarded = GUARDED.replace("{path", "{hosts: ['*.s.example'], path")
    assert len(notes_of(guarded, OPEN)) == 1
    elsewhere = OPEN.replace("{path", "{hosts: [t.example], path")
    assert notes_of(guarded, elsewhere) == []

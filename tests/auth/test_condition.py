from time import process_time

import msgspec
import pytest

from auth.condition import PolicyError, RequestFacts, compile_condition, evaluate_condition
from auth.identity import Identity

FACTS = RequestFacts(
    method="POST", path="/a/b", host="example.com", params={"id": "7"}, headers={"x-a": "1, 2"}
)
ALICE = Identity(
    subject="alice",
    method="bearer",
    name="Alice Å",
    tenant="acme",
    email="a@example.com",
    roles=("admin",),
    groups=("g",),
    scopes=("s",),
    auth_time=1000,
    amr=("pwd", "otp"),
    issuer="https://idp.example.com",
    claims={"dept": {"name": "x"}, "levels": [1, 2], "nothing": None},
)


@pytest.mark.parametrize(
    ("expression", "verdict"),
    [
        ("request.method == 'POST' && request.path.startsWith('/a/')", True),
        ("request.host == 'example.com' && request.params.id == '7'", True),
        ("int(request.params.id) > 6", True),
        ("request.headers['x-a'] == '1, 2'", True),
        ("'x-b' in request.headers", False),
        ("identity.subject == 'alice' && identity.method == 'bearer'", True),
        ("identity.name == 'Alice Å' && identity.tenant == 'acme'", True),
        ("identity.email.endsWith('@example.com')", True),
        ("identity.issuer == 'https://idp.example.com'", True),
        ("'admin' in identity.roles && 'g' in identity.groups && 's' in identity.scopes", True),
        ("'adm' in identity.roles", False),
        ("identity.amr.exists(method, method == 'otp')", True),
        ("identity.auth_time > 999", True),
        ("identity.claims.dept.name == 'x' && 2 in identity.claims.levels", True),
        ("has(identity.claims.missing)", False),
        ("identity.claims.nothing == null", True),
        ("request.path.matches('^/a/[a-z]$')", True),
        ("dyn(1)", None),
        ("identity.claims.dept", None),
        ("identity.claims.missing == 'x'", None),
        ("request.params.none == 'x'", None),
        ("1 / int(request.params.id) == 0 && 1 / 0 == 1", None),
        ("request.params.id.matches(request.headers['x-a'] + '[')", None),
    ],
)
def test_a_condition_holds_or_does_not_or_fails(expression: str, *, verdict: bool | None) -> None:
    assert evaluate_condition(compile_condition(expression), ALICE, FACTS) is verdict


@pytest.mark.parametrize(
    ("expression", "column", "message"),
    [
        ("request.parms.user == 'a'", 1, "no request.parms.user; did you mean request.params?"),
        ("true && identity.role == 'a'", 9, "no identity.role; did you mean identity.roles?"),
        ("true &&\n  foo", 11, "there is no foo"),
        ("request", 1, "it has method, path, host, params, headers"),
        ("request.method = 'GET'", 16, "Syntax error"),
        ("request.method == 'GET' and true", 25, "Syntax error: mismatched input 'and'"),
        ("request.method == 1", 16, "no matching overload"),
        ("identity.roles == 'admin'", 16, "no matching overload"),
        ("'a'", 1, "must be true or false, this is string"),
        ("identity.roles", 1, "must be true or false, this is list"),
        ("", 1, "Syntax error"),
        ("'é' == 'é' && nobody", 15, "there is no nobody"),
        ("request.path.matches('[')", 1, "invalid regular expression: missing ]"),
        ("(" * 400 + "true" + ")" * 400, 1, "nested too deeply"),
        ("1 + " * 2000 + "1 == 1", 1, "cannot be read"),
        ("'" + "a" * 9000 + "' == 'b'", 1, "longer than"),
    ],
)
def test_a_condition_that_cannot_be_right_is_an_error_with_its_column(
    expression: str, column: int, message: str
) -> None:
    with pytest.raises(PolicyError) as error:
        compile_condition(expression)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.column == column


@pytest.mark.parametrize(
    ("expression", "identity"),
    [
        ("identity.subject == 'admin'", Identity("admin\0x")),
        ("'admin' in identity.roles", Identity("a", roles=("admin\0x",))),
        ("identity.claims.role == 'admin'", Identity("a", claims={"role": "admin\0x"})),
        ("identity.claims.r.s == 'admin'", Identity("a", claims={"r": {"s\0": 1, "s": "admin"}})),
        ("identity.subject == 'a' || true", Identity("a\ud800")),
    ],
)
def test_a_text_that_the_runtime_would_cut_never_reaches_it(
    expression: str, identity: Identity
) -> None:
    """CEL's runtime ends a text at NUL: `admin\\0x` compares equal to `admin`."""
    assert evaluate_condition(compile_condition(expression), identity, FACTS) is None


def test_a_pattern_that_backtracks_elsewhere_is_quick() -> None:
    condition = compile_condition("request.path.matches('(a+)+$')")
    facts = RequestFacts("GET", "/" + "a" * 30_000 + "!", "h", {}, {})
    assert evaluate_condition(condition, ALICE, facts) is False


def test_a_condition_that_goes_over_lists_in_lists_gives_up_and_denies() -> None:
    """A member of 300 groups would otherwise hold the loop for 27 million steps a request."""
    condition = compile_condition(
        "identity.groups.all(a, identity.groups.all(b, identity.groups.all(c, a + b + c != '')))"
    )
    few = Identity("u1", groups=tuple("abc"))
    many = Identity("u1", groups=tuple(f"group-{number}" for number in range(300)))
    assert evaluate_condition(condition, few, FACTS) is True
    began = process_time()
    assert evaluate_condition(condition, many, FACTS) is None
    assert process_time() - began < 1.0  # milliseconds; all of them would take a minute


@pytest.mark.parametrize("claims", [{"x": 2**70}, {"x": object()}, {"x": ("a",)}, {1: 2}])
def test_a_claim_of_a_type_that_cel_does_not_know_denies(claims: dict[str, object]) -> None:
    identity = Identity("a", claims=claims)
    assert evaluate_condition(compile_condition("identity.claims.x == 1"), identity, FACTS) is None


def test_what_a_condition_came_to_is_remembered_for_the_very_values_it_read() -> None:
    condition = compile_condition("request.params.user == identity.subject")
    mine, theirs = (msgspec.structs.replace(FACTS, params={"user": name}) for name in "ab")
    someone = Identity("a")
    for _ in range(2):
        assert evaluate_condition(condition, someone, mine) is True
        assert evaluate_condition(condition, someone, theirs) is False
        assert evaluate_condition(condition, Identity("b"), mine) is False
    assert len(condition.known) == 3


def test_a_condition_that_failed_is_asked_again() -> None:
    condition = compile_condition("identity.claims.dept")
    assert evaluate_condition(condition, ALICE, FACTS) is None
    assert not condition.known


def test_what_conditions_remember_is_bounded() -> None:
    condition = compile_condition("request.path == '/'")
    for number in range(5000):
        evaluate_condition(condition, ALICE, msgspec.structs.replace(FACTS, path=f"/{number}"))
    assert 0 < len(condition.known) <= 4096
    known = len(condition.known)
    evaluate_condition(condition, ALICE, msgspec.structs.replace(FACTS, path="/" * 1000))
    assert len(condition.known) == known

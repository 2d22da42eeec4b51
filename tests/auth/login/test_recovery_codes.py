"""Codes for whoever lost their phone."""

import re

from auth.login.recovery_codes import HOW_MANY, code_digest, new_codes


def test_codes_are_many_and_hard_to_guess() -> None:
    codes = {code for _ in range(100) for code in new_codes()}
    assert len(codes) == 100 * HOW_MANY
    for code in codes:
        assert re.fullmatch(r"(?:[a-z2-7]{4}-){3}[a-z2-7]{4}", code)  # 16 x 5 bits


def test_a_code_may_be_typed_in_any_way() -> None:
    code = new_codes()[0]
    digest = code_digest("u1", code)
    for typed in (code.upper(), code.replace("-", ""), f"  {code.replace('-', ' ')} "):
        assert code_digest("u1", typed) == digest


def test_a_code_is_one_accounts_own() -> None:
    code = new_codes()[0]
    assert code_digest("u1", code) != code_digest("u2", code)
    assert code_digest("u1", code) != code_digest("u1", code[:-1])

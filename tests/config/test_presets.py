from config.names import fold, identity_field_name
from config.presets import ADDED_BY_INCLUDE, PRESETS


def test_every_preset_tells_who_in_fields_that_are_allowed() -> None:
    for name, fields in PRESETS.items():
        assert "subject" in dict(fields).values() or fields[0][1] == "subject", name
        for field, _ in fields:
            assert identity_field_name(field) == field


def test_no_preset_has_two_fields_that_fold_to_one() -> None:
    for fields in (*PRESETS.values(), (*PRESETS["standard"], *ADDED_BY_INCLUDE.values())):
        folded = [fold(field) for field, _ in (*fields, ("X-Auth-Assertion", ""))]
        assert len(set(folded)) == len(folded)


def test_personal_data_is_not_in_the_standard_set() -> None:
    assert {part for _, part in PRESETS["standard"]}.isdisjoint({"name", "email", "groups"})

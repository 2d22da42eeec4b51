import pytest

from gateway.io.preflight import Runtime, runtime_problems, this_runtime


def test_what_the_lock_file_installs_is_good_enough() -> None:
    assert runtime_problems(this_runtime()) == []


@pytest.mark.parametrize(
    ("runtime", "words"),
    [
        (Runtime(optimized=True, uvloop_version="0.23.0", c_parser=True), "python -O"),
        (Runtime(optimized=False, uvloop_version="0.22.1", c_parser=True), "uvloop 0.22.1"),
        (Runtime(optimized=False, uvloop_version="0.9.1", c_parser=True), "uvloop 0.9.1"),
        (Runtime(optimized=False, uvloop_version="0.23.0", c_parser=False), "C parser"),
    ],
    ids=["optimized", "uvloop", "uvloop-single-digit", "parser"],
)
def test_an_unsafe_runtime_is_refused_with_advice(runtime: Runtime, words: str) -> None:
    (problem,) = runtime_problems(runtime)
    assert words in problem


def test_newer_versions_of_uvloop_are_welcome() -> None:
    assert not runtime_problems(Runtime(optimized=False, uvloop_version="1.0.0", c_parser=True))

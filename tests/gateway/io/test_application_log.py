import logging

from gateway.io.application_log import LineFormatter


def record(message: str, *arguments: object) -> logging.LogRecord:
    return logging.LogRecord("a.b", logging.WARNING, __file__, 1, message, arguments, None)


def test_a_message_cannot_forge_a_second_line() -> None:
    line = LineFormatter().format(record("user %s", "eve\ntime=now level=info message=\x1b[0m"))
    assert "\n" not in line
    assert "\x1b" not in line


def test_a_line_says_when_how_grave_and_where() -> None:
    line = LineFormatter().format(record("it broke"))
    assert " level=warning logger=a.b " in line
    assert line.startswith("time=20")
    assert line.endswith('message="it broke"')

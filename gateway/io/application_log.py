"""The application log: short lines on stderr, `key=value`, safe whatever is in a message."""

import json
import logging
import sys
import time


class LineFormatter(logging.Formatter):
    """One line a record; the message is quoted, so that nobody can forge a second line.

    Only a traceback takes lines of its own.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of *record*."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        message = json.dumps(record.getMessage(), ensure_ascii=False)
        line = (
            f"time={moment}.{int(record.msecs):03d}Z level={record.levelname.lower()} "
            f"logger={record.name} process={record.process} message={message}"
        )
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return line


def start_logging(level: int = logging.INFO) -> None:
    """Send everything from *level* on to stderr; aiohttp's own access log stays off."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)

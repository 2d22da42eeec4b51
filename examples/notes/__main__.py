"""Run the example: `python -m examples.notes --listen 127.0.0.1:9001`."""

import argparse
from pathlib import Path

from aiohttp import web

from .service import make_application


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="examples.notes", description=__doc__)
    parser.add_argument("--listen", default="127.0.0.1:9001", metavar="HOST:PORT")
    parser.add_argument("--data", default=":memory:", metavar="FILE", help="SQLite file")
    arguments = parser.parse_args()
    host, _, port = arguments.listen.rpartition(":")
    if arguments.data != ":memory:":
        Path(arguments.data).parent.mkdir(parents=True, exist_ok=True)
    web.run_app(make_application(arguments.data), host=host, port=int(port), print=None)


if __name__ == "__main__":
    main()

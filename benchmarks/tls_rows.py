"""What TLS costs: on connections that are kept, and for a handshake."""

import ssl
import statistics
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmarks import peers
from benchmarks.measure import (
    PROXY_CORE,
    cpu_seconds,
)
from benchmarks.peers import COOKIE
from benchmarks.row import (
    HEAD,
    PATH,
    ROUTES,
    SIGNED_IN,
    USUAL,
    Asked,
    Effort,
    Row,
    client,
    costs,
    gateway,
)
from benchmarks.stage import Stage, running, wait_for, wait_until_it_answers


def tls(stage: Stage, effort: Effort) -> Iterator[Row]:
    """TLS on kept connections against plain, full handshakes against nginx."""
    directory = stage.ground().directory
    directory.mkdir(parents=True)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", str(directory / "key.pem"), "-out", str(directory / "cert.pem")],
        check=True, capture_output=True,
    )  # fmt: skip
    more = (
        f"  tls: {{certificates: [{{cert_file: {directory}/cert.pem, "
        f"key_file: {directory}/key.pem}}]}}"
    )
    cookie = {"Cookie": f"__Host-doorward={COOKIE}"}
    with (
        gateway(stage, HEAD + ROUTES, **USUAL) as plain,
        gateway(stage, HEAD + ROUTES, **{**USUAL, "scheme": "https", "more": more}) as secure,
        _nginx_tls(stage, directory) as theirs,
    ):
        wait_until_it_answers(f"http://127.0.0.1:{plain[0]}{PATH}", SIGNED_IN)
        _wait_for_tls(secure[0], cookie)
        kept = costs(
            [
                Asked(*plain, PATH, SIGNED_IN),
                Asked(*secure, PATH, cookie, scheme="https"),
            ],
            effort,
        )
        closing = {"Connection": "close"}
        resumed = costs(
            [
                Asked(*secure, "/public/x", closing, scheme="https"),
                Asked(*theirs, "/public/x", closing, scheme="https"),
            ],
            effort,
        )
        full = _handshakes([secure, theirs], effort)
    yield Row("TLS on kept connections / plain", kept[1] / kept[0], "x", 1.6)
    for name, cost in (("full TLS handshake", full), ("resumed TLS handshake", resumed)):
        note = (
            f"TLS 1.3, {cost[0]:.0f} µs and {cost[1]:.0f} µs, with the request and the connection"
        )
        yield Row(f"{name} / nginx", cost[0] / cost[1], "x", 1.5, note=note)


def _handshakes(sides: list[tuple[int, int]], effort: Effort) -> list[float]:
    """Return for each side its CPU µs a connection with a full handshake and one request."""
    taken: list[list[float]] = [[] for _ in sides]
    for _ in range(effort.rounds):
        for (port, pid), samples in zip(sides, taken, strict=True):
            before = cpu_seconds(pid)
            result = client("handshakes", port=port, path="/public/x", seconds=effort.seconds,
                            threads=4)  # fmt: skip
            samples.append((cpu_seconds(pid) - before) / result["handshakes"] * 1e6)
    return [statistics.median(samples) for samples in taken]


def _wait_for_tls(port: int, fields: Mapping[str, str]) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # self-signed, on loopback
    url = f"https://127.0.0.1:{port}{PATH}"
    for _ in range(100):
        request = urllib.request.Request(url, headers=dict(fields))
        try:
            with urllib.request.urlopen(request, timeout=2, context=context):  # noqa: S310 - the same
                return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f"no good answer from {url}")


@contextmanager
def _nginx_tls(stage: Stage, certificates: Path) -> Iterator[tuple[int, int]]:
    ground = stage.ground()
    command = peers.nginx_command(
        ground, "", listen="ssl",
        server=f"ssl_protocols TLSv1.2 TLSv1.3; ssl_certificate {certificates}/cert.pem;\n"
        f"    ssl_certificate_key {certificates}/key.pem;",
    )  # fmt: skip
    with running(command, PROXY_CORE, ground.directory / "log") as pid:
        wait_for(ground.port)
        yield ground.port, pid

"""What the examples and reference pages promise, held against the code."""

import re
from pathlib import Path

import pytest
import yaml

from config.model import Configuration
from config.reading import read_configuration
from gateway.io.metrics import FAMILIES
from gateway.io.supervisor import RunSettings
from gateway.snapshot import Snapshot, build_snapshot

ROOT = Path(__file__).parent.parent
KUBERNETES = ROOT / "deploy" / "kubernetes" / "doorward.yaml"
COMPOSE = ROOT / "deploy" / "compose"


def kubernetes_routes() -> str:
    documents = list(yaml.safe_load_all(KUBERNETES.read_text()))
    text = documents[0]["data"]["routes.yaml"]
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize(
    "text",
    [kubernetes_routes(), (COMPOSE / "routes.yaml").read_text()],
    ids=["kubernetes", "compose"],
)
def test_the_route_files_of_the_examples_go_live(text: str) -> None:
    configuration = read_configuration(
        text,
        environment={"DOORWARD_ADMIN_TOKEN": "0123456789abcdef" * 4},
        read_file=lambda path: path,
        base_dir="/",
    )
    assert isinstance(configuration, Configuration), configuration
    assert isinstance(build_snapshot(configuration, 1), Snapshot)


def test_kubernetes_probes_and_gives_time_to_drain() -> None:
    deployment = next(
        document
        for document in yaml.safe_load_all(KUBERNETES.read_text())
        if document["kind"] == "Deployment"
    )
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    probes = {name: container[name]["httpGet"]["path"] for name in container if "Probe" in name}
    assert probes == {
        "startupProbe": "/readyz",
        "readinessProbe": "/readyz",
        "livenessProbe": "/healthz",
    }
    drain = RunSettings(Path("x"), Path("x")).drain_seconds
    assert pod["terminationGracePeriodSeconds"] >= drain + 10


def test_systemd_signals_the_supervisor_alone_and_waits_for_the_drain() -> None:
    unit = (ROOT / "deploy" / "systemd" / "doorward.service").read_text()
    assert "KillMode=mixed" in unit
    patience = re.search(r"TimeoutStopSec=(\d+)", unit)
    assert patience is not None
    assert int(patience[1]) > RunSettings(Path("x"), Path("x")).drain_seconds


def test_compose_waits_for_the_drain_and_shows_only_the_gateways() -> None:
    services = yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"]
    assert [name for name in services if "ports" in services[name]] == ["gateway-a", "gateway-b"]
    assert services["gateway-a"]["stop_grace_period"] == "45s"
    assert "noeviction" in services["store"]["command"]


def test_every_metric_is_in_the_reference_with_its_labels() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    documented = {
        row[0]: (row[1], row[2])
        for row in re.findall(r"^\| `(doorward_\w+)` \| (\w+) \| (.*?) \|", page, re.MULTILINE)
    }
    for name, family in FAMILIES.items():
        full = f"doorward_{name}" + ("_total" if family.kind == "counter" else "")
        kind, labels = documented.pop(full)
        assert kind == family.kind.removesuffix("_max")
        assert re.findall(r"`(\w+)`", labels) == list(family.labels)
    assert not documented

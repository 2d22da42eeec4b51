import msgspec
import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import CollectorRegistry

from gateway.events import ExchangeFinished
from gateway.io.metrics import (
    FAMILIES,
    LAG_BOUNDS,
    Counters,
    Measurement,
    MeasurementCollector,
    Totals,
    add_store_numbers,
    add_up,
    key,
)


def event(**changes: object) -> ExchangeFinished:
    known = {"route": "notes", "upstream": "notes", "status": 200, "decision": "allow"}
    known |= {"reason": "allowed", "duration": 0.02, "bytes_in": 5, "bytes_out": 7}
    return msgspec.convert({"started_at": 0.0, **known, **changes}, ExchangeFinished)


def exposed(measurement: Measurement) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    registry = CollectorRegistry()
    registry.register(MeasurementCollector(measurement))
    text = generate_latest(registry).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_requests_are_counted_by_route_status_class_and_decision() -> None:
    counters = Counters()
    counters(event())
    counters(event(status=204))
    counters(event(status=403, decision="deny", reason="role_missing", upstream=""))
    samples = exposed(counters.measurement())
    assert (
        samples[
            "doorward_requests_total",
            (("decision", "allow"), ("route", "notes"), ("status_class", "2xx")),
        ]
        == 2
    )
    assert (
        samples[
            "doorward_requests_total",
            (("decision", "deny"), ("route", "notes"), ("status_class", "4xx")),
        ]
        == 1
    )
    assert samples["doorward_decisions_total", (("reason", "role_missing"),)] == 1
    assert samples["doorward_request_bytes_total", ()] == 15
    assert samples["doorward_response_bytes_total", ()] == 21


@pytest.mark.parametrize(
    ("duration", "first_bucket"),
    [(0.0, "0.001"), (0.001, "0.001"), (0.0011, "0.0025"), (30.0, "30.0"), (31.0, "+Inf")],
)
def test_a_duration_counts_in_every_bucket_from_its_own_on(
    duration: float, first_bucket: str
) -> None:
    counters = Counters()
    counters(event(duration=duration))
    samples = exposed(counters.measurement())
    bounds = [*map(str, FAMILIES["request_duration_seconds"].bounds), "+Inf"]
    for bound in bounds:
        expected = 1 if bounds.index(bound) >= bounds.index(first_bucket) else 0
        labels = (("le", bound), ("upstream", "notes"))
        assert samples["doorward_request_duration_seconds_bucket", labels] == expected
    assert samples["doorward_request_duration_seconds_sum", (("upstream", "notes"),)] == duration


def test_an_upgraded_connection_says_nothing_about_durations() -> None:
    counters = Counters()
    counters(event(status=101, duration=3600.0))
    assert counters.measurement().histograms == {}


def test_what_an_upstream_spoils_is_counted_by_upstream_and_error() -> None:
    counters = Counters()
    counters(event(status=502, error="upstream_unreachable"))
    counters(event(status=404, upstream="", error="no_route"))
    numbers = counters.measurement().numbers
    assert numbers[key("upstream_errors", "notes", "upstream_unreachable")] == 1
    assert not [name for name in numbers if "no_route" in name]


def test_workers_are_summed_and_the_worst_lease_counts() -> None:
    one = Measurement({"connections": 2.0, "lease_age_seconds": 0.1}, {"h": [1.0, 0.0, 0.5]})
    two = Measurement({"connections": 3.0, "lease_age_seconds": 0.4}, {"h": [0.0, 2.0, 5.0]})
    total = add_up((one, two))
    assert total.numbers == {"connections": 5.0, "lease_age_seconds": 0.4}
    assert total.histograms == {"h": [1.0, 2.0, 5.5]}
    assert one.histograms == {"h": [1.0, 0.0, 0.5]}


def test_no_counter_goes_down_when_a_worker_dies() -> None:
    totals = Totals()
    totals.take(1, Measurement({"request_bytes": 10.0, "connections": 4.0}, {"h": [1.0]}))
    totals.take(2, Measurement({"request_bytes": 1.0, "connections": 1.0}, {}))
    totals.retire(1)
    totals.take(3, Measurement({"request_bytes": 2.0, "connections": 0.0}, {"h": [2.0]}))
    total = totals.total()
    assert total.numbers["request_bytes"] == 13.0
    assert total.numbers["connections"] == 1.0
    assert total.histograms == {"h": [3.0]}


def test_every_metric_has_the_prefix_and_those_without_labels_are_never_missing() -> None:
    samples = exposed(Measurement({}, {}))
    assert all(name.startswith("doorward_") for name, _ in samples)
    for name, family in FAMILIES.items():
        if not family.labels and family.kind != "histogram":
            suffix = "_total" if family.kind == "counter" else ""
            assert (f"doorward_{name}{suffix}", ()) in samples


def test_each_shard_has_its_own_numbers_and_a_cluster_makes_no_more_than_a_hundred_labels() -> None:
    measurement = Measurement({}, {})
    shards: dict[str, dict[str, object]] = {
        f"10.0.0.1:{port}": {"connected": True, "lease_age": 0.1} for port in range(7000, 7200)
    }
    shards["10.0.0.1:7001"] = {"connected": False, "lease_age": None}
    add_store_numbers(measurement, {"by_shard": shards}, [0.0] * (len(LAG_BOUNDS) + 2))
    samples = exposed(measurement)
    connected = {
        labels[0][1]: value
        for (name, labels), value in samples.items()
        if name == "doorward_store_shard_connected"
    }
    assert len(connected) == 100
    assert (connected["10.0.0.1:7000"], connected["10.0.0.1:7001"]) == (1, 0)
    age = "doorward_store_shard_lease_age_seconds"
    assert samples[age, (("shard", "10.0.0.1:7000"),)] == 0.1
    assert (age, (("shard", "10.0.0.1:7001"),)) not in samples

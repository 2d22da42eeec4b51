"""What is counted: plain numbers in each worker, summed and exposed by the supervisor.

How this works: `Counters`, an observer in the worker, does a few dictionary look-ups per exchange.
At scrape time each worker turns its numbers into a `Measurement`, whose keys are a family and its
label values; so a sum is a sum of dictionaries, whatever is in them. `Totals` adds up the workers,
and keeps what a dead worker had last reported, so that no counter ever goes down. `FAMILIES` says
how each family is exposed; `docs/metrics.md` is checked against it.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import msgspec
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from gateway.events import ExchangeFinished

DURATION_BOUNDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1),
    *(0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
"""Upper bounds in seconds: from a small answer next door to the default response timeout."""

_BUCKETS = len(DURATION_BOUNDS) + 1
_SUM, _BYTES_IN, _BYTES_OUT = range(_BUCKETS, _BUCKETS + 3)

LAG_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Upper bounds in seconds, as `auth.io.reader.Lag` has them; the default lease is 500 ms."""

SEPARATOR = "\x1f"
"""Between a family and its label values in a key; no route id or code contains it."""


class Family(msgspec.Struct, frozen=True):
    """How one metric is exposed; its name gets the prefix `doorward_`."""

    kind: Literal["counter", "gauge", "gauge_max", "histogram"]
    """`gauge_max`: the worst worker counts, not the sum."""
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


FAMILIES: Mapping[str, Family] = {
    "requests": Family("counter", "Requests that ended.", ("route", "status_class", "decision")),
    "decisions": Family(
        "counter", "Access decisions and refusals by reason (docs/reasons.md).", ("reason",)
    ),
    "request_duration_seconds": Family(
        "histogram",
        "From the request head to the last byte; without upgraded connections.",
        ("upstream",),
        DURATION_BOUNDS,
    ),
    "upstream_errors": Family(
        "counter", "Exchanges that an upstream spoiled.", ("upstream", "error")
    ),
    "request_bytes": Family("counter", "Bytes of content received from clients."),
    "response_bytes": Family("counter", "Bytes of content sent to clients."),
    "connections": Family("gauge", "Open client connections."),
    "connections_refused": Family("counter", "Client connections over a limit, turned away."),
    "requests_shed": Family("counter", "Requests refused because a worker was overloaded."),
    "upstream_connections": Family("gauge", "Open connections to upstreams."),
    "session_cache_entries": Family("gauge", "Sessions held in memory."),
    "session_cache_hits": Family("counter", "Session look-ups answered under a lease."),
    "session_cache_misses": Family("counter", "Session look-ups that asked the store."),
    "session_cache_evictions": Family("counter", "Sessions dropped to make room."),
    "session_cache_flushes": Family("counter", "Times that all held sessions were dropped."),
    "invalidations": Family("counter", "Invalidations received from the store."),
    "invalidation_lag_seconds": Family(
        "histogram", "From the ending of a session until a worker knew.", (), LAG_BOUNDS
    ),
    "sessions_malformed": Family("counter", "Records in the store that are no session."),
    "sessions_served_cached": Family("counter", "Requests admitted by `on_store_outage`."),
    "store_connection_losses": Family("counter", "Times that the store connection broke."),
    "sessions_ended": Family("counter", "Endings of sessions that workers were told of."),
    "sessions_expired": Family("counter", "Sessions that ended unused or in time, and were told."),
    "logout_deliveries": Family(
        "counter",
        "Notices of ended sessions: delivered, failed (and tried again), expired undelivered.",
        ("upstream", "result"),
    ),
    "letters": Family(
        "counter",
        "Letters to people: sent, failed (and tried again), given up, or for nobody.",
        ("kind", "result"),
    ),
    "store_connected": Family("gauge", "Workers whose store connection holds a lease."),
    "lease_age_seconds": Family("gauge_max", "Age of the oldest worker's lease on the store."),
    "store_shard_connected": Family(
        "gauge", "Workers that are connected to this primary of a cluster.", ("shard",)
    ),
    "store_shard_lease_age_seconds": Family(
        "gauge_max", "Age of the oldest worker's lease of this primary of a cluster.", ("shard",)
    ),
    "access_log_dropped": Family("counter", "Access log lines lost to a slow or broken sink."),
    "workers": Family("gauge", "Workers that serve."),
    "worker_restarts": Family("counter", "Workers that died and were replaced."),
    "config_generation": Family("gauge", "Number of the configuration that is live."),
    "config_last_reload_ok": Family("gauge", "1 if the last reload went live, 0 if refused."),
    "reloads": Family("counter", "Reloads that went live."),
    "reload_failures": Family("counter", "Reloads that were refused; the log says why."),
    "build_info": Family("gauge", "Always 1.", ("version", "python", "aiohttp")),
}


class Measurement(msgspec.Struct):
    """The numbers of one process. A key is a family and its label values, see `key`."""

    numbers: dict[str, float] = {}
    histograms: dict[str, list[float]] = {}
    """Count per bucket (the last has no bound), then the sum."""


def key(family: str, *labels: str) -> str:
    """Return the key of *family* with these label values in a `Measurement`."""
    return SEPARATOR.join((family, *labels))


class Counters:
    """The hot side: an observer of exchanges."""

    def __init__(self) -> None:
        self._counted: dict[tuple[str, str, int, str, str], list[float]] = {}
        """By route, upstream, status class, decision and reason: the buckets of the durations (the
        last has no bound), then their sum, bytes in, bytes out."""
        self._errors: dict[tuple[str, str], int] = {}

    def __call__(self, event: ExchangeFinished) -> None:
        """Count *event*."""
        duration, times = event.duration, event.times
        kind = (event.route, event.upstream, event.status // 100, event.decision, event.reason)
        counts = self._counted.get(kind)
        if counts is None:
            counts = self._counted[kind] = [0.0] * (_BUCKETS + 3)
        counts[bisect_left(DURATION_BOUNDS, duration)] += times
        counts[_SUM] += duration * times
        counts[_BYTES_IN] += event.bytes_in
        counts[_BYTES_OUT] += event.bytes_out
        if event.error and event.upstream:
            error = (event.upstream, event.error)
            self._errors[error] = self._errors.get(error, 0) + times

    def measurement(self) -> Measurement:
        """Return what has been counted so far."""
        numbers = defaultdict[str, float](float, request_bytes=0.0, response_bytes=0.0)
        durations: dict[str, list[float]] = {}
        for (route, upstream, status_class, decision, reason), counts in self._counted.items():
            count = sum(counts[:_BUCKETS])
            numbers[key("requests", route, f"{status_class}xx", decision)] += count
            if reason:
                numbers[key("decisions", reason)] += count
            numbers["request_bytes"] += counts[_BYTES_IN]
            numbers["response_bytes"] += counts[_BYTES_OUT]
            # An upgraded connection lasts for hours and would say nothing about requests.
            if status_class != 1:
                name = key("request_duration_seconds", upstream)
                before = durations.get(name, [0.0] * (_BUCKETS + 1))
                durations[name] = [a + b for a, b in zip(before, counts, strict=False)]
        for (upstream, error), errors in self._errors.items():
            numbers[key("upstream_errors", upstream, error)] = errors
        return Measurement(dict(numbers), durations)


_STORE_NUMBERS = {
    "entries": "session_cache_entries",
    "hits": "session_cache_hits",
    "misses": "session_cache_misses",
    "evictions": "session_cache_evictions",
    "flushes": "session_cache_flushes",
    "invalidations": "invalidations",
    "malformed": "sessions_malformed",
    "served_cached": "sessions_served_cached",
    "connection_losses": "store_connection_losses",
    "connected": "store_connected",
    "lease_age": "lease_age_seconds",
}
"""What `RedisSessionStore.status` calls it, and the family."""

_SHARD_NUMBERS = {
    "connected": "store_shard_connected",
    "lease_age": "store_shard_lease_age_seconds",
}
_MOST_SHARDS = 100
"""Labels that a cluster may make; those of servers that are gone leave with them."""


def add_store_numbers(
    measurement: Measurement, status: Mapping[str, object], lag: list[float]
) -> None:
    """Add to *measurement* what the session store says of itself.

    *lag* is the histogram of how late endings arrived: counts per bucket, then the sum.
    """
    for name, family in _STORE_NUMBERS.items():
        number = status.get(name)
        if isinstance(number, int | float):
            measurement.numbers[family] = float(number)
    shards = status.get("by_shard")
    if isinstance(shards, dict):
        for shard in sorted(shards)[:_MOST_SHARDS]:
            for name, family in _SHARD_NUMBERS.items():
                number = shards[shard].get(name)
                if isinstance(number, int | float):
                    measurement.numbers[key(family, shard)] = float(number)
    measurement.histograms["invalidation_lag_seconds"] = lag


def _kind(family_key: str) -> str:
    family = FAMILIES.get(family_key.partition(SEPARATOR)[0])
    return family.kind if family else ""


def add_up(measurements: Iterable[Measurement]) -> Measurement:
    """Return the sum (for a `gauge_max`, the maximum) of *measurements*."""
    total = Measurement({}, {})
    for measurement in measurements:
        for name, number in measurement.numbers.items():
            before = total.numbers.get(name, 0.0)
            worst = _kind(name) == "gauge_max"
            total.numbers[name] = max(before, number) if worst else before + number
        for name, counts in measurement.histograms.items():
            sums = total.histograms.get(name)
            total.histograms[name] = (
                [a + b for a, b in zip(sums, counts, strict=True)] if sums else list(counts)
            )
    return total


class Totals:
    """The numbers of all workers, those that died included."""

    def __init__(self) -> None:
        self._retired = Measurement({}, {})
        self._latest: dict[int, Measurement] = {}

    def take(self, worker: int, measurement: Measurement) -> None:
        """Remember the newest *measurement* of the process with the id *worker*."""
        self._latest[worker] = measurement

    def retire(self, worker: int) -> None:
        """Keep the counters of a process that is gone, and none of its gauges."""
        last = self._latest.pop(worker, None)
        if last is not None:
            counted = {k: n for k, n in last.numbers.items() if _kind(k) == "counter"}
            self._retired = add_up((self._retired, Measurement(counted, last.histograms)))

    def total(self) -> Measurement:
        """Return the sum over every process there is or was."""
        return add_up((self._retired, *self._latest.values()))


class MeasurementCollector(Collector):
    """Exposes one `Measurement` in Prometheus' model; made for one scrape."""

    def __init__(self, measurement: Measurement) -> None:
        self._measurement = measurement

    def collect(self) -> Iterator[Metric]:
        """Yield every family, with its samples; a family without labels is never missing."""
        numbers: dict[str, list[tuple[list[str], float]]] = {}
        for name, number in self._measurement.numbers.items():
            family, *labels = name.split(SEPARATOR)
            numbers.setdefault(family, []).append((labels, number))
        histograms: dict[str, list[tuple[list[str], list[float]]]] = {}
        for name, counts in self._measurement.histograms.items():
            family, *labels = name.split(SEPARATOR)
            histograms.setdefault(family, []).append((labels, counts))
        for name, family_of in FAMILIES.items():
            if family_of.kind == "histogram":
                yield _histogram(name, family_of, histograms.get(name, []))
            else:
                empty: list[tuple[list[str], float]] = [] if family_of.labels else [([], 0.0)]
                yield _plain(name, family_of, numbers.get(name, empty))


def _plain(name: str, family: Family, samples: list[tuple[list[str], float]]) -> Metric:
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = kind(f"doorward_{name}", family.help, labels=family.labels)
    for labels, number in samples:
        metric.add_metric(labels, number)
    return metric


def _histogram(name: str, family: Family, samples: list[tuple[list[str], list[float]]]) -> Metric:
    metric = HistogramMetricFamily(f"doorward_{name}", family.help, labels=family.labels)
    for labels, counts in samples:
        running = 0.0
        buckets = []
        for bound, count in zip((*family.bounds, float("inf")), counts[:-1], strict=True):
            running += count
            buckets.append(("+Inf" if bound == float("inf") else str(bound), running))
        metric.add_metric(labels, buckets, sum_value=counts[-1])
    return metric

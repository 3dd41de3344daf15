"""Prometheus: families made at scrape time from the status, by the table of metrics."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector, CollectorRegistry

from penstock.metrics import METRICS, Metric
from penstock.web.status import GatewayState, ServiceState, Status

CONTENT_TYPE = CONTENT_TYPE_LATEST.removesuffix("; charset=utf-8")
Sample = tuple[tuple[str, ...], float]


class StatusCollector(Collector):
    """One status as metric families. Never a key of a record as a label."""

    def __init__(self, status: Status) -> None:
        self._samples = {f"penstock_{name}": found for name, found in samples(status).items()}

    def collect(self) -> Iterator[Family]:
        """Every family of the table, those without samples included."""
        for metric in METRICS:
            yield _family(metric, self._samples[metric.name])


def _family(metric: Metric, found: list[Sample]) -> Family:
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.meaning, labels=metric.labels)
    for labels, value in found:
        family.add_metric(labels, value)
    return family


def samples(status: Status) -> dict[str, list[Sample]]:
    """The samples of every metric, by its name without the prefix."""
    return {**_of_topics(status), **_of_services(status), **_of_intake(status)}


def _of_topics(status: Status) -> dict[str, list[Sample]]:
    places = [((g.service, g.topic, str(g.partition)), g) for g in status.gaps]
    parts = [
        ((topic.topic, str(partition)), extent)
        for topic in status.topics
        for partition, extent in enumerate(topic.extents)
    ]
    return {
        "consumer_lag_messages": [(at, gap.messages) for at, gap in places],
        "consumer_oldest_unread_age_seconds": [(at, g.oldest_age_seconds) for at, g in places],
        "topic_next_offset": [(at, extent.next) for at, extent in parts],
        "topic_first_offset": [(at, extent.first) for at, extent in parts],
    }


def _of_services(status: Status) -> dict[str, list[Sample]]:
    def each(field: str) -> list[Sample]:
        return [((s.service,), float(getattr(s, field))) for s in status.services]

    gateways = [
        ((s.service, name), gateway) for s in status.services for name, gateway in _asked(s)
    ]
    return {
        "records_handled_total": each("handled"),
        "records_duplicate_total": each("duplicates"),
        "records_retried_total": each("retried"),
        "records_parked_total": each("parked_total"),
        "waiting_records": each("waiting"),
        "deadletters_open_records": each("parked"),
        "service_up": each("running"),
        "service_stopped": [((s.service,), float(bool(s.stopped))) for s in status.services],
        "gateway_breaker_open": [(at, float(g.state != "closed")) for at, g in gateways],
        "gateway_open_asks": [(at, float(g.open_rows)) for at, g in gateways],
    }


def _asked(service: ServiceState) -> list[tuple[str, GatewayState]]:
    return list(service.gateways.items())


def _of_intake(status: Status) -> dict[str, list[Sample]]:
    intake = status.intake
    return {
        "intake_groups_total": [((), intake.groups)],
        "intake_requests_total": [((), intake.requests)],
        "storage_full": [((), float(intake.full))],
    }


def exposition(status: Status) -> bytes:
    """The text that Prometheus scrapes."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StatusCollector(status))
    return generate_latest(registry)

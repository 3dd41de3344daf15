"""The one table of metrics: name, kind, unit, labels, meaning. A test holds it to the docs."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class Metric(Struct, frozen=True, kw_only=True):
    """One metric family; ``name`` carries its unit last, counters end in ``_total``."""

    name: str
    kind: Literal["gauge", "counter"]
    unit: str
    labels: tuple[str, ...]
    meaning: str


def _gauge(name: str, unit: str, labels: tuple[str, ...], meaning: str) -> Metric:
    return Metric(name=f"penstock_{name}", kind="gauge", unit=unit, labels=labels, meaning=meaning)


def _counter(name: str, unit: str, labels: tuple[str, ...], meaning: str) -> Metric:
    full = f"penstock_{name}_total"
    return Metric(name=full, kind="counter", unit=unit, labels=labels, meaning=meaning)


PLACE = ("service", "topic", "partition")

METRICS: tuple[Metric, ...] = (
    _gauge("consumer_lag_messages", "records", PLACE,
           "Records appended and not yet taken by the service."),
    _gauge("consumer_oldest_unread_age_seconds", "seconds", PLACE,
           "Age of the oldest record not yet taken; 0 where nothing waits."),
    _gauge("topic_next_offset", "offset", ("topic", "partition"),
           "The offset the next record will get."),
    _gauge("topic_first_offset", "offset", ("topic", "partition"),
           "The first offset still retained."),
    _counter("records_handled", "records", ("service",),
             "Records handled since the service's process started."),
    _counter("records_duplicate", "records", ("service",),
             "Records recognised as handled before and passed over."),
    _counter("records_retried", "records", ("service",),
             "Records put back to be tried again."),
    _counter("records_parked", "records", ("service",),
             "Records set aside in the dead letters."),
    _gauge("waiting_records", "records", ("service",),
           "Records held back with their key, parked ones included."),
    _gauge("deadletters_open_records", "records", ("service",),
           "Dead letters neither retried nor discarded."),
    _gauge("service_up", "0 or 1", ("service",),
           "1 while the service's process reports within seconds."),
    _gauge("service_stopped", "0 or 1", ("service",),
           "1 where the service stopped itself because most keys failed."),
    _gauge("gateway_breaker_open", "0 or 1", ("service", "gateway"),
           "1 while calls of the gateway are held back."),
    _gauge("gateway_open_asks", "asks", ("service", "gateway"),
           "Asks that have no outcome yet."),
    _counter("intake_groups", "transactions", (), "Groups of requests the door committed."),
    _counter("intake_requests", "requests", (), "Requests the door decided."),
    _gauge("storage_full", "0 or 1", (), "1 while the door cannot write for want of space."),
)  # fmt: skip

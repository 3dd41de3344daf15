"""The reference of the catalog has every key, at its place, with the default it has."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from msgspec import Struct

from penstock.catalog import model

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "catalog.md"
ROW = re.compile(r"^\| (`\w+`(?:, `\w+`)*) \|", re.MULTILINE)
DEFAULT = re.compile(r"^\| `(\w+)` \| [^|]+ \| ([\d.]+) \|", re.MULTILINE)
PLACES: dict[str, type[Struct]] = {
    "At the top": model.Catalog,
    "[platform]": model.Platform,
    "[people.NAME]": model.Person,
    "[[people.NAME.holidays]]": model.Holiday,
    "[teams.NAME]": model.Team,
    "[teams.NAME.rotation]": model.Rotation,
    "[[teams.NAME.rotation.overrides]]": model.Override,
    "[topics.NAME]": model.Topic,
    "[services.NAME]": model.ServiceEntry,
    "[services.NAME.retry]": model.RetryPolicy,
    "[services.NAME.slo]": model.Slo,
    "[gateways.NAME]": model.GatewayEntry,
    "[gateways.NAME.breaker]": model.Breaker,
    "[gateways.NAME.sandbox]": model.Sandbox,
    "[kafka]": model.KafkaSettings,
    "[postgres]": model.PostgresSettings,
    "[journal]": model.JournalSettings,
    "[stages.NAME]": model.Stage,
    "[clients.NAME]": model.Client,
}


def sections() -> dict[str, str]:
    """Heading (the first part of it, without backquotes) to the text under it."""
    found = re.split(r"^##+ (.+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    heads = (head.split(",")[0].strip("`") for head in found[::2])
    return dict(zip(heads, found[1::2], strict=True))


def keys(kind: type[Struct]) -> set[str]:
    """The keys of a table in TOML."""
    fields = {field.encode_name for field in msgspec.structs.fields(kind)}
    return fields if kind is model.Catalog else fields - {"name"}


@pytest.mark.parametrize("place", PLACES)
def test_every_key_is_documented_and_no_other(place: str) -> None:
    rows = ROW.findall(sections()[place])
    documented = {key for row in rows for key in re.findall(r"\w+", row)}
    assert documented == keys(PLACES[place])


def test_every_part_of_the_model_has_its_place() -> None:
    parts = {v for v in vars(model).values() if isinstance(v, type) and issubclass(v, Struct)}
    assert parts - {Struct} == set(PLACES.values())


@pytest.mark.parametrize("place", PLACES)
def test_numbers_given_as_defaults_are_those_of_the_model(place: str) -> None:
    fields = {f.encode_name: f for f in msgspec.structs.fields(PLACES[place])}
    for name, default in DEFAULT.findall(sections()[place]):
        assert float(default) == fields[name].default, name

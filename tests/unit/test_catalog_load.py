"""A catalog file is read whole: every error at once, each with file, line, key and a hint."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.catalog.load import CATALOG_BYTES_MAX, BadCatalog, CatalogError, load_catalog, parse
from penstock.catalog.model import JOURNAL, Catalog, RetryPolicy
from penstock.errors import NotFound, Problem

SOUND = """\
name = "ferry"
flow = "ferry.flow:FLOW"
permissions = ["board"]

[platform]
owner = "deck"

[teams.deck]
contacts = ["deck@ferry.example"]
on_call = ["mate@ferry.example"]

[topics.tickets]
owner = "deck"
producer = "gate"
key = "ticket"

[topics.trips]
owner = "deck"
producer = "captain"
key = "ticket"
class = "critical"

[services.gate]
owner = "deck"
writes = ["tickets"]

[services.captain]
owner = "deck"
handler = "ferry.captain:SERVICE"
reads = ["tickets"]
writes = ["trips"]
asks = ["radio", "clock"]
retry = { attempts = 3 }

[gateways.radio]
owner = "deck"
handler = "ferry.radio:gateway"
retry = { first_delay_seconds = 0.5 }
settings = { channel = 16 }

[stages.crossing]
services = ["gate", "captain"]
rto_seconds = 60
rpo_seconds = 0

[clients.local]
may = ["board"]
"""


def errors_of(text: str | bytes) -> tuple[CatalogError, ...]:
    """What is wrong with this catalog."""
    with pytest.raises(BadCatalog) as bad:
        parse(text if isinstance(text, bytes) else text.encode(), "ferry.toml")
    return bad.value.errors


def changed(*changes: tuple[str, str]) -> str:
    """The sound catalog with some texts replaced."""
    text = SOUND
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return text


def test_a_sound_catalog_is_one_value() -> None:
    catalog = parse(SOUND.encode(), "ferry.toml")
    captain = catalog.services["captain"]
    assert catalog.topics["trips"].class_ == "critical"
    assert captain.retry == RetryPolicy(attempts=3)
    assert catalog.clients["local"].may == ("board",)
    assert catalog.lane_count("captain") == 4


def test_what_a_table_leaves_out_comes_from_the_default_it_replaces() -> None:
    retry = parse(SOUND.encode(), "ferry.toml").gateways["radio"].retry
    assert retry == RetryPolicy(attempts=1_000_000, first_delay_seconds=0.5)


def test_answers_dead_letters_and_the_journal_are_implied() -> None:
    catalog = parse(SOUND.encode(), "ferry.toml")
    assert set(catalog.topics) == {
        "tickets", "trips", JOURNAL, "captain.answers", "captain.dead", "journal.answers",
        "journal.dead",
    }  # fmt: skip
    assert catalog.services["captain"].reads == ("tickets", "captain.answers", JOURNAL)
    assert catalog.services["gate"].reads == ()
    assert catalog.topics["captain.dead"].producer == "captain"
    journal = catalog.topics[JOURNAL]
    assert (journal.owner, journal.producer, journal.class_) == ("deck", JOURNAL, "internal")
    keeping = catalog.services[JOURNAL]
    assert (keeping.owner, keeping.writes) == ("deck", (JOURNAL,))
    assert keeping.reads == ("captain.dead", "journal.dead", "journal.answers", JOURNAL)


def test_implied_topics_have_the_count_of_what_the_service_reads() -> None:
    eight = changed(('key = "ticket"\n\n', 'key = "ticket"\npartitions = 8\n\n'))
    catalog = parse(eight.encode(), "ferry.toml")
    counts = {t: catalog.topics[t].partitions for t in ("captain.answers", "captain.dead", JOURNAL)}
    assert counts == {"captain.answers": 8, "captain.dead": 8, JOURNAL: 8}


def test_implied_topics_are_kept_as_long_as_what_the_service_reads() -> None:
    """Kept for ever, the answers would keep every mark of their service for ever."""
    week = changed(('key = "ticket"\n\n', 'key = "ticket"\nretention_seconds = 604_800\n\n'))
    topics = parse(week.encode(), "ferry.toml").topics
    assert topics["captain.answers"].retention_seconds == 604_800
    assert topics["captain.dead"].retention_seconds == 604_800
    assert topics[JOURNAL].retention_seconds is None
    assert parse(SOUND.encode(), "ferry.toml").topics["captain.answers"].retention_seconds is None


def test_a_declared_journal_is_left_as_it_is() -> None:
    text = changed(("[platform]\nowner", "[topics.journal]\nproducer='journal'\nkey='it'\nowner"))
    assert parse(text.encode(), "ferry.toml").topics[JOURNAL].key == "it"


def test_every_error_is_told_at_once_in_the_order_of_the_file() -> None:
    text = changed(
        ('owner = "deck"', 'owner = "dekc"'),
        ('producer = "gate"', 'prodcer = "gate"'),
        ('class = "critical"', 'class = "criticl"'),
        ('reads = ["tickets"]', 'reads = [\n  "tickets",\n  "tikets",\n]'),
        ('"radio"', '"radoi"'),
        ("attempts = 3", 'attempts = "3"'),
        ('services = ["gate", "captain"]', 'services = ["gate", "capitan"]'),
        ('may = ["board"]', 'may = ["bord"]'),
    )
    assert [(e.line, e.key, e.hint) for e in errors_of(text)] == [
        (6, "platform.owner", "Did you mean deck?"),
        (14, "topics.tickets.prodcer", "Did you mean producer?"),
        (21, "topics.trips.class", "Did you mean critical?"),
        (32, "services.captain.reads[1]", "Did you mean tickets?"),
        (35, "services.captain.asks[0]", "Did you mean radio?"),
        (36, "services.captain.retry.attempts", ""),
        (45, "stages.crossing.services[1]", "Did you mean captain?"),
        (50, "clients.local.may[0]", "Did you mean board?"),
    ]


def test_an_error_is_one_line_that_editors_can_open() -> None:
    with pytest.raises(BadCatalog) as bad:
        parse(changed(('"gate"\nkey', '"gaet"\nkey')).encode(), "ferry.toml")
    assert str(bad.value) == (
        "ferry.toml:14: topics.tickets.producer: there is no service 'gaet'. Did you mean gate?"
    )


@pytest.mark.parametrize(
    ("old", "new", "key", "message"),
    [
        ('key = "ticket"', "key = 1", "topics.tickets.key", "must be text, and is 1."),
        ('"deck"\nproducer', "true\nproducer", "topics.tickets.owner", "must be text, and is true"),
        ("attempts = 3", "attempts = 1.5", "services.captain.retry.attempts", "a whole number"),
        ("attempts = 3", "attempts = true", "services.captain.retry.attempts", "a whole number"),
        ("{ attempts = 3 }", "3", "services.captain.retry", "must be a table, and is 3."),
        ("rto_seconds = 60", "rto_seconds = nan", "stages.crossing.rto_seconds", "finite"),
        ("_seconds = 60", "_seconds = 1" + "0" * 400, "stages.crossing.rto_seconds", "finite"),
        ("channel = 16", "channel = [inf]", "gateways.radio.settings.channel[0]", "finite"),
        ('["board"]\n\n', "3\n\n", "permissions", "must be a list, and is 3."),
        ('["tickets"]\n\n', '["tickets", 4]\n\n', "services.gate.writes[1]", "must be text"),
        ('name = "ferry"\n', "", "name", "is missing."),
        ('owner = "deck"\nproducer', "producer", "topics.tickets.owner", "is missing."),
        ('[platform]\nowner = "deck"\n', "", "platform.owner", "is missing."),
        ('[platform]\nowner = "deck"\n', "[platform]\n", "platform.owner", "is missing."),
        ("[clients.local]", "[clints.local]", "clints", "is no known key."),
        ("[teams.deck]", '[teams.deck]\nname = "x"', "teams.deck.name", "is no known key."),
    ],
)  # fmt: skip
def test_each_kind_of_wrong_value_is_named(old: str, new: str, key: str, message: str) -> None:
    told = {error.key: error.message for error in errors_of(changed((old, new)))}
    assert message in told[key]


def test_one_mistake_is_one_error() -> None:
    """A wrong value does not make others look wrong that depend on it."""
    wrong = (('producer = "captain"', "producer = 7"), ("attempts = 3", 'attempts = "x"'))
    for change in wrong:
        assert len(errors_of(changed(change))) == 1


@pytest.mark.parametrize(
    ("raw", "line", "message"),
    [
        (b"a = 1\nb = = 2\n", 2, "Invalid value"),
        (b"a = 1\n[t\n", 2, "Expected ']'"),
        (b"a = 1\n\na = 2\n", 3, "Cannot overwrite"),
        (b'a = "', 1, "no valid TOML"),
        (b"a = 1\nb = '\xff'\n", 2, "no UTF-8"),
        (b"\xef\xbb\xbfa = 1", 1, "no valid TOML"),
        (b"a = " + b"[" * 100_000, 1, "nested too deep"),
        (b"a = " + b"9" * 5000, 1, "no valid TOML"),
        (b"#" * (CATALOG_BYTES_MAX + 1), 1, "more than"),
        (b"a = 1\x00", 1, "no valid TOML"),
    ],
)
def test_what_is_no_toml_is_told_with_its_line(raw: bytes, line: int, message: str) -> None:
    (error,) = errors_of(raw)
    assert error.line == line
    assert message in error.message


def test_an_empty_file_says_what_is_needed() -> None:
    keys = [error.key for error in errors_of(b"")]
    assert sorted(keys) == ["flow", "name", "platform.owner", "services", "teams", "topics"]


def test_a_missing_file_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"There is no catalog .*none\.toml"):
        load_catalog(tmp_path / "none.toml")
    with pytest.raises(Problem, match="cannot be read"):
        load_catalog(tmp_path)


def test_a_file_is_read_from_its_path(tmp_path: Path) -> None:
    path = tmp_path / "ferry.toml"
    path.write_text(SOUND)
    assert load_catalog(path) == parse(SOUND.encode(), "ferry.toml")


def test_without_a_path_the_shipped_catalog_is_loaded() -> None:
    catalog: Catalog = load_catalog(None)
    assert catalog.flow.endswith(":FLOW")
    assert {s.name for s in catalog.services.values() if not s.handler} == {"door"}


def test_a_file_full_of_errors_is_told_in_the_time_it_takes_to_read_it() -> None:
    """Each unknown name is compared with some others, not with all: this would take minutes."""
    tables = (f"[services.s{n}]\nowner = 'a{n}'\nreads = ['q{n}']\n" for n in range(3000))
    assert len(errors_of(SOUND + "".join(tables))) == 3 * 3000

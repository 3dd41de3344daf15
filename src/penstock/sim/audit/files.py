"""A home folder as ``Books``: its logs, stores and ledgers, and the journals of clients.

A home may be in use, so the order of looking matters. First the client journals: what a client
was told by then must be there. Then every store: of each file a picture is taken, and only when
all are taken, every log: so a record that a store speaks of is in its log. Last the ledgers: what
a store says was done outside is in them. What is younger than ``until`` no rule judges; so the
time must have been noted before the first look.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import msgspec

from penstock.sim.audit.books import Books, Flaw, Ledger, StoreBook
from penstock.sim.audit.clients import read_journal
from penstock.sim.audit.decode import admitted
from penstock.sim.audit.ledgers import read_ledger
from penstock.sim.audit.logs import Logs
from penstock.sim.audit.opening import Changed, Looking, Unfit, sqlite_files
from penstock.sim.audit.stores import read_store

__all__ = ["Unfit", "books_of", "latest", "read_store", "snapshots"]

FORMAT = 1
APPLICATION_ID = 0x70656E73
_LOOKS_MAX = 3
Reads = Mapping[str, Mapping[str, frozenset[str]]]


def books_of(
    home: Path, *, reads: Reads | None = None, journal: Path | Iterable[Path] | None = None,
    until: int | None = None, against: Path | None = None,
    contracts: Mapping[str, Any] | None = None, retention: Mapping[str, float] | None = None,
    buffers: Mapping[str, float] | None = None, now: int | None = None,
    continues: Iterable[str] = (), accepts: Mapping[str, tuple[str, int]] | None = None,
) -> Books:  # fmt: skip
    """Everything an audit looks at in a home. Raises ``Unfit``. ``accepts``: topics that take
    records of others, and the type and version these are of.

    ``reads``, ``until``, ``retention``, ``buffers``, ``now`` and ``continues`` as in ``Books``;
    ``against`` is another copy of the home, whose logs are compared; ``contracts`` come from
    ``snapshots``.
    """
    if not home.is_dir():
        raise Unfit(f"{home} is no folder.", "Name a home folder.")
    paths = [journal] if isinstance(journal, Path) else journal
    asked = None if paths is None else read_journal(paths)
    seen = _look_until_still(home, against)
    taken = accepts or {}
    topics = {t: [admitted(f, taken) for f in fs] if t in taken else fs
              for t, fs in seen.logs.topics.items()}  # fmt: skip
    return Books(
        topics, seen.logs.partitions, seen.logs.first, seen.producers, reads or {},
        seen.stores, seen.ledgers, asked, until, seen.logs.flaws, seen.logs.examined,
        seen.logs.unread, contracts, retention or {}, buffers or {}, now,
        frozenset(continues), frozenset(taken),
    )  # fmt: skip


class _Seen(NamedTuple):
    """What one look found."""

    logs: Logs
    stores: dict[str, StoreBook]
    ledgers: dict[str, Ledger]
    producers: dict[str, str]


def _look_until_still(home: Path, against: Path | None) -> _Seen:
    for turn in range(_LOOKS_MAX):
        try:
            with Looking() as looking:
                seen = _look(looking, home)
                if against is not None:
                    _compare(looking, seen.logs, against)
                looking.finish()
                return seen
        except Changed as changed:
            if turn == _LOOKS_MAX - 1:
                raise Unfit(f"{changed}, again and again.", "Try it once more.") from None
    raise AssertionError("the last turn returns or raises")


def _look(looking: Looking, home: Path) -> _Seen:
    files = sqlite_files(home, "*.db")
    flaws: list[Flaw] = []
    stores_at = {path: c for path in files if (c := _begin(looking, path, flaws, ours=True))}
    logs_at = {path: c for path in stores_at if (c := _begin(looking, path, flaws, ours=True))}
    boxes = _boxes(looking, home, flaws)
    stores: dict[str, StoreBook] = {}
    for connection in stores_at.values():
        for service in _services(connection, flaws):
            stores[service] = read_store(connection, service, flaws)
    logs, producers = Logs(flaws), dict[str, str]()
    for path, connection in logs_at.items():
        names = logs.read(connection, path.name)
        producers |= dict.fromkeys(names, path.stem)
    ledgers = _read_boxes(boxes, flaws)
    for path in logs_at:
        _look_again(looking, logs, path, flaws)
    return _Seen(logs, stores, ledgers, producers)


def ledgers_of(looking: Looking, home: Path, flaws: list[Flaw]) -> dict[str, Ledger]:
    """What the sandboxes of a home wrote down, by gateway."""
    return _read_boxes(_boxes(looking, home, flaws), flaws)


def _boxes(looking: Looking, home: Path, flaws: list[Flaw]) -> dict[str, apsw.Connection]:
    files = sqlite_files(home, "sandbox/*/*.sqlite")
    return {path.parent.name: c for path in files if (c := _begin(looking, path, flaws))}


def _read_boxes(
    boxes: Mapping[str, apsw.Connection], flaws: list[Flaw]
) -> dict[str, Ledger]:
    return {name: read_ledger(connection, name, flaws) for name, connection in boxes.items()}


def _begin(
    looking: Looking, path: Path, flaws: list[Flaw], *, ours: bool = False
) -> apsw.Connection | None:
    """A picture of one file; None, and a flaw, where it is no sound file."""
    try:
        connection = looking.begin(path)
        version, owner = connection.pragma("user_version"), connection.pragma("application_id")
    except apsw.Error as error:
        flaws.append(Flaw("I19", path.name, f"the file cannot be opened: {error}"))
        return None
    if not ours:
        return connection
    if owner != APPLICATION_ID:
        flaws.append(Flaw("I19", path.name, "the file is none of penstock's"))
        return None
    if version > FORMAT:
        raise Unfit(
            f"{path} has format {version}; this auditor reads {FORMAT}.",
            "Audit it with the penstock that wrote it.",
        )
    return connection


def _services(connection: apsw.Connection, flaws: list[Flaw]) -> list[str]:
    """The services with real work in a file."""
    try:
        found = connection.execute("SELECT DISTINCT service FROM scopes").fetchall()
    except (apsw.Error, ValueError) as error:
        flaws.append(Flaw("I19", "scopes", f"the table scopes cannot be read: {error}"))
        return []
    return [name for (name,) in found if isinstance(name, str)]


def _look_again(looking: Looking, logs: Logs, path: Path, flaws: list[Flaw]) -> None:
    """A second reader, who came later."""
    connection = _begin(looking, path, flaws, ours=True)
    if connection is not None:
        try:
            for topic in _topics(connection):
                logs.look_again(connection, topic)
        except (apsw.Error, ValueError, TypeError) as error:
            flaws.append(Flaw("I19", path.name, f"it cannot be read a second time: {error}"))


def _compare(looking: Looking, logs: Logs, against: Path) -> None:
    files = sqlite_files(against, "*.db")
    if not files:
        raise Unfit(f"{against} is no home to compare with.", "Name a copy of this home.")
    for path in files:
        connection = _begin(looking, path, logs.flaws, ours=True)
        if connection is None:
            continue
        try:
            for topic in _topics(connection):
                logs.compare(connection, topic, str(against))
        except (apsw.Error, ValueError, TypeError) as error:
            logs.flaws.append(Flaw("I19", str(path), f"the copy cannot be read: {error}"))


def _topics(connection: apsw.Connection) -> list[str]:
    return [str(name) for (name,) in connection.execute("SELECT name FROM topics").fetchall()]


def latest(books: Books) -> int:
    """The latest time that anything in the books speaks of having happened (ms)."""
    times = [fact.appended_at for facts in books.topics.values() for fact in facts]
    for store in books.stores.values():
        times += [time for ask in store.asks for time in (ask.made_at, ask.settled_at or 0)]
    return max(times, default=0)


def snapshots(folders: Iterable[Path]) -> dict[str, Any]:
    """The schema of every ``type/version`` in folders of ``TYPE/vN.avsc``. Raises ``Unfit``."""
    found: dict[str, Any] = {}
    for folder in folders:
        if not folder.is_dir():
            raise Unfit(f"{folder} is no folder of contracts.", "Name one with --contracts.")
        for path in sorted(folder.glob("*/v*.avsc")):
            try:
                schema = msgspec.json.decode(path.read_bytes())
            except (OSError, msgspec.MsgspecError, ValueError, RecursionError) as error:
                raise Unfit(f"{path} cannot be read: {error}.") from None
            found[f"{path.parent.name}/{path.stem[1:]}"] = schema
    return found

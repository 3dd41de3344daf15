"""The committed truth: ``<folder>/<type>/v<N>.avsc``, one file per version, append-only.

A class may only be published in the shape of a file that was reviewed. ``snapshot`` writes the
files that are missing and never changes the shape of one that is there; ``verify`` is what a
start-up asks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from msgspec import Struct

from penstock.contracts.avro import Schema, fingerprint, text
from penstock.contracts.avsc import parse
from penstock.contracts.changes import changes
from penstock.contracts.contract import Contract, Model
from penstock.contracts.derive import derive, record_name
from penstock.contracts.verdict import breaches
from penstock.contracts.wire import as_is
from penstock.errors import CheckFailed, Problem

_FILE = re.compile(r"v([1-9][0-9]*)\.avsc")
COMMAND = "penstock schema snapshot"

OWN_FOLDER = Path(__file__).parent / "own_snapshots"  # of the engine's own contracts


class Snapshot(Struct, frozen=True, kw_only=True):
    """One file and what became of it; ``documented`` means that docs or tags alone changed."""

    type: str
    version: int
    file: str
    outcome: Literal["written", "documented", "kept"]
    fingerprint: str


def file_of(folder: Path, type: str, version: int) -> Path:
    """Where the snapshot of a version lies."""
    return folder / type / f"v{version}.avsc"


def load(folder: Path) -> dict[str, dict[int, Schema]]:
    """Every snapshot by type and version. Raises ``Problem`` naming the file that is broken."""
    found: dict[str, dict[int, Schema]] = {}
    for type_, version, file in files(folder):
        found.setdefault(type_, {})[version] = read(file)
    return {t: dict(sorted(found[t].items())) for t in sorted(found)}


def files(folder: Path) -> Iterator[tuple[str, int, Path]]:
    """Type, version and file of everything in the folder that is a snapshot by its name."""
    for file in sorted(folder.glob("*/v*.avsc")):
        named = _FILE.fullmatch(file.name)
        if named:
            yield file.parent.name, int(named[1]), file


def read(file: Path) -> Schema:
    """One snapshot. Raises ``Problem``."""
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise Problem("schema", f"{file} cannot be read: {error.strerror}.") from error
    return parse(raw, str(file))


def versions(contract: Contract) -> list[tuple[int, Model]]:
    """The versions that have a class of their own, oldest first.

    A version that is read ``as_is`` has none: its file alone says what it was.
    """
    older = [(o.version, o.model) for o in contract.older if o.upcast is not as_is]
    return [*older, (contract.version, contract.model)]


def snapshot(contracts: Iterable[Contract], folder: Path) -> list[Snapshot]:
    """Write the files that are missing; docs and tags of existing ones are brought up to date.

    Raises ``CheckFailed``, before anything is written, where a class has another shape than the
    file of its version.
    """
    wanted = [
        (contract, version, model, derive(model, record_name(contract.type)))
        for contract in contracts
        for version, model in versions(contract)
    ]
    for contract, version, model, schema in wanted:
        file = file_of(folder, contract.type, version)
        if file.exists():
            _check_same(contract, version, model, schema, file)
    return [_write(file_of(folder, c.type, v), c.type, v, schema) for c, v, _, schema in wanted]


def _write(file: Path, type: str, version: int, schema: Schema) -> Snapshot:
    wanted, outcome = text(schema), "written"
    if file.exists():
        outcome = "kept" if file.read_text(encoding="utf-8") == wanted else "documented"
    if outcome != "kept":
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(wanted, encoding="utf-8")
    return Snapshot(
        type=type,
        version=version,
        file=str(file),
        outcome=outcome,  # type: ignore[arg-type]
        fingerprint=fingerprint(schema),
    )


def verify(contracts: Iterable[Contract], folder: Path) -> None:
    """Refuse to start: raises ``CheckFailed`` for the first class that is no snapshot.

    It names class, field, file, and the command to run.
    """
    for problem in unapproved(contracts, folder):
        raise problem


def unapproved(contracts: Iterable[Contract], folder: Path) -> Iterator[Problem]:
    """Every reason why these classes may not be published."""
    for contract in contracts:
        for version, model in versions(contract):
            try:
                _verify_one(contract, version, model, folder)
            except Problem as problem:
                yield problem
        for older in contract.older:
            if older.upcast is as_is:
                yield from _as_is_refused(contract, older.version, older.model, folder)


def _verify_one(contract: Contract, version: int, model: Model, folder: Path) -> None:
    file = file_of(folder, contract.type, version)
    if not file.exists():
        raise CheckFailed(
            "no_snapshot",
            f"{_name(model)} is version {version} of {contract.type}, and {file} is not there.",
            f"Run `{COMMAND}`, have the file reviewed, and commit it.",
        )
    _check_same(contract, version, model, derive(model, record_name(contract.type)), file)


def _check_same(contract: Contract, version: int, model: Model, schema: Schema, file: Path) -> None:
    kept = read(file)
    if fingerprint(kept) == fingerprint(schema):
        return
    found = [c for c in changes(kept, schema) if c.what not in ("doc", "tags")]
    first = found[0] if found else None
    said = "; ".join(map(str, found)) or "the order of fields or symbols changed"
    raise CheckFailed(
        "snapshot_differs",
        f"{_name(model)} is not what {file} says for {contract.type} version {version}: {said}.",
        f"Undo that, or keep today's class as an Older, make this one version {version + 1} or "
        f"later, and run `{COMMAND}`.",
        first.path if first else "",
    )


def _as_is_refused(
    contract: Contract, version: int, model: Model, folder: Path
) -> Iterator[Problem]:
    """A version read as it is must have a file that its class can read."""
    file = file_of(folder, contract.type, version)
    try:
        broken = breaches(read(file), derive(model, record_name(contract.type)))
    except Problem as problem:
        yield problem
        return
    for breach in broken:
        yield CheckFailed(
            "upcast_needed",
            f"{_name(model)} reads {contract.type} version {version} as it is, and cannot: "
            f"{breach.path}: {breach.message}",
            "Register an upcast for that version.",
            breach.path,
        )


def _name(model: Model) -> str:
    return f"{model.__module__}.{model.__qualname__}"

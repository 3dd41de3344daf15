"""The gate: snapshots are append-only, classes match them, new versions fit all older ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from msgspec import Struct

from penstock.contracts.avro import Schema, fingerprint
from penstock.contracts.avsc import parse
from penstock.contracts.changes import Change, changes
from penstock.contracts.contract import Contract
from penstock.contracts.history import Baseline, NoBaseline, baseline
from penstock.contracts.own import OWN
from penstock.contracts.snapshot import OWN_FOLDER, files, read, unapproved
from penstock.contracts.verdict import (
    Breach,
    Level,
    Verdict,
    advice,
    breaches,
    judge,
    rollout,
)
from penstock.errors import NotFound, Problem

OK, NOT_PASSED, INCONCLUSIVE = 0, 6, 7


class Judged(Struct, frozen=True, kw_only=True):
    """One new version against all older ones; ``rollout`` says who may be upgraded first."""

    type: str
    version: int
    verdicts: tuple[Verdict, ...]
    rollout: str
    advice: tuple[str, ...] = ()


class Wrong(Struct, frozen=True, kw_only=True):
    """A reason not to pass that is no verdict: a changed or missing file, an unapproved class."""

    code: str
    message: str
    fix: str = ""


class Report(Struct, frozen=True, kw_only=True):
    """What a check found. ``inconclusive`` says why there was nothing to compare with."""

    since: str
    commit: str
    level: Level
    snapshots: int
    wrong: tuple[Wrong, ...]
    judged: tuple[Judged, ...]
    inconclusive: str = ""

    @property
    def exit_code(self) -> int:
        """0 passed, 6 not passed, 7 nothing wrong found, nothing to compare with."""
        if self.wrong or any(not v.passed for j in self.judged for v in j.verdicts):
            return NOT_PASSED
        return INCONCLUSIVE if self.inconclusive else OK


class Difference(Struct, frozen=True, kw_only=True):
    """Two versions side by side: the changes, and whether each reads the other."""

    type: str
    old: int
    new: int
    changes: tuple[Change, ...]
    backward: tuple[Breach, ...]
    forward: tuple[Breach, ...]
    bridged: bool
    rollout: str


Schemas = dict[str, dict[int, Schema]]


def check(
    contracts: Iterable[Contract],
    folder: Path,
    against: str | None = None,
    *,
    level: Level = "backward",
    consumers: Mapping[str, tuple[str, ...]] | None = None,
) -> Report:
    """Compare the folder with ``against`` (a git ref; default: merge-base), and judge what is new.

    ``consumers`` maps an event type to the services that read it. Where there is none, every
    version counts as new. Raises ``NotFound`` for a ref that does not exist.
    """
    flow = tuple(contracts)
    schemas, wrong = _read_all(folder)
    since, inconclusive = _baseline(folder, against)
    wrong += [_wrong(p) for p in unapproved(flow, folder)]
    wrong += [_wrong(p) for p in unapproved(OWN, OWN_FOLDER)]
    wrong += _gaps(schemas)
    if since is not None:
        wrong += _rewritten(since, schemas, folder)
    by_type = {c.type: c for c in flow}
    return Report(
        since=since.name if since else "",
        commit=since.commit if since else "",
        level=level,
        snapshots=sum(map(len, schemas.values())),
        wrong=tuple(dict.fromkeys(wrong)),
        judged=tuple(
            _judge(type_, version, schemas[type_], by_type.get(type_), level, consumers or {})
            for type_, version in _new(schemas, since)
        ),
        inconclusive=inconclusive,
    )


def _read_all(folder: Path) -> tuple[Schemas, list[Wrong]]:
    found: Schemas = {}
    wrong = []
    for type_, version, file in files(folder):
        try:
            found.setdefault(type_, {})[version] = read(file)
        except Problem as problem:
            wrong.append(_wrong(problem))
    return {t: dict(sorted(v.items())) for t, v in sorted(found.items())}, wrong


def _baseline(folder: Path, against: str | None) -> tuple[Baseline | None, str]:
    try:
        return baseline(folder, against), ""
    except NoBaseline as why:
        return None, str(why)


def _wrong(problem: Problem) -> Wrong:
    return Wrong(code=problem.code, message=problem.message, fix=problem.fix)


def _gaps(schemas: Schemas) -> Iterator[Wrong]:
    for type_, versions in schemas.items():
        for version in range(1, max(versions, default=0)):
            if version not in versions:
                yield Wrong(
                    code="snapshot_missing",
                    message=f"{type_} has a version {max(versions)} and no version {version}.",
                    fix="Bring the file back, or number the new version without a gap.",
                )


def _rewritten(since: Baseline, schemas: Schemas, folder: Path) -> Iterator[Wrong]:
    """Append-only: what was committed is still there, in the same shape."""
    for name, raw in since.files.items():
        type_, _, file = name.rpartition("/")
        version = file.removeprefix("v").removesuffix(".avsc")
        now = schemas.get(type_, {}).get(int(version)) if version.isdigit() else None
        if not (folder / name).exists():
            yield Wrong(
                code="snapshot_removed",
                message=f"{folder / name} is gone, and {since.name} has it.",
                fix="Bring it back: records of that version may be retained somewhere.",
            )
        elif now is not None:
            yield from _reshaped(since, raw, now, folder / name)


def _reshaped(since: Baseline, raw: bytes, now: Schema, file: Path) -> Iterator[Wrong]:
    try:
        was = parse(raw, f"{file} at {since.name}")
    except Problem:
        return  # it was no schema then, so nothing was written by it
    if fingerprint(was) != fingerprint(now):
        said = "; ".join(str(c) for c in changes(was, now) if c.what not in ("doc", "tags"))
        yield Wrong(
            code="snapshot_changed",
            message=f"{file} is not what {since.name} has: {said or 'its order changed'}.",
            fix="Undo that and make a new version: records are written by the old one.",
        )


def _new(schemas: Schemas, since: Baseline | None) -> list[tuple[str, int]]:
    """The versions that were not there."""
    known = since.files if since else {}
    return [
        (type_, version)
        for type_, versions in schemas.items()
        for version in versions
        if f"{type_}/v{version}.avsc" not in known
    ]


def _judge(
    type: str,
    version: int,
    schemas: dict[int, Schema],
    contract: Contract | None,
    level: Level,
    consumers: Mapping[str, tuple[str, ...]],
) -> Judged:
    older = [(v, s) for v, s in schemas.items() if v < version]
    upcasts = [o.version for o in contract.older] if contract else []
    hit = consumers.get(type, ())
    full = judge((version, schemas[version]), older, "full", consumers=hit, upcasts=upcasts)
    wanted = [v for v in full if level in ("full", v.direction)]
    return Judged(
        type=type,
        version=version,
        verdicts=tuple(wanted),
        rollout=rollout(
            all(v.passed for v in full if v.direction == "backward"),
            all(v.passed for v in full if v.direction == "forward"),
        )
        if older
        else "",
        advice=tuple(advice(schemas[version])),
    )


def diff(folder: Path, type: str, old: int, new: int, upcasts: Iterable[int] = ()) -> Difference:
    """Two snapshots side by side; ``upcasts`` are the versions that have one.

    Raises ``NotFound`` for a type or version without a file.
    """
    before, after = _one(folder, type, old), _one(folder, type, new)
    backward, forward = breaches(before, after), breaches(after, before, "forward")
    bridged = bool(backward) and old < new and old in upcasts
    return Difference(
        type=type,
        old=old,
        new=new,
        changes=tuple(changes(before, after)),
        backward=backward,
        forward=forward,
        bridged=bridged,
        rollout=rollout(bridged or not backward, not forward),
    )


def _one(folder: Path, type: str, version: int) -> Schema:
    known = {(t, v): file for t, v, file in files(folder)}
    if (type, version) in known:
        return read(known[type, version])
    there = sorted(v for t, v in known if t == type)
    raise NotFound(
        "no_such_schema",
        f"{folder} has no version {version} of {type}.",
        f"It has {', '.join(map(str, there))}."
        if there
        else f"It has {', '.join(sorted({t for t, _ in known})) or 'no snapshots'}.",
    )

"""Bytes that rot: of a log nothing is read otherwise than it was written, and nothing skipped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import apsw
import pytest

from penstock.cli.main import run
from penstock.sim.disk.platter import Platter
from penstock.sim.disk.restart import Desk, parts
from penstock.sim.disk.scenario import (
    SERVICE,
    Scenario,
    append,
    handle,
    hold_back,
    let_go,
    settle,
)
from penstock.sim.disk.sweep import left_at, record
from penstock.sim.disk.tape import Recorder, Tape
from tests.disk.patient import BROKEN, DOCTOR, HARMLESS, REFUSED, SILENT, Patient

PARTS = 4


@pytest.fixture
def patient(desk: Path) -> Patient:
    """A small file with rows in every table that matters."""
    tape = Tape()
    recorder = Recorder(tape)
    scenario = Scenario(desk, tape, recorder.name, Random(3))
    some = (handle, hold_back, settle, handle, append, let_go, handle)
    scenario.run([Scenario.create, Scenario.open, *some, Scenario.close])
    return Patient(desk)


def log_bytes(patient: Patient) -> list[int]:
    """Every byte of the pages that hold rows of a log."""
    found = patient.pages()
    return [at for name in found if name.startswith("log_") for page in found[name] for at in page]


@pytest.mark.parametrize("part", range(PARTS))
def test_every_flipped_byte_of_a_log_is_refused_or_harmless(part: int, patient: Patient) -> None:
    dice, seen = Random(part), Counter[str]()
    for at in log_bytes(patient)[part::PARTS]:
        verdict = patient.flip(at, 1 << dice.randrange(8), log_only=True)
        seen[verdict.log] += 1
        assert verdict.log in (REFUSED, HARMLESS, DOCTOR), f"byte {at}: {verdict}"
    assert seen[REFUSED] > 1000
    # A page that says it has fewer rows hides its last ones: of all bits of a log one in 10,000.
    assert seen[DOCTOR] <= 2


def bodies(patient: Patient) -> Iterator[range]:
    """Where the stored bodies of log rows lie, as far as they are in one piece."""
    db = apsw.Connection(str(patient.path), flags=apsw.SQLITE_OPEN_READONLY)
    for (body,) in db.execute("SELECT body FROM log_facts").fetchall():
        at = patient.sound.find(body)
        if at >= 0:
            yield range(at, at + len(body))
    db.close()


def test_every_flipped_byte_of_a_body_is_refused_by_name(patient: Patient) -> None:
    found = list(bodies(patient))
    assert sum(map(len, found)) > 500
    for body in found:
        for at in body:
            verdict = patient.flip(at, 1 << at % 8, log_only=True)
            assert verdict.log == REFUSED, f"byte {at}: {verdict}"
            assert "facts[" in verdict.said
            assert "checksum differs" in verdict.said


def test_a_changed_declaration_of_a_log_hides_no_row(patient: Patient) -> None:
    """`PRIMARY KEY` with another letter is a valid type, and every `at` would read as NULL."""
    # Behind copies of it in pages that were split since.
    at = patient.sound.index(b"PRIMARY KEY", patient.sound.rindex(b'TABLE "log_facts"'))
    for offset in range(len(b"PRIMARY KEY")):
        for bit in range(8):
            verdict = patient.flip(at + offset, 1 << bit, log_only=True)
            # SQL does not care for the case of its words.
            assert verdict.log == REFUSED or bit == 5, f"{offset} {bit}: {verdict}"
            assert verdict.log != SILENT


def test_a_row_that_a_damaged_page_hides_is_missed(patient: Patient) -> None:
    """A page that says it has fewer cells hides rows whole: no checksum is looked at."""
    db = apsw.Connection(str(patient.path))
    places = [at for (at,) in db.execute("SELECT at FROM log_facts WHERE at < 1 << 48 ORDER BY at")]
    db.execute("DELETE FROM log_facts WHERE at = ?", (places[1],))
    db.close()
    hurt = Patient.__new__(Patient)
    hurt.__dict__ = {**patient.__dict__, "sound": patient.path.read_bytes()}
    verdict = hurt.truncate(len(hurt.sound))
    assert verdict.log == REFUSED
    assert "rows are missing" in verdict.said


def test_anywhere_else_the_log_is_never_silently_wrong_and_the_rest_is_counted(
    patient: Patient, record_property: Callable[[str, object], None]
) -> None:
    dice = Random(7)
    log, rest = Counter[str](), Counter[str]()
    for at in range(0, len(patient.sound), 47):
        verdict = patient.flip(at, 1 << dice.randrange(8))
        log[verdict.log] += 1
        rest[verdict.rest] += 1
        assert verdict.log in (REFUSED, HARMLESS, BROKEN, DOCTOR), f"byte {at}: {verdict}"
    assert log[REFUSED] > 100
    # What the guide tells: documents, marks and the rest have no checksum of their own.
    assert rest[SILENT] > 100
    record_property("rest", dict(rest))


def test_a_file_cut_short_is_refused_or_reads_as_it_was(patient: Patient) -> None:
    size, page = len(patient.sound), 4096
    lengths = {*range(0, size, 1024), *(n + d for n in range(0, size, page) for d in (-1, 1, 511))}
    for length in sorted(n for n in lengths if 0 < n < size):
        verdict = patient.truncate(length)
        # Of less than a page SQLite makes an empty file: there is no topic in it to read.
        allowed = (REFUSED, HARMLESS) if length >= page else (REFUSED, BROKEN)
        assert verdict.log in allowed, f"{length} bytes: {verdict}"


def test_a_damaged_write_ahead_log_ends_before_the_damage_and_is_never_half_read(
    desk: Path,
) -> None:
    """SQLite cannot tell rot in it from a torn end: what is left is the state after a commit."""
    recording, platter = record(1, desk / "home"), Platter()
    acks = recording.acks[SERVICE]
    index = next(a.ended for a in acks if a.step == "hold_back")
    for op in recording.ops[:index]:
        platter.take(op)
    left = left_at(platter, 1, 0)
    names = parts(left.files, recording.home, SERVICE)
    files = {suffix: bytes(left.files[name]) for suffix, name in names.items()}
    known, restarts = {ack.content for ack in acks}, Desk(desk / "desk")
    log = files["-wal"]
    for at in range(0, len(log), 211):
        changed = bytearray(log)
        changed[at] ^= 1 << at % 8
        found = restarts.restart(SERVICE, {**files, "-wal": changed})
        assert not found.trouble, f"byte {at}: {found.trouble}"
        assert found.content in known, f"byte {at}: half a commit"


def test_the_doctor_names_a_damaged_file(
    patient: Patient, capsys: pytest.CaptureFixture[str]
) -> None:
    root = patient.pages()["documents"][0]
    raw = bytearray(patient.sound)
    raw[root.start + 3 : root.start + 5] = b"\xff\xff"  # how many cells the page has
    patient.path.write_bytes(raw)
    patient.path.parent.chmod(0o700)
    assert run(["--home", str(patient.path.parent), "doctor", "-o", "json"]) == 6
    out = capsys.readouterr().out
    assert f"file {SERVICE}.db" in out
    assert "restore this file from a backup" in out

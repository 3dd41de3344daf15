"""Checks a history of appends, takes, reads, claims and commits against what a log promises.

Pure, and near to linear in the length of the history. As a program::

    python -m penstock.conformance.checker FILE_OR_FOLDER...

It ends with 0 where nothing was found, 6 where something was, and 7 where the history says too
little. ``docs/reference/log-checker.md`` tells the anomalies.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from pathlib import Path

from penstock.conformance.history import Op, load
from penstock.conformance.history_cycles import check_cycles
from penstock.conformance.history_findings import Findings, Promises, Report
from penstock.conformance.history_index import Index
from penstock.conformance.history_offsets import Appends, Looks, check_places
from penstock.conformance.history_owners import check_owners
from penstock.errors import CheckFailed, Inconclusive, Problem, Usage

EVERYTHING = Promises()


def check(ops: Sequence[Op], promises: Promises = EVERYTHING) -> Report:
    """The judgement on operations in the order of their ends (as ``history.load`` gives them)."""
    collecting = gc.isenabled()
    gc.disable()  # millions of small values, none of them garbage: a pass looks at them in vain
    try:
        return _check(ops, promises)
    finally:
        if collecting:
            gc.enable()


def _check(ops: Sequence[Op], promises: Promises) -> Report:
    found = Findings()
    index = Index(ops, found, promises)
    looks = Looks(index)
    check_places(index)
    appends = Appends(index, looks)
    check_owners(index)
    check_cycles(index)
    return Report(
        ops=len(ops), records=index.seen, values=len(index.writers), unseen=appends.unseen,
        counts=dict(found.counts), anomalies=tuple(found.kept),
    )


def told(report: Report) -> str:
    """A report as lines of text."""
    lines = [str(anomaly) for anomaly in report.anomalies]
    kept = {name: sum(a.name == name for a in report.anomalies) for name in report.counts}
    lines += [
        f"{name}: {count - kept[name]} more" for name, count in report.counts.items()
        if count > kept[name]
    ]
    lines.append(
        f"{report.ops} operations, {report.values} values, {report.records} records read,"
        f" {report.unseen} unseen: {sum(report.counts.values())} anomalies"
    )
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    """Check the history in the files named; returns the exit code."""
    try:
        if not argv:
            raise Usage(
                "nothing_named", "No history was named.",
                "Give the .jsonl files of one run, or the folder that holds them.",
            )
        report = check(load(*map(Path, argv)))
    except Problem as problem:
        print(problem, file=sys.stderr)
        return problem.exit_code
    print(told(report))
    if report.empty:
        return Inconclusive.exit_code
    return 0 if report.clean else CheckFailed.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

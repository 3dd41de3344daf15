"""Runs the fuzzer over a target and tells what it found."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

CORPUS = Path(__file__).parent / "corpus"
INPUT_BYTES_MAX = 16 << 10
INPUT_SECONDS_MAX = 5  # one input; what takes longer is a finding
MEMORY_MB_MAX = 1024
_DONE = re.compile(r"Done (\d+) runs")
_KEPT = re.compile(r"Test unit written to (\S+)")


@dataclass(frozen=True)
class Outcome:
    """One run of the fuzzer: how many inputs, its last words, and the input that broke it."""

    runs: int
    said: str
    input: bytes | None


def folder_of(target: str) -> Path:
    """Where a target's corpus lies."""
    return CORPUS / target


def fuzz(
    target: str, *, runs: int = 0, seconds: int = 0, seed: int = 1, found: Path | None = None,
    corpus: str = "",
) -> Outcome:  # fmt: skip
    """Fuzz a target until one of both bounds; new inputs worth keeping go to ``found``.

    It begins with its own corpus, or with that of another target.
    """
    with TemporaryDirectory() as scratch:
        new, left = found or Path(scratch) / "new", Path(scratch) / "left"
        new.mkdir(exist_ok=True)
        left.mkdir()
        bounds = [f"-runs={runs}"] if runs else []
        bounds += [f"-max_total_time={seconds}"] if seconds else []
        begin = folder_of(corpus or target)
        kept = [str(begin)] if begin.is_dir() else []
        done = _engine(target, *bounds, f"-seed={seed}", f"-artifact_prefix={left}/",
                       str(new), *kept)  # fmt: skip
        said = done.stderr + done.stdout
        broken = next(iter(sorted(left.iterdir())), None)
        if done.returncode and broken is None:
            raise RuntimeError(f"the fuzzer itself failed:\n{said[-4000:]}")
        counted = _DONE.search(said)
        runs_done = int(counted[1]) if counted else 0
        return Outcome(runs_done, said[-4000:], broken.read_bytes() if broken else None)


def merge(target: str, found: Path) -> None:
    """Take over of new inputs those that reach what no kept one reaches."""
    folder_of(target).mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as scratch:
        itself = Path(scratch) / "engine"
        itself.write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.fuzz.engine {target} "$@"\n')
        itself.chmod(0o700)
        words = ("-merge=1", str(folder_of(target)), str(found))
        done = _engine(target, *words, itself=str(itself))
        if done.returncode:
            raise RuntimeError(f"nothing was merged:\n{done.stderr[-4000:]}")


def _engine(target: str, *words: str, itself: str = "") -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable, "-m", "tests.fuzz.engine", target, f"-max_len={INPUT_BYTES_MAX}",
        f"-timeout={INPUT_SECONDS_MAX}", f"-rss_limit_mb={MEMORY_MB_MAX}", "-verbosity=1", *words,
    ]  # fmt: skip
    env = {**os.environ, "FUZZ_SELF": itself} if itself else None
    return subprocess.run(command, capture_output=True, text=True, errors="replace", env=env)

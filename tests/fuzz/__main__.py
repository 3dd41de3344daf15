"""Fuzz for as long as wanted: ``python -m tests.fuzz [TARGET] --seconds 3600``."""

from __future__ import annotations

import argparse
import random
import sys
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fuzz.guided import folder_of, fuzz, merge
from tests.fuzz.targets import TARGETS


def main() -> int:
    """Fuzz the targets one after the other; 1 where one was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", nargs="*", help=f"of {', '.join(TARGETS)} (default: all)")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--seed", type=int, default=random.getrandbits(31))
    parser.add_argument("--keep", action="store_true", help="take what was learnt into the corpus")
    given = parser.parse_args()
    unknown = set(given.target) - TARGETS.keys()
    if unknown:
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    return max([_fuzz(name, given) for name in given.target or TARGETS])


def _fuzz(name: str, given: argparse.Namespace) -> int:
    with TemporaryDirectory() as scratch:
        found = Path(scratch)
        outcome = fuzz(name, seconds=given.seconds, seed=given.seed, found=found)
        new = len(list(found.iterdir()))
        print(f"{name}: {outcome.runs} runs from seed {given.seed}, {new} new inputs", flush=True)
        if given.keep:
            merge(name, found)
    if outcome.input is None:
        return 0
    broken = folder_of(name) / f"broken-{sha256(outcome.input).hexdigest()[:12]}"
    broken.write_bytes(outcome.input)
    print(f"{outcome.said}\n{name} is broken by {broken}: mend it, and keep the file.")
    return 1


if __name__ == "__main__":
    sys.exit(main())

"""One target under the fuzzer, in a process of its own: ``python -m tests.fuzz.engine TARGET``.

What is imported here is rewritten so that the fuzzer sees which branches an input takes; more
arguments are libFuzzer's own. It ends the process: 0, or 77 with the input left as a file.
"""

from __future__ import annotations

import os
import sys

import atheris

WATCHED = ["penstock", "tests.fuzz.targets", "tests.fuzz.broken", "tomllib", "json", "urllib.parse"]


def main(argv: list[str]) -> None:
    """Fuzz the target named first."""
    with atheris.instrument_imports(include=WATCHED, enable_loader_override=False):
        from tests.fuzz.broken import BROKEN
        from tests.fuzz.targets import TARGETS
    target = (TARGETS | BROKEN)[argv[1]]
    # To merge, libFuzzer starts itself again by this name.
    atheris.Setup([os.environ.get("FUZZ_SELF", argv[0]), *argv[2:]], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)

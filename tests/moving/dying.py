"""``python -m tests.moving.dying WHERE PASSES before|after COMMAND...``: penstock, until it dies.

It is killed (-9) as it enters, or leaves, ``module:Class.name`` for the PASSES-th time.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from functools import reduce
from importlib import import_module
from typing import Any

from penstock.__main__ import main


def dies(does: Callable[..., Any], passes: int, *, before: bool) -> Callable[..., Any]:
    """The function, with its process's death in it."""
    left = [passes]

    def dying(*given: Any, **named: Any) -> Any:
        left[0] -= 1
        if before and left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        made = does(*given, **named)
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return made

    return dying


if __name__ == "__main__":
    where, passes, when, *words = sys.argv[1:]
    module, _, path = where.partition(":")
    *outer, name = path.split(".")
    holder = reduce(getattr, outer, import_module(module))
    setattr(holder, name, dies(getattr(holder, name), int(passes), before=when == "before"))
    sys.argv = ["penstock", *words]
    main()

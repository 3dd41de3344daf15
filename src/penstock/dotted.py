"""Dotted paths: how a declared file names a value of the program (``package.module:NAME``)."""

from __future__ import annotations

import re
from importlib import import_module

from penstock.errors import Problem

_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def resolve(path: str) -> object:
    """The object at ``package.module:NAME``; raises ``Problem`` naming the path and the cause."""
    if not _PATH.fullmatch(path):
        raise Problem(
            "dotted_path",
            f"{path!r} is no dotted path.",
            "Write it as package.module:NAME, for example shop.flow:FLOW.",
        )
    module, _, names = path.partition(":")
    found: object = _imported(path, module)
    for name in names.split("."):
        found = _attribute(path, module, found, name)
    return found


def _imported(path: str, module: str) -> object:
    """The module, or a Problem that tells a missing module from one that fails to import."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        if module == missing or module.startswith(f"{missing}."):
            raise Problem(
                "dotted_path",
                f"{path!r}: there is no module {missing!r}.",
                "Check the spelling, and that the package is installed or on PYTHONPATH.",
            ) from None
        raise Problem(
            "dotted_path", f"{path!r}: importing {module} needs {missing!r}, which is missing."
        ) from error
    except Exception as error:
        raise Problem(
            "dotted_path",
            f"{path!r}: importing {module} failed: {type(error).__name__}: {error}",
        ) from error


def _attribute(path: str, module: str, owner: object, name: str) -> object:
    """One name of the part after the colon."""
    try:
        found: object = getattr(owner, name)
    except AttributeError:
        raise Problem("dotted_path", f"{path!r}: {module} has no {name!r}.") from None
    return found

"""A house on real servers, as people set one up: a catalog of its own, and penstock's commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from penstock.assemble import contracts_folder
from penstock.catalog.load import examine, load_catalog

COMMAND_SECONDS = 120.0


def catalog_at(
    folder: Path, kafka: str, postgres: str, prefix: str, changes: Mapping[str, str] = {}
) -> Path:
    """The shipped catalog with a broker and a database in it; ``changes`` are of its text."""
    found, declared = examine(None), load_catalog(None)
    text = Path(found.file).read_text()
    for before, after in changes.items():
        assert before in text, f"the catalog has no {before!r}"
        text = text.replace(before, after)
    path = folder / "catalog.toml"
    path.write_text(
        f'{text}\n[kafka]\nservers = "{kafka}"\nprefix = "{prefix}"\n\n'
        f"[postgres]\ndsn = {json.dumps(postgres)}\n"
    )
    contracts = contracts_folder(declared, None)
    (folder / declared.contracts).symlink_to(contracts.resolve())
    return path


class Stage:
    """A home and a catalog, and commands over them."""

    def __init__(
        self, home: Path, catalog: Path | None = None, via: Sequence[str] = ()
    ) -> None:
        self.home, self.catalog, self._via = home, catalog, tuple(via)

    def argv(self, *words: str) -> list[str]:
        """A command of penstock."""
        catalog = ("--catalog", str(self.catalog)) if self.catalog else ()
        fixed = ("--home", str(self.home), *catalog)
        return [*self._via, sys.executable, "-m", "penstock", *fixed, *words]

    def run(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            self.argv(*words), capture_output=True, text=True, timeout=COMMAND_SECONDS,
            env={**os.environ, **env}, check=False,
        )  # fmt: skip

    def said(self, *words: str) -> Any:
        """What a command that must work says as JSON."""
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

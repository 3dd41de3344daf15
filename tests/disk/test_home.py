"""A home's own files after a power cut: its stamp is whole, and its name is on the disk."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from penstock import assemble


def test_the_stamp_and_the_names_of_a_new_home_are_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    really = os.fsync

    def fsync(fd: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{fd}")))
        really(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    home = tmp_path / "far" / "home"
    house = assemble.open_house(home)
    assemble.prepare(house)
    assert json.loads((home / "home.json").read_text())["format"] == 1
    content = [n for n, path in enumerate(synced) if path.parent == home and path.suffix == ".tmp"]
    assert home in synced[content[0] :], "the name of the stamp came to the disk before its content"
    assert {tmp_path, tmp_path / "far"} <= set(synced), "the home may not be found again"
    synced.clear()
    assemble.prepare(house)
    assert not synced

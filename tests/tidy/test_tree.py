"""The rules would see what they are there for: planted breaches are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tidy.test_leftovers import HIDDEN, NOTE_TO_SELF
from tests.tidy.test_words import DOMAIN, undocumented, words
from tests.tidy.tree import Module, function_lines, within


def planted(tmp_path: Path, text: str, name: str = "penstock.engine.planted") -> Module:
    """A module of this text."""
    path = tmp_path / "planted.py"
    path.write_text(text)
    return Module(name, path)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import time", "time"),
        ("def f():\n    from threading import Lock", "threading.Lock"),
        ("from . import crew", "penstock.engine.crew"),
        ("from .crew import step", "penstock.engine.crew.step"),
        ("from ..log import embedded", "penstock.log.embedded"),
    ],
)
def test_every_import_is_seen(tmp_path: Path, text: str, found: str) -> None:
    assert [i.full for i in planted(tmp_path, text).imports] == [found]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import time as t\nt.sleep(1)", "time.sleep"),
        ("from time import sleep\nsleep(1)", "time.sleep"),
        ("from datetime import datetime\ndatetime.now()", "datetime.datetime.now"),
        ("open('x')", "open"),
    ],
)
def test_every_call_is_seen_under_its_real_name(tmp_path: Path, text: str, found: str) -> None:
    assert [call for call, _line in planted(tmp_path, text).calls] == [found]


def test_a_docstring_is_no_line_of_its_function(tmp_path: Path) -> None:
    text = 'def f() -> int:\n    """One.\n\n    Two.\n    """\n    return 1\n'
    assert [function_lines(f) for f in planted(tmp_path, text).functions] == [2]


def test_docstrings_are_wanted_of_all_that_is_public(tmp_path: Path) -> None:
    text = "def f(): ...\nclass A:\n    def g(self): ...\n    def _h(self): ...\n"
    names = [name for name, _line in undocumented(planted(tmp_path, text, "m"))]
    assert names == ["m", "f", "A", "g"]


def test_strings_are_told_from_docstrings(tmp_path: Path) -> None:
    assert planted(tmp_path, '"""Orders."""\nx = "orders"\n').strings == (("orders", 2),)


def test_words_of_names() -> None:
    assert words("BaseUrl") == {"base", "url"}
    assert words("DATA_dir2") == {"data", "dir2"}
    assert words("database") == {"database"}
    assert words("HTTPServer") == {"http", "server"}


def test_the_domain_is_heard_in_texts_but_not_in_other_words() -> None:
    assert DOMAIN.search("the orders topic")
    assert DOMAIN.search("order_id")
    assert not DOMAIN.search("records keep their order per key, reordered")


def test_leftovers_are_seen() -> None:
    assert NOTE_TO_SELF.search("# TO" + "DO: later")
    assert HIDDEN.search("pytest.mark.skipif")
    assert HIDDEN.search("pytest.importorskip")


def test_zones_end_at_dots() -> None:
    assert within("penstock.log.memory", "penstock.log")
    assert not within("penstock.logbook", "penstock.log")

"""The line of every key: what errors of a catalog point at."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.catalog.load import examine
from penstock.catalog.spots import spots

TRICKY = '''\
# a comment = with an equals sign
name = "a # b = c"  # and [another]
"quoted key" = 1
dotted.'x y'.z = [ # list
  1, "two ] # no comment",
  { a = 1, b = [[3], [ 4 ]] },   # inline
]
text = """
[not.a.table]
key = 1
quote \\""" still inside""""
raw = \'\'\'
[neither]
\'\'\'
[ a . "b.c" ]
x = 1979-05-27T07:32:00Z
[[many]]
k = 1
[[many]]
k = 2
[many.inner]
z = 1.0
[last]
end = true'''


def paths(value: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every path of a parsed document."""
    if above:
        yield above
    rows = enumerate(value) if isinstance(value, list) else ()
    if isinstance(value, dict):
        rows = value.items()
    for key, inner in rows:
        yield from paths(inner, (*above, str(key)))


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("name",), 2),
        (("quoted key",), 3),
        (("dotted", "x y", "z"), 4),
        (("dotted", "x y", "z", "1"), 5),
        (("dotted", "x y", "z", "2", "b", "1", "0"), 6),
        (("text",), 8),
        (("raw",), 12),
        (("a", "b.c"), 15),
        (("a", "b.c", "x"), 16),
        (("many",), 17),
        (("many", "1", "k"), 20),
        (("last", "end"), 24),
    ],
)
def test_a_key_has_its_line(path: tuple[str, ...], line: int) -> None:
    tomllib.loads(TRICKY)
    assert spots(TRICKY)[path] == line


def test_what_only_looks_like_a_key_has_none() -> None:
    found = spots(TRICKY)
    assert ("not", "a", "table") not in found
    assert ("neither",) not in found


def test_every_key_of_the_shipped_catalog_has_a_line() -> None:
    examined = examine()
    with open(examined.file, "rb") as file:
        document = tomllib.load(file)
    assert set(paths(document)) <= set(examined.lines)


WORDS = st.text("ab.-_ \"'#[]{}=,\n\té", min_size=1, max_size=6)
SCALARS = st.one_of(st.integers(), st.booleans(), WORDS, st.floats(allow_nan=False))
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3)
)


def toml(value: Any) -> str:
    """A value as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escapes = {"\\": "\\\\", '"': '\\"', "\n": "\\n"}
        return '"' + "".join(escapes.get(c, c) for c in value) + '"'
    if isinstance(value, list):
        return "[\n" + ",\n".join(map(toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{toml(k)} = {toml(v)}" for k, v in value.items()) + "}"
    return repr(value)


@given(st.dictionaries(WORDS, VALUES, max_size=4), st.sampled_from(["\n", "\r\n", "\n# c\n\n"]))
def test_whatever_parses_is_found(document: dict[str, Any], between: str) -> None:
    text = between.join(f"{toml(k)} = {toml(v)}" for k, v in document.items())
    assert tomllib.loads(text) == document
    assert set(spots(text)) == set(paths(document))

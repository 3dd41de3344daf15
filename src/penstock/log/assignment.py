"""Which member of a group reads which lanes: one pure rule for every log of ours.

The rule is stable: members in sorted order, lane ``i`` to member ``i % n``. All members that see
the same membership compute the same answer, so nobody has to be asked, and every lane has
exactly one reader. With more members than lanes the last ones get none and stand by.
"""

from __future__ import annotations

from collections.abc import Sequence


def assign(members: Sequence[str], lanes: int) -> dict[str, frozenset[int]]:
    """The lanes of each member; together all of ``range(lanes)``, each exactly once."""
    present = sorted(set(members))
    return {
        member: frozenset(range(place, lanes, len(present)))
        for place, member in enumerate(present)
    }

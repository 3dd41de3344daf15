"""Three kinds of wrong.

Our bug is an ``AssertionError`` and stops the step. The world (a full disk, a stale owner, a
position the log no longer holds) is one of the typed errors below and is turned into a value by
the engine. The caller's mistake is a :class:`Problem`: a stable code, a sentence, and what to do
next; the command line maps it to an exit code, the API to RFC 9457 problem details.
"""

from __future__ import annotations


class Problem(Exception):
    """The caller can mend this. ``code`` is stable, ``fix`` says what to do next."""

    exit_code = 1

    def __init__(self, code: str, message: str, fix: str = "", field: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.fix, self.field = code, message, fix, field

    def __str__(self) -> str:
        return f"{self.message} {self.fix}".strip()


class Usage(Problem):
    """Wrong words on a command line or in a request."""

    exit_code = 2


class NotFound(Problem):
    """What was named does not exist."""

    exit_code = 3


class Conflict(Problem):
    """The world moved, or somebody else holds what was wanted."""

    exit_code = 5


class CheckFailed(Problem):
    """A check ran and did not pass."""

    exit_code = 6


class Inconclusive(Problem):
    """Nobody can say yet how it ended."""

    exit_code = 7


class World(Exception):
    """Something outside our code; the engine answers with a value, never with a guess."""


class StaleOwner(World):
    """A commit carried an epoch older than the one the store minted last."""


class OutsideLog(World):
    """A position lies before the first retained offset or after the next one."""

    def __init__(self, topic: str, partition: int, offset: int, first: int, next_: int) -> None:
        self.topic, self.partition, self.offset = topic, partition, offset
        self.first, self.next = first, next_
        super().__init__(
            f"offset {offset} of {topic}[{partition}] is outside the log, which holds "
            f"{first} to {next_ - 1}"
        )


class Corrupt(World):
    """Stored bytes do not match their checksum; they are refused, never skipped."""


class StorageFull(World):
    """The disk or a quota is full; nothing was acknowledged."""


class Unreachable(World):
    """A broker or a database does not answer, or refuses for now. What was asked of it is not
    known to have happened; it is asked again."""


class Contended(World):
    """Another transaction won. Nothing was written; the same work is done again."""


class Malformed(World):
    """Bytes that no contract can open: parked with the bytes kept."""


class UnknownSchema(World):
    """A well-formed schema reference that this process does not know (yet)."""

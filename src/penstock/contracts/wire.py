"""Open and seal: typed values to record bytes and back, by type and schema version.

The hot path of the engine. ``seal`` is one dictionary look-up over the plain encoder; ``opener``
gives a loop the one callable it needs. Reader rules: unknown fields are ignored, defaults filled,
older versions decoded with their own class and brought up step by step.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec

from penstock.contracts.contract import Contract, Model, Older
from penstock.contracts.own import OWN
from penstock.errors import Malformed, Problem, UnknownSchema
from penstock.limits import TEXT_CHARS_MAX

TYPE_CHARS_MAX = 255
VERSION_MAX = (1 << 31) - 1
_TYPE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")

Opener = Callable[[bytes], Any]
Sealed = tuple[str, int, bytes]
Value = TypeVar("Value")
_NOTHING: tuple[int, Model] = (0, object)


def as_is(value: Value) -> Value:
    """The upcast of a version that the next one's class reads unchanged."""
    return value


class Book:
    """All contracts a process knows, its own (``OWN``) included.

    Raises ``Problem`` where a type is there twice or a chain of versions has a gap.
    """

    __slots__ = ("_classes", "_encode", "_models", "_openers", "contracts")

    def __init__(self, contracts: Iterable[Contract] = ()) -> None:
        self.contracts: dict[str, Contract] = {}
        for contract in (*OWN, *contracts):
            _check(contract)
            if contract.type in self.contracts:
                raise Problem("contract_twice", f"There are two contracts for {contract.type}.")
            self.contracts[contract.type] = contract
        self._encode = msgspec.json.Encoder().encode
        self._models = {c.type: (c.version, c.model) for c in self.contracts.values()}
        self._classes = _classes(self.contracts.values())
        self._openers = {
            (contract.type, version): opener
            for contract in self.contracts.values()
            for version, opener in _openers(contract)
        }

    def seal(self, data: Any) -> Sealed:
        """Type, version and JSON of ``data``, by its exact class.

        Raises ``Problem`` for a class without a contract or with several (see ``seal_as``).
        """
        try:
            type_, version = self._classes[data.__class__]
        except KeyError:
            raise self._unsealable(data.__class__) from None
        return type_, version, self._encode(data)

    def seal_as(self, type: str, data: Any) -> Sealed:
        """As ``seal``, for a class that serves several types. Raises ``Problem``."""
        version, model = self._models.get(type, _NOTHING)
        if data.__class__ is not model:
            raise Problem(
                "no_contract",
                f"{data.__class__.__qualname__} is not what {type} carries.",
                f"{type} takes {model.__qualname__}." if version else f"{type} has no contract.",
            )
        return type, version, self._encode(data)

    def open(self, type: str, version: int, raw: bytes) -> Any:
        """``raw`` as the contract's current class.

        Raises ``Malformed`` (these bytes, or this reference, can never be opened) or
        ``UnknownSchema`` (a well-formed reference this process does not know yet).
        """
        return self.opener(type, version)(raw)

    def opener(self, type: str, version: int) -> Opener:
        """The function that opens records of one type and version; raises as ``open`` does."""
        found = self._openers.get((type, version))
        if found is None:
            raise self._unknown(type, version)
        return found

    def version(self, type: str) -> int:
        """The version this process seals ``type`` with, 0 where it has no contract."""
        return self._models.get(type, _NOTHING)[0]

    def _unknown(self, type: Any, version: Any) -> Malformed | UnknownSchema:
        if not (isinstance(type, str) and len(type) <= TYPE_CHARS_MAX and _TYPE.fullmatch(type)):
            shown = repr(type)[:80]
            return Malformed(f"the schema reference names no event type: {shown}")
        if not (isinstance(version, int) and 1 <= version <= VERSION_MAX):
            return Malformed(f"{type} has no version {version!r}: a version is a number from 1 on")
        known = sorted(v for t, v in self._openers if t == type)
        said = f"; known are {', '.join(map(str, known))}" if known else ""
        return UnknownSchema(f"{type}/{version} is not known here{said}")

    def _unsealable(self, model: Model) -> Problem:
        types = sorted(c.type for c in self.contracts.values() if c.model is model)
        if types:
            return Problem(
                "ambiguous_contract",
                f"{model.__qualname__} serves several types: {', '.join(types)}.",
                "Say which one, with seal_as.",
            )
        return Problem(
            "no_contract",
            f"{model.__module__}.{model.__qualname__} has no contract, so it cannot be published.",
            "Add a Contract for it to the flow's contracts.",
        )


def _classes(contracts: Iterable[Contract]) -> dict[Model, tuple[str, int]]:
    """Class to reference, leaving out classes that serve several types."""
    found: dict[Model, tuple[str, int]] = {}
    several: set[Model] = set()
    for contract in contracts:
        if contract.model in found:
            several.add(contract.model)
        found[contract.model] = (contract.type, contract.version)
    return {model: ref for model, ref in found.items() if model not in several}


def _check(contract: Contract) -> None:
    """Well-formed type, and older versions ascending without gap up to the current one."""
    if len(contract.type) > TYPE_CHARS_MAX or not _TYPE.fullmatch(contract.type):
        raise Problem(
            "contract_type",
            f"{contract.type!r} is no event type.",
            "Use lower-case words joined by dots, for example order.placed.",
        )
    if not 1 <= contract.version <= VERSION_MAX:
        raise Problem("contract_version", f"{contract.type}: versions count from 1 on.")
    _check_chain(contract, [older.version for older in contract.older])


def _check_chain(contract: Contract, versions: list[int]) -> None:
    """The chain must lead from its oldest version to the current one, step by step."""
    for version in versions:
        if versions.count(version) > 1:
            raise Problem(
                "upcast_twice", f"{contract.type}: version {version} has two upcasts.", "Keep one."
            )
    first = contract.version - len(versions)
    missing = sorted(set(range(min(versions, default=first), contract.version)) - set(versions))
    if missing:
        raise Problem(
            "upcast_gap",
            f"{contract.type}: no upcast from version {', '.join(map(str, missing))}, so records "
            f"of version {min(versions)} cannot reach version {contract.version}.",
            "Add the missing Older.",
        )
    if versions != list(range(first, contract.version)) or first < 1:
        raise Problem(
            "upcast_order",
            f"{contract.type}: older versions are {versions}, the current one is "
            f"{contract.version}.",
            "List older versions below the current one, oldest first.",
        )


def _openers(contract: Contract) -> Iterable[tuple[int, Opener]]:
    yield contract.version, _current(contract)
    for at, older in enumerate(contract.older):
        yield older.version, _older(contract, older, contract.older[at:])


def _refusal(contract: Contract, version: int, error: Exception) -> Malformed:
    return Malformed(f"{contract.type}/{version}: {error}"[:TEXT_CHARS_MAX])


def _current(contract: Contract) -> Opener:
    decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(contract.model)
    decode, version = decoder.decode, contract.version

    def open_(raw: bytes) -> Any:
        try:
            return decode(raw)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise _refusal(contract, version, error) from None

    return open_


def _older(contract: Contract, oldest: Older, chain: tuple[Older, ...]) -> Opener:
    decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(oldest.model)
    decode = decoder.decode

    def open_(raw: bytes) -> Any:
        try:
            value = decode(raw)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise _refusal(contract, oldest.version, error) from None
        for older in chain:
            value = _step(contract, older, value)
        if value.__class__ is not contract.model:
            wrong = TypeError(f"the upcasts end in {value.__class__.__qualname__}")
            raise _refusal(contract, oldest.version, wrong)
        return value

    return open_


def _step(contract: Contract, older: Older, value: Any) -> Any:
    """One upcast. It runs on a record that came from far away, so any failure is the record's."""
    try:
        return older.upcast(value)
    except Exception as error:
        said = f"the upcast failed: {type(error).__name__}: {error}"
        raise _refusal(contract, older.version, ValueError(said)) from error

"""Money: price lists, lines frozen in minor units, and splits that lose nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from penstock.flows.orders.events import Line

AMOUNT_MAX = 1 << 53  # beyond it JSON numbers of other languages lose pennies
BASIS_POINTS = 10_000

# Digits after the point, by ISO 4217; every other currency has two.
_NO_MINOR = ["BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX"]
_NO_MINOR += ["UYI", "VND", "VUV", "XAF", "XOF", "XPF"]
_THREE_MINOR = ["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"]
_DECIMALS = dict.fromkeys(_NO_MINOR, 0) | dict.fromkeys(_THREE_MINOR, 3)


class Overflow(ValueError):
    """An amount too large to be exact everywhere."""


class Break(Struct, frozen=True, kw_only=True):
    """A unit price from a quantity and a time (ms) on."""

    minimum_quantity: int
    valid_from: int
    unit_minor: int


class PriceList(Struct, frozen=True, kw_only=True):
    """All prices of one SKU in one currency."""

    breaks: tuple[Break, ...] = ()

    def unit_minor(self, quantity: int, at: int) -> int | None:
        """The unit price for a quantity at a time: the largest break, its latest price."""
        fits = [b for b in self.breaks if b.minimum_quantity <= quantity and b.valid_from <= at]
        best = max(fits, key=lambda b: (b.minimum_quantity, b.valid_from), default=None)
        return None if best is None else best.unit_minor

    def with_break(self, new: Break) -> PriceList:
        """With one price added, or replaced where quantity and time are the same."""
        place = (new.minimum_quantity, new.valid_from)
        others = [b for b in self.breaks if (b.minimum_quantity, b.valid_from) != place]
        return PriceList(breaks=tuple(sorted([*others, new], key=_place_of)))


def _place_of(one: Break) -> tuple[int, int]:
    return one.minimum_quantity, one.valid_from


class Wanted(Struct, frozen=True, kw_only=True):
    """A line before its money is frozen."""

    sku: str
    quantity: int
    unit_minor: int
    kind: str = "item"
    description: str = ""
    tax_rate_bp: int = 0


def split(total: int, weights: Sequence[int]) -> list[int]:
    """Split an amount by weights so that nothing is lost: the largest remainders get the rest.

    Equal remainders go to the earlier one. With no weight at all the first takes everything.
    """
    whole = sum(weights)
    if whole == 0:
        return [total if i == 0 else 0 for i in range(len(weights))]
    shares = [total * weight // whole for weight in weights]
    order = sorted(range(len(weights)), key=lambda i: (-(total * weights[i] % whole), i))
    for i in order[: total - sum(shares)]:
        shares[i] += 1
    return shares


def freeze(wanted: Sequence[Wanted], discount_minor: int = 0) -> tuple[Line, ...]:
    """The lines with their money: the discount split by value, the tax per rate split by net.

    Raises Overflow where an amount leaves the range that is exact everywhere.
    """
    full = [w.quantity * w.unit_minor for w in wanted]
    if sum(full) >= AMOUNT_MAX:
        raise Overflow("the order's amount is too large")
    shares = split(min(discount_minor, sum(full)), full)
    nets = [value - share for value, share in zip(full, shares, strict=True)]
    taxes = _taxes([w.tax_rate_bp for w in wanted], nets)
    if sum(nets) + sum(taxes) >= AMOUNT_MAX:
        raise Overflow("the order's amount is too large")
    return tuple(
        Line(
            line=number, sku=w.sku, quantity=w.quantity, unit_minor=w.unit_minor, net_minor=net,
            tax_minor=tax, gross_minor=net + tax, discount_minor=share,
            tax_rate_bp=w.tax_rate_bp, kind=w.kind, description=w.description,
        )
        for number, (w, net, tax, share) in enumerate(
            zip(wanted, nets, taxes, shares, strict=True), start=1
        )
    )


def _taxes(rates: Sequence[int], nets: Sequence[int]) -> list[int]:
    """Tax is due on the sum of each rate (half up); the lines of that rate share it."""
    taxes = [0] * len(nets)
    for rate in set(rates) - {0}:
        places = [i for i, other in enumerate(rates) if other == rate]
        part = [nets[i] for i in places]
        due = (sum(part) * rate + BASIS_POINTS // 2) // BASIS_POINTS
        for i, tax in zip(places, split(due, part), strict=True):
            taxes[i] = tax
    return taxes


def total(lines: Iterable[Line]) -> int:
    """What all lines cost together, tax included."""
    return sum(line.gross_minor for line in lines)


def decimals_of(currency: str) -> int:
    """Digits after the point of a currency's amounts."""
    return _DECIMALS.get(currency, 2)


def money(minor: int, currency: str) -> str:
    """An amount as people read it: ``12.30 GBP``."""
    decimals = decimals_of(currency)
    sign, digits = ("-" if minor < 0 else ""), str(abs(minor)).rjust(decimals + 1, "0")
    point = len(digits) - decimals
    text = digits if decimals == 0 else f"{digits[:point]}.{digits[point:]}"
    return f"{sign}{text} {currency}"


def unknown_prices(
    lines: Sequence[tuple[str, int]], lists: Mapping[str, PriceList | None], at: int
) -> list[int]:
    """Places of the (SKU, quantity) lines for which there is no price at that time."""
    missing = []
    for place, (sku, quantity) in enumerate(lines):
        prices = lists.get(sku)
        if prices is None or prices.unit_minor(quantity, at) is None:
            missing.append(place)
    return missing

"""One page about a batch of simulated runs: what struck, what was never reached, what was seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from penstock.sim.faults import CLASSES, SITES

BAR_CHARS = 30
STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;"
    "color:#1b1b1b;background:#fff}table{border-collapse:collapse;width:100%}"
    "td,th{text-align:left;padding:.2rem .6rem .2rem 0;border-bottom:1px solid #ddd}"
    "td.n{text-align:right;font-variant-numeric:tabular-nums}"
    "i{display:inline-block;height:.7em;background:#3b6ea5}.bad{color:#a4262c}"
)


def by_class(found: Mapping[str, Any]) -> dict[str, int]:
    """Firings per fault class, every class listed."""
    counts = Counter(dict.fromkeys(CLASSES, 0))
    for site, fired in found["fired"].items():
        counts[SITES.get(site, "outside")] += fired
    return dict(counts)


def never_fired(found: Mapping[str, Any]) -> list[str]:
    """Sites that no fault has struck; those that were not even passed say so."""
    known = {*SITES, *found["visited"]}
    return [
        site if found["visited"].get(site) else f"{site} (never passed)"
        for site in sorted(known) if not found["fired"].get(site)
    ]


def page(found: Mapping[str, Any]) -> str:
    """The page as plain text."""
    return "".join(f"{line}\n" for line in _lines(found))


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    yield headline(found)
    yield ""
    yield "Faults fired, by class"
    yield from _bars(by_class(found))
    yield ""
    yield "Sites never struck"
    yield from (f"  {site}" for site in never_fired(found) or ["none: every site was struck"])
    yield ""
    yield "Rules, and what they examined"
    broken = Counter(v["rule"] for v in found["violations"])
    for rule, count in found["examined"].items():
        verdict = f"{broken[rule]} VIOLATED" if broken[rule] else ("ok" if count else "SAW NOTHING")
        yield f"  {rule:<6} {count:>12,}  {verdict}"
    yield ""


def headline(found: Mapping[str, Any]) -> str:
    """The sums in a sentence."""
    return (
        f"{found['seeds']:,} seeds, {found['orders']:,} orders, {found['handled']:,} records "
        f"handled in {found['turns']:,} turns, {sum(found['fired'].values()):,} faults fired, "
        f"{len(found['violations']):,} violations; {found['seconds']} s "
        f"({found['handled_per_second']:,} records/s); trace {found['trace']}"
    )


def _bars(counts: Mapping[str, int]) -> Iterator[str]:
    most = max([*counts.values(), 1])
    for name, count in counts.items():
        bar = "#" * round(BAR_CHARS * count / most) or ("." if count else "")
        yield f"  {name:<12} {count:>9,} {bar:<{BAR_CHARS}} {CLASSES[name]}".rstrip()


def html(found: Mapping[str, Any]) -> str:
    """The page for a browser: one file that needs nothing else."""
    counts = by_class(found)
    most = max([*counts.values(), 1])
    faults = "".join(
        f"<tr><td>{escape(name)}</td><td class=n>{count:,}</td><td><i style='width:"
        f"{12 * count / most:.2f}rem'></i></td><td>{escape(CLASSES[name])}</td></tr>"
        for name, count in counts.items()
    )
    sites = "".join(f"<li>{escape(site)}</li>" for site in never_fired(found))
    rules = "".join(
        f"<tr><td>{escape(rule)}</td><td class=n>{count:,}</td></tr>"
        for rule, count in found["examined"].items()
    )
    wrong = "".join(
        f"<tr class=bad><td>{v['seed']}</td><td>{escape(v['rule'])}</td><td>{escape(v['key'])}</td>"
        f"<td>{escape(v['detail'])}</td></tr>"
        for v in found["violations"]
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>penstock sim</title>"
        f"<style>{STYLE}</style><h1>Simulated runs</h1><p>{escape(headline(found))}</p>"
        f"<h2>Violations</h2><table>{wrong or '<tr><td>none</td></tr>'}</table>"
        f"<h2>Faults fired</h2><table>{faults}</table>"
        f"<h2>Sites never struck</h2><ul>{sites or '<li>none</li>'}</ul>"
        f"<h2>Rules, and what they examined</h2><table>{rules}</table></html>\n"
    )

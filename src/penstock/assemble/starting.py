"""Making a home ready: its folders, its stamp, its topics; on a cluster the database as well."""

from __future__ import annotations

import json

from penstock import __version__
from penstock.assemble.house import House, make_home, specs
from penstock.assemble.stores import make_log
from penstock.engine.runner import write_whole
from penstock.errors import Conflict

HOME_FORMAT = 1


def prepare(house: House, *, make: bool = False) -> None:
    """Make the home folder and every topic; refuse one that a newer penstock wrote. On a cluster
    topics and tables are made only with ``make``: there it is one person's deed, not that of
    every process that starts."""
    make_home(house)
    (house.run / "status").mkdir(exist_ok=True)
    _stamp(house)
    if house.cluster is None:
        log = make_log(house)
        log.ensure(specs(house.catalog))
        log.close()
    elif make:
        house.cluster.make(specs(house.catalog), house.flow)
        house.cluster.refuse_moving()
    else:
        house.cluster.check()
        house.cluster.refuse_moving()


def _stamp(house: House) -> None:
    """Refuse a home that a newer penstock wrote; say who made a new one."""
    stamp = house.home / "home.json"
    if not stamp.exists():
        write_whole(stamp, {"format": HOME_FORMAT, "penstock": __version__}, durable=True)
        return
    found = json.loads(stamp.read_text())
    if found.get("format", 0) > HOME_FORMAT:
        raise Conflict(
            "newer_home",
            f"{house.home} was made by penstock {found.get('penstock')} (format "
            f"{found['format']}); this is {__version__} (format {HOME_FORMAT}).",
            "Run the newer penstock, or choose another folder with --home.",
        )

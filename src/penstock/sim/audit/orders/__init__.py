"""What an audit knows of orders: the invariants I1 to I15, and who reads what.

Written down from the documents alone, without a look at the services: two books of one domain,
so that a mistake in one is seen by the other.
"""

from __future__ import annotations

from penstock.sim.audit.books import Rule
from penstock.sim.audit.orders.charges import no_charge_for_nothing, no_double_charge
from penstock.sim.audit.orders.ends import one_end
from penstock.sim.audit.orders.mails import told_once
from penstock.sim.audit.orders.money import money_is_conserved, nothing_is_kept_for_nothing
from penstock.sim.audit.orders.parcels import paid_and_reserved_first, quantities_add_up
from penstock.sim.audit.orders.placing import (
    nothing_is_invented,
    nothing_is_lost,
    one_order_per_key,
)
from penstock.sim.audit.orders.reads import READS
from penstock.sim.audit.orders.steps import legal_steps
from penstock.sim.audit.orders.stock import (
    nothing_is_oversold,
    reservations_end_once,
    stock_is_conserved,
)

__all__ = ["READS", "RULES"]

RULES: tuple[Rule, ...] = (
    Rule("I1", "no acknowledged order, cancellation or load is lost", nothing_is_lost,
         ("journal",)),
    Rule("I2", "every order was asked for, and not refused", nothing_is_invented, ("journal",)),
    Rule("I3", "one order per client and key, as it was asked for, with one reply",
         one_order_per_key),
    Rule("I4", "every order comes to exactly one end", one_end),
    Rule("I5", "only legal steps, each with its reason", legal_steps),
    Rule("I6", "nobody is charged twice, or beyond the order's total", no_double_charge,
         ("payments",)),
    Rule("I7", "no charge without an order, no refund above the charge, ledger and log agree",
         no_charge_for_nothing, ("payments",)),
    Rule("I8", "money is conserved, in whole minor units", money_is_conserved),
    Rule("I9", "who gets nothing pays nothing, and nothing stays set aside",
         nothing_is_kept_for_nothing, ("payments",)),
    Rule("I10", "nothing is oversold", nothing_is_oversold),
    Rule("I11", "stock is conserved", stock_is_conserved),
    Rule("I12", "every reservation is consumed or released once", reservations_end_once),
    Rule("I13", "nothing leaves before it is paid and reserved", paid_and_reserved_first),
    Rule("I14", "quantities add up, one label a parcel", quantities_add_up),
    Rule("I15", "the customer is told everything once", told_once, ("mail",)),
)  # fmt: skip

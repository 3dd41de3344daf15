"""The walks of LIFECYCLE.md as scripts over a shop; a seed chooses the interleaving."""

from __future__ import annotations

from collections.abc import Callable

from tests.flows.orders.shop import POST, Carrier, Provider, Shop, line, placed

Walk = Callable[[int], Shop]


def completed(seed: int) -> Shop:
    """The plain order."""
    shop = Shop(seed)
    shop.place()
    shop.finish()
    return shop


def scanned_early(seed: int) -> Shop:
    """The van comes at any time; scans race the label, the capture and everything else."""
    shop = Shop(seed)
    shop.place()
    for _ in range(30):
        shop.bus.steps(2)
        shop.drive()
    shop.finish()
    return shop


def carriage_alone(seed: int) -> Shop:
    """Nothing to keep and nothing to send."""
    shop = Shop(seed)
    shop.place(placed(POST))
    shop.finish()
    return shop


def cancel_early(seed: int) -> Shop:
    """Cancel before the authorisation answers (or not: the bus decides)."""
    shop = Shop(seed)
    shop.place()
    shop.cancel()
    shop.finish()
    return shop


def cancel_any_time(seed: int) -> Shop:
    """Cancel after any number of turns, and once more a little later."""
    shop = Shop(seed)
    shop.place()
    shop.bus.steps(seed % 37)
    shop.cancel()
    shop.bus.steps(seed % 5)
    if seed % 3 == 0:
        shop.cancel()
    shop.finish()
    return shop


def cancel_while_capturing(seed: int) -> Shop:
    """The wish meets the money on its way."""
    shop = Shop(seed)
    shop.place()
    while (payment := shop.state("payment", "payment")) is None or payment.state == "authorising":
        shop.bus.steps(1)
    shop.cancel()
    shop.finish()
    return shop


def cancel_labelled(seed: int) -> Shop:
    """After the label, before the scan."""
    shop = Shop(seed)
    shop.place()
    shop.bus.run()
    shop.cancel()
    shop.bus.run()
    shop.finish()
    return shop


def scan_and_cancel(seed: int) -> Shop:
    """Scan and cancel at once: shipping decides."""
    shop = Shop(seed)
    shop.place()
    shop.bus.run()
    shop.cancel()
    shop.bus.steps(seed % 4)
    shop.drive()
    shop.finish()
    return shop


def cancel_refused(seed: int) -> Shop:
    """The carrier keeps the label: the order goes on."""
    shop = Shop(seed, carrier=Carrier(void="decline"))
    shop.place()
    shop.bus.run()
    shop.cancel()
    shop.bus.steps(seed % 9)
    shop.cancel()
    shop.finish()
    return shop


def short(seed: int) -> Shop:
    """164 lines, one short: all are rejected, while the authorisation is under way."""
    stock = {f"S{n}": 1 for n in range(164)} | {"S77": 0}
    shop = Shop(seed, stock=stock)
    shop.place(placed(*(line(sku) for sku in stock)))
    shop.finish()
    return shop


def declined(seed: int) -> Shop:
    """The provider says no."""
    shop = Shop(seed, Provider(authorise="decline"))
    shop.place()
    shop.finish()
    return shop


def webhook_first(seed: int) -> Shop:
    """The webhooks come before the calls' own answers (an answer lost, then found)."""
    shop = Shop(seed, Provider(authorise="webhook", capture="webhook"))
    shop.place()
    shop.finish()
    return shop


def capture_failed(seed: int) -> Shop:
    """The capture is refused."""
    shop = Shop(seed, Provider(capture="decline"))
    shop.place()
    shop.finish()
    return shop


def delivered_alone(seed: int) -> Shop:
    """The delivery scan comes without, or before, the handover."""
    shop = Shop(seed, carrier=Carrier(scans=("delivered", "delivered,handover")[seed % 2]))
    shop.place()
    shop.finish()
    return shop


def undeliverable(seed: int) -> Shop:
    """The carrier makes no label for that address."""
    shop = Shop(seed, carrier=Carrier(label="decline"))
    shop.place()
    shop.finish()
    return shop


def deadline(seed: int) -> Shop:
    """The provider is silent for a day."""
    shop = Shop(seed)
    answer = shop.bus.gateways.pop("payments")
    shop.bus.gateways["payments"] = lambda ask, key: answer(ask, key)
    shop.place()
    silent = ("payment", "payments", "o-1")
    while silent not in shop.bus.open:
        shop.bus.steps(1)
    held = shop.bus.open.pop(silent)
    shop.bus.run()
    shop.bus.pass_time()
    shop.bus.run()
    shop.bus.open[silent] = held
    shop.finish()
    return shop


def last_piece(seed: int) -> Shop:
    """Two orders for the last piece."""
    shop = Shop(seed, stock={"POT": 1})
    for key in ("o-1", "o-2"):
        shop.place(placed(line("POT")), key)
    shop.finish()
    return shop


def wrong_amount(seed: int) -> Shop:
    """The provider takes another amount: a person looks, and gives it up."""
    shop = Shop(seed, Provider(capture="wrong"))
    shop.place()
    shop.bus.run()
    assert shop.order().state == "on_hold"
    shop.bus.decide_parked(retry=True)
    shop.bus.run()
    assert shop.order().state == "on_hold"
    return shop


def abandoned(seed: int) -> Shop:
    """The provider never gave a definite answer: a person gives it up."""
    shop = Shop(seed, Provider(authorise="expire"))
    shop.place()
    shop.bus.run()
    assert shop.order().state == "on_hold"
    shop.bus.decide_parked(retry=False)
    shop.finish()
    return shop


WALKS: dict[str, Walk] = {
    walk.__name__: walk
    for walk in (
        completed, scanned_early, carriage_alone, cancel_early, cancel_any_time,
        cancel_while_capturing, cancel_labelled, scan_and_cancel, cancel_refused, short, declined,
        webhook_first, capture_failed, delivered_alone, undeliverable, deadline, last_piece,
        abandoned,
    )
}

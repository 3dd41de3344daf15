"""The table of DESIGN section 2: layers, pure zones, and what pure code uses instead."""

from __future__ import annotations

from collections.abc import Iterator

from tests.tidy.tree import Module, source, within

# Each layer may import those before it. Names in one row do not import each other.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "limits"),
    ("dotted",),
    ("event",),
    ("metrics",),
    ("decision",),
    ("entry",),
    ("finding",),
    ("flow",),
    ("ports",),
    ("conformance",),
    ("catalog",),
    ("contracts",),
    ("embedded",),
    ("log", "store"),
    ("engine",),
    ("rooms",),
    ("ops",),
    ("flows",),
    ("web",),
    ("assemble",),
    ("moving",),
    ("sim",),
    ("bench",),
    ("cli",),
)

PURE = (
    "penstock.errors",
    "penstock.limits",
    "penstock.event",
    "penstock.decision",
    "penstock.entry",
    "penstock.finding",
    "penstock.flow",
    "penstock.catalog",
    "penstock.contracts",
    "penstock.rooms",
    "penstock.ops.chain",
    "penstock.flows",
)

# Inside the pure zones, the modules that touch the world, each with its reason.
IMPURE = {
    "penstock.catalog.load": "reads the TOML files",
    "penstock.contracts.snapshot": "reads and writes the snapshots",
    "penstock.contracts.history": "asks git for the snapshots of a commit",
    "penstock.contracts.check": "holds the files against those of a commit",
    "penstock.flows.orders.gateways": "speaks to outside systems",
    "penstock.flows.orders.sandbox": "is an outside system: processes with ledgers of their own",
}

GATEWAY_PORTS = "a gateway speaks through ports.Gateway, from a gateways module"
ADAPTER = "answer a Decision: the engine touches the log and the store"
DERIVED = "derive ids: event.root_id, event.child_id"
BANNED_MODULES = {
    "time": "take now (ms) as an argument",
    "random": "take what varies as an argument",
    "secrets": "take what varies as an argument",
    "uuid.uuid1": DERIVED,
    "uuid.uuid4": DERIVED,
    "threading": "only the crew owns threads",
    "multiprocessing": "only the crew owns processes",
    "concurrent": "only the crew owns pools",
    "asyncio": "decides are synchronous; the crew and the web own loops",
    "queue": "ask for what you want: decision.Ask",
    "socket": "ask a gateway: decision.Ask",
    "ssl": "ask a gateway: decision.Ask",
    "http": "ask a gateway: decision.Ask",
    "httpx": "ask a gateway: decision.Ask",
    "smtplib": "ask a gateway: decision.Ask",
    "aiosmtpd": "ask a gateway: decision.Ask",
    "urllib.request": "ask a gateway: decision.Ask",
    "subprocess": "only the crew starts processes",
    "signal": "only the crew hears signals",
    "logging": "return a value: a Park's reason, a Finding",
    "os": "take what the environment holds as an argument",
    "pathlib": "take the text or the bytes as an argument",
    "shutil": "take the text or the bytes as an argument",
    "tempfile": "take the text or the bytes as an argument",
    "sqlite3": ADAPTER,
    "apsw": ADAPTER,
    "mmap": ADAPTER,
    "fcntl": ADAPTER,
    "litestar": "declare a Route in the flow",
    "click": "declare a Command in the flow",
    "penstock.ports": GATEWAY_PORTS,
    "penstock.conformance": ADAPTER,
    "penstock.embedded": ADAPTER,
    "penstock.log": ADAPTER,
    "penstock.store": ADAPTER,
    "penstock.engine": ADAPTER,
    "penstock.ops": ADAPTER,
    "penstock.web": "declare Routes and Panels in the flow",
    "penstock.assemble": ADAPTER,
    "penstock.cli": "declare Commands in the flow",
}

BANNED_CALLS = {
    "io.open": "take the text or the bytes as an argument",
    "open": "take the text or the bytes as an argument",
    "uuid.uuid1": DERIVED,
    "uuid.uuid4": DERIVED,
    "print": "return a value",
    "input": "take it as an argument",
    "datetime.datetime.now": "take now (ms) as an argument",
    "datetime.datetime.utcnow": "take now (ms) as an argument",
    "datetime.datetime.today": "take now (ms) as an argument",
    "datetime.date.today": "take now (ms) as an argument",
    "datetime.now": "take now (ms) as an argument",
    "datetime.utcnow": "take now (ms) as an argument",
    "date.today": "take now (ms) as an argument",
}


def is_pure(module: Module) -> bool:
    """Whether the module is in a pure zone and not among the named exceptions."""
    inside = any(within(module.name, zone) for zone in PURE)
    return inside and not any(within(module.name, name) for name in IMPURE)


def pure() -> Iterator[Module]:
    """The modules of the pure zones."""
    return (module for module in source() if is_pure(module))

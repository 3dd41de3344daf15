"""What both HTTP sandboxes do with a call: key, fault, first outcome, ledger, answer.

A plain ASGI application on one event loop. A sandbox brings its operations as pure functions; a
call is settled in one transaction without an await inside, so no two calls interleave there. A
hanging call waits on its own and blocks nobody.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Annotated, Any
from urllib.parse import parse_qs, unquote

import msgspec
from msgspec import Meta, Struct

from penstock.errors import StorageFull
from penstock.flows.orders.sandbox import faults
from penstock.flows.orders.sandbox.faults import CALM, Trouble
from penstock.flows.orders.sandbox.ledger import Call, Delivery, Effect, Fault, Ledger, Stored
from penstock.flows.orders.sandbox.pump import Pump
from penstock.limits import BODY_BYTES_MAX, IDEMPOTENCY_KEY_CHARS_MAX

Word = Annotated[str, Meta(min_length=1, max_length=255)]
Amount = Annotated[int, Meta(ge=0, lt=1 << 53)]  # minor units
Currency = Annotated[str, Meta(pattern=r"^[A-Z]{3}$(?!\n)")]

HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})  # a forged Host is DNS rebinding

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Body(Struct, frozen=True, kw_only=True):
    """What every operation's body has: the order it is for."""

    order: Word

    @property
    def part(self) -> str:
        """The group, refund or shipment of the order that it is about."""
        return ""


class Case(Struct, frozen=True, kw_only=True):
    """One call to decide: what was asked, when (ms), what happened before, the fault it meets."""

    key: str
    now: int
    body: Any
    history: tuple[Effect, ...]
    fault: str = ""


class Verdict(Struct, frozen=True, kw_only=True):
    """What an operation decides: the answer, and what happens in the world with it."""

    status: int
    answer: dict[str, Any]
    effect: Effect | None = None
    deliveries: tuple[Delivery, ...] = ()
    cancels: bool = False  # nothing more is sent about this part of the order


class Operation(Struct, frozen=True, kw_only=True):
    """One operation of a sandbox: its name, the type of its body, its decision."""

    name: str
    body: type[Body]
    decide: Callable[[Case], Verdict]


class Asked(Struct, frozen=True, kw_only=True):
    """One call as it came in: operation, key, body with its digest and its bytes."""

    operation: Operation
    key: str
    body: Body
    digest: str
    raw: bytes

    def call(self, outcome: str, status: int, fault: str, response: bytes) -> Call:
        """The ledger's row; ``status`` 0 is a call without an answer."""
        return Call(
            at=now_ms(),
            key=self.key,
            operation=self.operation.name,
            order=self.body.order,
            part=self.body.part,
            amount=getattr(self.body, "amount", None),
            currency=getattr(self.body, "currency", ""),
            outcome=outcome,
            status=status,
            fault=fault,
            request=self.raw.decode(),
            response=response.decode() if status else "",
        )


class Reply(Struct, frozen=True, kw_only=True):
    """An HTTP answer; ``silent`` is none at all for ``seconds``."""

    status: int
    body: bytes
    retry_after_seconds: float | None = None
    silent: bool = False
    seconds: float = 0.0


class Script(Struct, frozen=True, kw_only=True):
    """The body of POST /_faults."""

    operation: str
    fault: str
    order: str = "*"
    method: str = "*"
    times: Annotated[int, Meta(ge=1, le=1_000_000)] | None = 1
    seconds: Annotated[float, Meta(ge=0, le=86_400)] | None = None


def reply(status: int, answer: Any) -> Reply:
    """An answer as JSON."""
    return Reply(status=status, body=msgspec.json.encode(answer))


def now_ms() -> int:
    """The wall clock; a sandbox is the outside world, where time is real."""
    return time.time_ns() // 1_000_000


def digest_of(path: str, raw: bytes) -> str:
    """A digest of a body that spacing and the order of fields do not change."""
    canonical = msgspec.json.encode(msgspec.json.decode(raw), order="sorted")
    return hashlib.sha256(path.encode() + b"\n" + canonical).hexdigest()


def minted(prefix: str, *words: str) -> str:
    """An id that follows from ``words``, so that a repeat mints the same."""
    return f"{prefix}_{hashlib.sha256(chr(0).join(words).encode()).hexdigest()[:20]}"


class Desk:
    """The ASGI application of one sandbox.

    ``outcomes_at`` is the path under which a key's first outcome is found; ``known_faults`` what
    may be scripted. ``pump`` sends the webhooks. ``host`` is the address it listens on.
    """

    def __init__(
        self,
        ledger: Ledger,
        operations: Mapping[str, Operation],
        known_faults: frozenset[str],
        outcomes_at: str,
        pump: Pump,
        host: str = "",
    ) -> None:
        self._hosts = HOSTS | {host}
        self._ledger, self._operations, self._pump = ledger, operations, pump
        self._known_faults, self._outcomes_at = known_faults, outcomes_at
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Let go of every hanging call."""
        self._stopping.set()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one HTTP request."""
        if scope["type"] != "http":
            raise AssertionError(f"the sandbox serves HTTP only, not {scope['type']}")
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        raw = await _read(receive)
        if headers.get("host", "").rsplit(":", 1)[0] not in self._hosts:
            answer = reply(421, {"reason": "this sandbox serves its own machine only"})
        elif raw is None:
            answer = reply(413, {"reason": f"a body has at most {BODY_BYTES_MAX} bytes"})
        else:
            answer = await self._answer(scope, headers.get("idempotency-key", ""), raw)
        if answer.silent and await self._hang(receive, answer.seconds):
            return
        await _send(send, answer)

    async def _answer(self, scope: Message, key: str, raw: bytes) -> Reply:
        method, path = scope["method"], scope["path"]
        operation = self._operations.get(path)
        try:
            if operation and method == "POST":
                return await self._perform(operation, path, key, raw)
            query = parse_qs(scope["query_string"].decode("latin-1"))
            raw_path = (scope.get("raw_path") or path.encode()).decode("latin-1")
            return self._desk_work(method, raw_path, query, raw)
        except StorageFull as error:
            return reply(503, {"reason": f"the ledger cannot be written: {error}"})

    async def _perform(self, operation: Operation, path: str, key: str, raw: bytes) -> Reply:
        if not key or len(key) > IDEMPOTENCY_KEY_CHARS_MAX or not key.isprintable():
            return reply(400, {"reason": "Idempotency-Key is missing or malformed"})
        try:
            body, digest = msgspec.json.decode(raw, type=operation.body), digest_of(path, raw)
        except (msgspec.DecodeError, RecursionError) as error:
            return self._malformed(operation, key, raw, str(error))
        asked = Asked(operation=operation, key=key, body=body, digest=digest, raw=raw)
        met = self._trouble(asked)
        if met.fault == "slow":
            await asyncio.sleep(met.seconds)
        if met.fault in faults.NOTHING_DONE:
            return self._leave_undone(asked, met)
        answer = self._settle(asked, met.fault)
        if met.fault == "webhook_first":
            await self._pump.turn(now_ms(), body.order)  # the webhook overtakes the answer
        else:
            self._pump.wake()
        if met.fault == "5xx_after":
            return reply(500, {"reason": "internal error"})
        if met.fault == "timeout_after_charge":
            return Reply(status=504, body=b"{}", silent=True, seconds=met.seconds)
        return answer

    def _malformed(self, operation: Operation, key: str, raw: bytes, why: str) -> Reply:
        answer = reply(400, {"reason": why})
        self._record(
            Call(
                at=now_ms(),
                key=key,
                operation=operation.name,
                order="",
                part="",
                outcome="malformed",
                status=400,
                request=raw.decode("utf-8", "backslashreplace"),
                response=answer.body.decode(),
            )
        )
        return answer

    def _trouble(self, asked: Asked) -> Trouble:
        """What goes wrong with this call: by script first, then by its card."""
        name, body, ledger = asked.operation.name, asked.body, self._ledger
        repeat = ledger.stored(asked.key) is not None
        method = getattr(body, "method", "") or _method_in(ledger.history(body.order), body.part)
        met = faults.take_scripted(ledger, name, body.order, method, repeat)
        if met is not CALM or not method:
            return met
        same = ledger.count_calls(body.order, body.part, name)
        return faults.of_card(method, name, same, ledger.count_calls(body.order, body.part))

    def _leave_undone(self, asked: Asked, met: Trouble) -> Reply:
        """A fault before anything happened: noted, and nothing kept under the key."""
        if met.fault == "never_answers":
            answer = Reply(status=504, body=b"{}", silent=True, seconds=met.seconds)
            self._record(asked.call("silent", 0, met.fault, b""))
            return answer
        answer = reply(503, {"reason": "unavailable"})
        if met.fault == "429":
            body = b'{"reason":"too many requests"}'
            answer = Reply(status=429, body=body, retry_after_seconds=met.seconds)
        self._record(asked.call("unavailable", answer.status, met.fault, answer.body))
        return answer

    def _settle(self, asked: Asked, fault: str) -> Reply:
        """The first outcome of this key: found, or decided and durable when this returns."""
        stored = self._ledger.stored(asked.key)
        if stored is None:
            return self._decide(asked, fault)
        if stored.digest != asked.digest:
            answer = reply(422, {"reason": "this Idempotency-Key came with another body"})
            self._record(asked.call("mismatched", 422, fault, answer.body))
            return answer
        answer = Reply(status=stored.status, body=stored.response.encode())
        self._record(asked.call("repeated", _seen(fault, stored.status), fault, answer.body))
        return answer

    def _decide(self, asked: Asked, fault: str) -> Reply:
        now, history = now_ms(), tuple(self._ledger.history(asked.body.order))
        case = Case(key=asked.key, now=now, body=asked.body, history=history, fault=fault)
        verdict = asked.operation.decide(case)
        answer = reply(verdict.status, verdict.answer)
        outcome = "done" if verdict.status == 200 else "refused"
        stored = Stored(
            key=asked.key,
            operation=asked.operation.name,
            digest=asked.digest,
            status=verdict.status,
            response=answer.body.decode(),
        )
        with self._ledger.write():
            self._keep(verdict, asked.body, now)
            self._ledger.add(stored)
            self._ledger.add(asked.call(outcome, _seen(fault, verdict.status), fault, answer.body))
        return answer

    def _keep(self, verdict: Verdict, body: Body, now: int) -> None:
        if verdict.cancels:
            self._ledger.cancel(body.order, body.part, now)
        if verdict.effect:
            self._ledger.add(verdict.effect)
        for delivery in verdict.deliveries:
            self._ledger.add(delivery)

    def _record(self, call: Call) -> None:
        with self._ledger.write():
            self._ledger.add(call)

    def _desk_work(
        self, method: str, path: str, query: Mapping[str, list[str]], raw: bytes
    ) -> Reply:
        """The routes for people and tests: ledger, outcome by key, faults, health."""
        if method == "GET" and path.startswith(self._outcomes_at):
            return self._outcome(unquote(path[len(self._outcomes_at) :]))
        match method, path:
            case "GET", "/healthz":
                return reply(200, {"status": "ok"})
            case "GET", "/ledger":
                return self._pages(query)
            case "GET", "/_faults":
                return reply(200, {"faults": self._ledger.rows(Fault)})
            case "POST", "/_faults":
                return self._script(raw)
            case "DELETE", "/_faults":
                with self._ledger.write():
                    return reply(200, {"cleared": self._ledger.clear_faults()})
        return reply(404, {"reason": f"no such route: {method} {path}"})

    def _outcome(self, key: str) -> Reply:
        stored = self._ledger.stored(key)
        if stored is None:
            return reply(404, {"reason": "no outcome is kept under this key"})
        body = msgspec.Raw(stored.response.encode())
        return reply(
            200,
            {"key": key, "operation": stored.operation, "status": stored.status, "body": body},
        )

    def _pages(self, query: Mapping[str, list[str]]) -> Reply:
        """At most 1,000 rows of each table, of one order, after a sequence number."""
        order, after = query.get("order", [""])[0], query.get("after", ["0"])[0]
        if not after.isdecimal() or len(after) > 18:
            return reply(400, {"reason": "after is the last seq seen"})
        where, values = "seq > ?", [after]
        if order:
            where, values = f"{where} AND order_id = ?", [after, order]
        kinds: dict[str, type[Struct]] = {"calls": Call, "effects": Effect, "deliveries": Delivery}
        return reply(200, {n: self._ledger.rows(k, where, values) for n, k in kinds.items()})

    def _script(self, raw: bytes) -> Reply:
        try:
            script = msgspec.json.decode(raw, type=Script)
        except (msgspec.DecodeError, RecursionError) as error:
            return reply(400, {"reason": str(error)})
        names = {operation.name for operation in self._operations.values()} | {"*"}
        if script.fault not in self._known_faults or script.operation not in names:
            known = {"faults": sorted(self._known_faults), "operations": sorted(names)}
            return reply(400, {"reason": "unknown fault or operation", **known})
        fault = Fault(**msgspec.structs.asdict(script))
        with self._ledger.write():
            return reply(201, {"id": self._ledger.add(fault)})

    async def _hang(self, receive: Receive, seconds: float) -> bool:
        """Answer nothing for ``seconds``; true when the caller gave up before."""
        gone = asyncio.create_task(_disconnected(receive))
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({gone, stopping}, timeout=seconds, return_when="FIRST_COMPLETED")
        left = gone.done()
        for task in (gone, stopping):
            task.cancel()
        return left


def _seen(fault: str, status: int) -> int:
    """The status the caller sees: 0 where the answer is kept from it."""
    return {"timeout_after_charge": 0, "5xx_after": 500}.get(fault, status)


def _method_in(history: list[Effect], part: str) -> str:
    """The card that an order's group was authorised with (a refund names no group: any)."""
    cards = [e for e in history if e.operation == "authorise"]
    return next((e.method for e in cards if e.part == part), cards[0].method if cards else "")


async def _read(receive: Receive) -> bytes | None:
    """The whole body, or None when it is too long or the caller left."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > BODY_BYTES_MAX:
            return None
        if not message.get("more_body"):
            return bytes(body)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(send: Send, answer: Reply) -> None:
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(answer.body)).encode()),
    ]
    if answer.retry_after_seconds is not None:
        headers.append((b"retry-after", str(math.ceil(answer.retry_after_seconds)).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})

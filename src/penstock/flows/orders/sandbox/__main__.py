"""``python -m penstock.flows.orders.sandbox provider|carrier|mail --port N --home DIR``.

Prints one JSON line with the address when it listens, and ends with 0 on SIGTERM or SIGINT.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import uvicorn

from penstock.errors import Conflict, Problem
from penstock.flows.orders.sandbox import carrier, faults, provider
from penstock.flows.orders.sandbox.desk import Desk
from penstock.flows.orders.sandbox.ledger import Ledger
from penstock.flows.orders.sandbox.mailbox import LEDGER, Mailbox
from penstock.flows.orders.sandbox.pump import Pump

HOST = "127.0.0.1"
BACKLOG = 512
DRAIN_SECONDS = 5


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line; ends the process with 2 on wrong words."""
    parser = argparse.ArgumentParser(prog="penstock sandbox", description=__doc__)
    parser.add_argument("kind", choices=("provider", "carrier", "mail"))
    parser.add_argument("--port", type=int, default=0, help="0 takes any free port")
    parser.add_argument("--host", default=HOST, help="loopback unless told so")
    parser.add_argument("--home", type=Path, required=True, help="folder of the ledger")
    parser.add_argument("--door", default="", help="where webhooks go, http://HOST:PORT")
    parser.add_argument("--scans", choices=("on", "off"), default="on", help="carrier only")
    parser.add_argument("--handover-seconds", type=float, default=0.2)
    parser.add_argument("--delivery-seconds", type=float, default=0.4)
    return parser.parse_args(arguments)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ``Conflict`` when the port is taken."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # inherited by what is accepted: an answer leaves as two writes, and Nagle would hold the second
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        message = f"cannot listen on {host}:{port}: {error.strerror}."
        raise Conflict("port_taken", message, "Choose another --port, or 0 for any.") from error
    return listener


def announce(listener: socket.socket) -> None:
    """Say where the sandbox listens, in one line of JSON."""
    host, port = listener.getsockname()
    print(json.dumps({"listening": {"host": host, "port": port}}), flush=True)


class _Server(uvicorn.Server):
    """Lets hanging calls go when told to end: nobody waits for them."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(
            uvicorn.Config(
                desk,
                lifespan="off",
                log_level="warning",
                access_log=False,
                timeout_graceful_shutdown=DRAIN_SECONDS,
                timeout_keep_alive=75,
            )
        )
        self._desk = desk

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop, the hanging calls first."""
        self._desk.stop()
        await super().shutdown(sockets)


async def serve_http(args: argparse.Namespace, ledger: Ledger, listener: socket.socket) -> None:
    """Run the provider or the carrier until told to end."""
    pump = Pump(ledger, args.door)
    if args.kind == "provider":
        desk = Desk(ledger, provider.OPERATIONS, faults.PROVIDER, "/payments/", pump, args.host)
    else:
        pace = carrier.Pace(
            handover_seconds=args.handover_seconds,
            delivery_seconds=args.delivery_seconds,
            scans=args.scans == "on",
        )
        desk = Desk(ledger, carrier.operations(pace), faults.CARRIER, "/labels/", pump, args.host)
    pumping = asyncio.create_task(pump.run())
    serving = asyncio.create_task(_Server(desk).serve([listener]))
    await asyncio.wait({pumping, serving}, return_when="FIRST_COMPLETED")
    if pumping.done():  # our bug, or a disk that fails: end at once, the ledger knows the rest
        pumping.result()
    pumping.cancel()
    await pump.close()
    await serving


async def serve_mail(args: argparse.Namespace, ledger: Ledger, listener: socket.socket) -> None:
    """Run the mail server until told to end."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    server = await loop.create_server(Mailbox(ledger, args.home).server, sock=listener)
    await ended.wait()
    server.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sandbox; returns the exit code."""
    args = options(arguments)
    # uvicorn repeats the signal when it is done: without these the process would end by it
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    try:
        with contextlib.closing(listen(args.host, args.port)) as listener:
            name = LEDGER if args.kind == "mail" else f"{args.kind}.sqlite"
            with contextlib.closing(Ledger(args.home / name)) as ledger:
                announce(listener)
                serve = serve_mail if args.kind == "mail" else serve_http
                asyncio.run(serve(args, ledger, listener))
    except Problem as problem:
        print(problem, file=sys.stderr)
        return problem.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

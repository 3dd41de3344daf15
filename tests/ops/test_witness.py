"""The witnesses: a file that is appended and synced, a webhook that keeps what is posted."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from penstock.ops.chain import Checkpoint
from penstock.ops.reading import checkpoints_in
from penstock.ops.witness import file_witness, url_witness
from penstock.ports import Ok, Request, Unavailable, Unknown
from tests.support import unused_port

HASH = "ab" * 32


def asked(seq: int = 1, timeout_seconds: float = 5.0) -> Request:
    """One call as a courier makes it."""
    body = json.dumps({"seq": seq, "hash": HASH, "at": 5}, separators=(",", ":")).encode()
    return Request(
        name="checkpoint", key="k", idempotency_key=f"checkpoint-{seq}", body=body, attempt=1,
        timeout_seconds=timeout_seconds,
    )  # fmt: skip


def test_a_file_gets_a_line_for_each_head(tmp_path: Path) -> None:
    witness = file_witness({"path": str(tmp_path / "kept"), "timeout_seconds": 5})
    assert [witness.call(asked(seq)) for seq in (1, 2)] == [Ok(), Ok()]
    assert checkpoints_in([tmp_path / "kept"]) == [Checkpoint(1, HASH, 5), Checkpoint(2, HASH, 5)]
    assert os.stat(tmp_path / "kept").st_mode & 0o777 == 0o600


def test_a_line_that_a_death_cut_stays_a_line_of_its_own(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_bytes(b'{"seq":1,"ha')
    assert checkpoints_in([kept]) == []
    file_witness({"path": str(kept)}).call(asked(2))
    lines = kept.read_bytes().splitlines()
    assert lines[0] == b'{"seq":1,"ha'
    assert json.loads(lines[1])["seq"] == 2
    assert checkpoints_in([kept]) == [Checkpoint(2, HASH, 5)]


def test_a_file_that_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    found = file_witness({"path": str(tmp_path / "none" / "kept")}).call(asked())
    assert isinstance(found, Unavailable)
    assert "No such file" in found.reason


class Webhook(ThreadingHTTPServer):
    """Keeps what is posted; answers with ``status``, or not at all for 0."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, Any]] = []
        self.status, self.go_on = 204, threading.Event()
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                webhook.kept.append((self.headers["idempotency-key"], json.loads(body)))
                if not webhook.status:
                    webhook.go_on.wait(10)
                    return
                self.send_response(webhook.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}/kept"


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    """A webhook that listens."""
    found = Webhook()
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    yield found
    found.go_on.set()
    found.shutdown()
    found.server_close()
    thread.join()


def test_a_webhook_is_told_with_the_key_of_the_ask(webhook: Webhook) -> None:
    witness = url_witness({"url": webhook.url, "timeout_seconds": 5})
    assert witness.call(asked(7)) == Ok()
    assert webhook.kept == [("checkpoint-7", {"seq": 7, "hash": HASH, "at": 5})]
    witness.close()


@pytest.mark.parametrize("status", [302, 400, 503])
def test_a_webhook_that_refuses_is_told_again(webhook: Webhook, status: int) -> None:
    webhook.status = status
    witness = url_witness({"url": webhook.url, "timeout_seconds": 5})
    found = witness.call(asked())
    assert found == Unavailable(f"{webhook.url} answered {status}")
    witness.close()


def test_a_webhook_without_a_word_is_unknown(webhook: Webhook) -> None:
    webhook.status = 0
    witness = url_witness({"url": webhook.url, "timeout_seconds": 5})
    assert isinstance(witness.call(asked(timeout_seconds=0.2)), Unknown)
    witness.close()


def test_nobody_there_is_unavailable() -> None:
    witness = url_witness({"url": f"http://127.0.0.1:{unused_port()}", "timeout_seconds": 5})
    assert isinstance(witness.call(asked()), Unavailable)
    witness.close()

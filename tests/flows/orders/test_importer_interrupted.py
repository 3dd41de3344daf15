"""An import that is cut short says how to go on, and going on places nothing twice."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from importlib.resources import files
from pathlib import Path

import httpx
import pytest

from penstock.cli.sending import Answered, Sending, Silent, send
from penstock.flows.orders import importer
from penstock.flows.orders.importer import Request
from tests.flows.orders.loopback_door import LoopbackDoor, listening
from tests.support import eventually

SAMPLE = files(importer.SAMPLE[0]).joinpath(importer.SAMPLE[1]).read_bytes()
COMMAND = "from penstock.cli.importing import import_command; import_command()"


def test_ctrl_c_ends_with_the_account_so_far_and_a_second_run_finishes(
    python: str, home: Path, tmp_path: Path
) -> None:
    sample = tmp_path / "sample.csv"
    sample.write_bytes(SAMPLE)
    with listening(LoopbackDoor()) as door:
        words = [python, "-c", COMMAND, str(sample), "--home", str(home), "--url", door.url]
        words += ["-o", "json"]
        running = subprocess.Popen(
            [*words, "--rate", "20"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        eventually(lambda: len(door.placed) >= 3, 30)
        running.send_signal(signal.SIGINT)
        said, told = running.communicate(timeout=30)
        cut = json.loads(said)
        assert running.returncode == 8
        assert cut["orders"] < 112
        assert cut["outcomes"]["not_sent"] > 0
        assert sum(cut["outcomes"].values()) == cut["rows"]
        assert "run the same command again" in told
        assert "Traceback" not in told

        second = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
        done = json.loads(second.stdout)
        assert done["orders"] == len(door.placed) == 112
        assert done["outcomes"]["already_placed"] > 0
        assert sum(door.pieces.values()) == 84147


async def _sent(url: str, patience_seconds: float) -> list[Answered]:
    answers: list[Answered] = []
    call = Request(name="1001", path="/orders", key="import:x:1001", body=b"{}")
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        sending = Sending(in_flight=2, patience_seconds=patience_seconds)
        await send([call], client, sending, answers.append)
    return answers


def test_a_server_that_is_gone_ends_the_sending_and_refuses_nothing(free_port: int) -> None:
    with pytest.raises(Silent) as silent:
        asyncio.run(_sent(f"http://127.0.0.1:{free_port}", 0.05))
    assert "No answer for 1001" in silent.value.message

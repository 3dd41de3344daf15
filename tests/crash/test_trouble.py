"""Full disks, taken ports, foreign homes, broken catalogs: said in one line, mended in place."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from contextlib import closing
from pathlib import Path

import apsw
import httpx
import pytest

from penstock.embedded.schema import APPLICATION_ID
from penstock.flows.orders.routes import ORDER_EXAMPLE
from penstock.sim.crash.subject import FULL_AT_BYTES, PLENTY, command_line, running
from tests.crash.rig import Shop, all_end_right, open_shop
from tests.crash.test_kill import SHIPPED
from tests.support import eventually

# A full disk -------------------------------------------------------------------------------------


def test_a_full_disk_refuses_orders_only_and_goes_on_by_itself(tmp_path: Path) -> None:
    with open_shop(tmp_path) as (shop, client):
        client.stock("TEAPOT", 100)
        before = shop.pids()
        client.mixed("TEAPOT", 10)
        shop.limit_files(FULL_AT_BYTES)  # in mid-flow, for everybody
        refused = place(shop, "full-1")
        assert refused.status_code == 503
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["code"] == "storage_full"
        assert int(refused.headers["retry-after"]) > 0
        for path in ("/orders", "/", "/status", "/stock", "/topics", "/metrics", "/healthz"):
            assert client.get(path).status_code == 200, path
        assert "disk is full" in json.dumps(client.get("/readyz").json())
        with client.busy("TEAPOT", 5):
            shop.limit_files(PLENTY)
        all_end_right(shop, client)
        assert shop.pids() == before, "somebody was restarted"
        assert shop.stop() == 0


def test_who_dies_on_a_full_disk_comes_back(tmp_path: Path) -> None:
    with open_shop(tmp_path) as (shop, client):
        client.stock("TEAPOT", 100)
        client.mixed("TEAPOT", 5)
        shop.limit_files(FULL_AT_BYTES)
        pids = shop.pids()
        for member in ("order", "payment", "sandbox-payments", "door"):
            os.kill(pids[member], signal.SIGKILL)
            eventually(lambda m=member: successor(shop, m, pids[m]), what=f"{member} is back")
        shop.limit_files(PLENTY)
        client.mixed("TEAPOT", 5)
        all_end_right(shop, client)
        assert shop.process is not None
        assert shop.process.poll() is None


def place(shop: Shop, key: str) -> httpx.Response:
    """One order of the shipped example, sent once."""
    return httpx.post(
        f"{shop.url}/orders", json=ORDER_EXAMPLE, headers={"Idempotency-Key": key}, timeout=20,
        trust_env=False,
    )  # fmt: skip


def successor(shop: Shop, member: str, before: int) -> int | None:
    """Who runs in a dead member's place; found without the crew's file, which cannot be written."""
    words = {"door": " web ", "sandbox-payments": " provider "}.get(member, f" worker {member} ")
    found = [pid for pid in shop.family() if words in command_line(pid).replace("\0", " ")]
    return next((pid for pid in found if pid != before), None)


# A start that cannot be --------------------------------------------------------------------------


def start(shop: Shop, *words: str) -> tuple[int, str]:
    """What a command that must fail ends with and says; it leaves nothing running."""
    ended = subprocess.run(
        shop.command(*words), capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    return ended.returncode, ended.stderr


def one_line(said: str) -> str:
    """The only line there is."""
    (line,) = said.strip().splitlines()
    return line


def test_a_port_that_is_taken_is_named(home: Path, free_port: int) -> None:
    with closing(socket.create_server(("127.0.0.1", free_port))):
        code, said = start(Shop(home), "up", "--port", str(free_port))
    assert code == 5
    assert str(free_port) in one_line(said)
    assert "--port" in said


def test_a_home_of_a_newer_penstock_is_left_alone(home: Path) -> None:
    stamp = json.dumps({"format": 99, "penstock": "9.9.9"})
    (home / "home.json").write_text(stamp)
    code, said = start(Shop(home), "up", "--port", "0")
    assert code == 5
    assert "penstock 9.9.9 (format 99)" in one_line(said)
    assert "--home" in said
    assert (home / "home.json").read_text() == stamp
    assert not list(home.glob("*.db"))


def test_a_file_of_a_newer_format_is_left_alone(home: Path) -> None:
    with closing(apsw.Connection(str(home / "door.db"))) as db:
        db.execute(f"PRAGMA application_id={APPLICATION_ID}")
        db.execute("PRAGMA user_version=99")
    code, said = start(Shop(home), "up", "--port", "0")
    assert code == 5
    assert "door.db has format 99" in one_line(said)
    assert "--home" in said


@pytest.mark.parametrize("content", [b"not a database, " * 500, b"\x00" * 4096])
def test_a_file_that_is_no_database_is_named(home: Path, content: bytes) -> None:
    (home / "payment.db").write_bytes(content)
    code, said = start(Shop(home), "up", "--port", "0")
    assert code == 5
    assert "payment.db" in one_line(said)
    assert (home / "payment.db").read_bytes() == content


def test_a_home_in_use_says_by_whom(tmp_path: Path) -> None:
    with running(tmp_path / "home") as shop:
        code, said = start(shop, "up", "--port", "0")
        assert code == 5
        assert shop.process is not None
        assert f"pid {shop.process.pid}, {shop.url}" in one_line(said)
        assert "--home" in said
        assert place(shop, "still-there").status_code == 202


def test_a_broken_catalog_is_refused_with_every_error(tmp_path: Path) -> None:
    catalog = tmp_path / "catalog.toml"
    text = SHIPPED.read_text()
    lines = text.splitlines()
    for wrong, right in (("ownr", "owner"), ("partitoins", "class"), ("reades", "reads")):
        at = next(n for n, line in enumerate(lines) if line.startswith(f"{right} = "))
        lines[at] = lines[at].replace(right, wrong, 1)
    catalog.write_text("\n".join(lines))
    code, said = start(Shop(tmp_path / "home", catalog=catalog), "up", "--port", "0")
    assert code == 2
    for wrong in ("ownr", "partitoins", "reades"):
        number = next(n for n, line in enumerate(lines, 1) if line.startswith(f"{wrong} = "))
        assert any(f"{catalog}:{number}" in line and wrong in line for line in said.splitlines())
    assert not (tmp_path / "home").exists(), "something was started"


def test_a_worker_that_cannot_start_takes_the_rest_down(tmp_path: Path) -> None:
    catalog = tmp_path / "catalog.toml"
    catalog.write_text(SHIPPED.read_text().replace('"{payments_url}"', '"ftp://bank"'))
    shop = Shop(tmp_path / "home", catalog=catalog)
    try:
        code, said = start(shop, "up", "--port", "0")
        assert code == 1
        assert "payment did not start" in one_line(said)
        assert "ftp://bank" in said
        assert not shop.family()
    finally:
        shop.clean_up()

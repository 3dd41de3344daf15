"""The image, built by its own steps and started confined."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from penstock import __version__
from penstock.assemble.cluster import KAFKA_VARIABLE, POSTGRES_VARIABLE
from tests.deploy.image import Image, run, started
from tests.support import eventually

pytestmark = pytest.mark.hosts
SCRATCH = {"/tmp": "tmpfs", "/var/lib/penstock": "tmpfs"}
TRIES_TO_WRITE = """
import errno, os
for folder in ("/", "/opt/penstock/lib", "/usr/local/lib", "/etc"):
    try:
        open(os.path.join(folder, "written"), "w")
    except OSError as error:
        assert error.errno == errno.EROFS, error
    else:
        raise SystemExit(f"{folder} can be written")
for folder in ("/tmp", "/var/lib/penstock"):
    open(os.path.join(folder, "written"), "w").close()
lines = open("/proc/self/status").read().splitlines()
said = dict(line.split(":") for line in lines if line.startswith(("Cap", "NoN")))
assert {int(v, 16) for k, v in said.items() if k.startswith("Cap")} == {0}, said
print(os.getuid(), os.getgid(), os.getpid(), said["NoNewPrivs"].strip())
"""


def test_it_holds_what_the_lock_says_and_no_installer(image: Image) -> None:
    python = image.folder.path / "opt/penstock/bin"
    assert (python / "penstock").exists()
    assert not (python / "pip").exists()
    site = next((image.folder.path / "opt/penstock/lib").glob("python3*/site-packages"))
    assert not (site / "pip").exists()
    sources = {p for p in site.rglob("*.py") if "__pycache__" not in p.parts}
    compiled = {p.parent.parent / f"{p.name.split('.')[0]}.py" for p in site.rglob("*.pyc")}
    assert len(sources - compiled) < len(sources) / 100, "compiled beforehand"


def test_its_command_answers_as_nobody_on_a_read_only_root(image: Image) -> None:
    said = run(image.argv(["--version"], SCRATCH), image.environment({}))
    assert said == f"penstock, version {__version__}\n"
    run(image.argv(["catalog", "check"], SCRATCH), image.environment({}))


def test_it_is_confined(image: Image) -> None:
    argv = image.argv(["-c", TRIES_TO_WRITE], SCRATCH, entry=["python"])
    assert run(argv, image.environment({})) == "10001 10001 1 1\n"


def test_the_door_serves_in_it_and_drains(image: Image, tmp_path: Path, free_port: int) -> None:
    words = ["web", "--host", "127.0.0.1", "--port", str(free_port), "--name", "shop.example"]
    argv, url = image.argv(words, SCRATCH), f"http://127.0.0.1:{free_port}"
    with started(argv, image.environment({}), tmp_path / "web.log") as web:
        ask = {"Host": "shop.example"}

        def ready() -> bool:
            assert web.runs, web.said
            try:
                return httpx.get(f"{url}/health/ready", headers=ask).status_code == 200
            except httpx.TransportError:
                return False

        eventually(ready, 30, what="the door is ready")
        assert web.stop() == 0, web.said


def test_all_of_it_runs_in_one_container(image: Image, tmp_path: Path, free_port: int) -> None:
    argv = image.argv(["up", "--host", "127.0.0.1", "--port", str(free_port)], SCRATCH)
    with started(argv, image.environment({}), tmp_path / "up.log") as up:

        def ready() -> bool:
            assert up.runs, up.said
            return "Ctrl-C drains" in up.said

        eventually(ready, 60, what="everything is up")
        url = f"http://127.0.0.1:{free_port}/readyz"
        eventually(lambda: httpx.get(url).status_code == 200, 30, what="every service reports")
        assert up.stop() == 0, up.said


def test_without_its_database_it_says_what_to_do(image: Image, tmp_path: Path) -> None:
    names = {KAFKA_VARIABLE: "127.0.0.1:9"}
    argv = image.argv(["worker", "order"], SCRATCH)
    with started(argv, image.environment(names), tmp_path / "log") as worker:
        assert worker.process.wait(30) == 2
        assert POSTGRES_VARIABLE in worker.said

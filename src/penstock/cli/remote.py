"""Where the running penstock is, and a client to talk to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import httpx
import msgspec

from penstock.errors import Conflict, NotFound, Problem, Usage

UP_FILE = Path("run", "up.json")
TIMEOUT_SECONDS = 30.0
_FAILURES: dict[int, type[Problem]] = {404: NotFound, 409: Conflict, 400: Usage, 422: Usage}


class NotRunning(Problem):
    """Nothing answers where penstock should."""


def server_url(home: Path, url: str | None) -> str:
    """The server's address: as given, else the one ``penstock up`` left in the home folder."""
    if url:
        return _checked(url)
    try:
        said = msgspec.json.decode((home / UP_FILE).read_bytes(), type=dict[str, object])
    except (OSError, msgspec.DecodeError):
        raise not_running(f"under {home}") from None
    found = said.get("url")
    if not isinstance(found, str):
        raise not_running(f"under {home}")
    return _checked(found)


def not_running(where: str) -> NotRunning:
    """The one line for a caller whose server is not there."""
    return NotRunning("not_running", f"No penstock runs {where}.", "Start one: penstock up")


def client(
    server: str, *, name: str = "cli", timeout_seconds: float = TIMEOUT_SECONDS
) -> httpx.Client:
    """An HTTP client of that server, calling itself ``name`` at the door."""
    return httpx.Client(
        base_url=server,
        headers={"Penstock-Client": name},
        timeout=timeout_seconds,
        trust_env=False,  # a proxy of the environment has no business on loopback
    )


def answer_of(reply: httpx.Response) -> dict[str, Any]:
    """The JSON of a reply. Raises ``Problem`` with the server's own words where it refuses."""
    try:
        said = reply.json()
    except ValueError:
        said = {}
    if reply.is_success:
        return cast(dict[str, Any], said)
    kind = _FAILURES.get(reply.status_code, Problem)
    detail = said.get("detail") or said.get("title") or f"the server answered {reply.status_code}"
    where = f" ({said['field']})" if said.get("field") else ""
    sentence = f"{detail.removesuffix('.')}{where}."
    raise kind(said.get("code", "failed"), sentence, said.get("fix", ""))


def _checked(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise Usage("bad_url", f"{url!r} is no address.", "Give it as http://127.0.0.1:8080.")
    return url.rstrip("/")

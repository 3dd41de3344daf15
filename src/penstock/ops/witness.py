"""Witnesses of the journal: gateways that keep its head outside the host."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from penstock.ports import Ok, Outcome, Request, Unavailable, Unknown


class FileWitness:
    """Appends each head as a line of JSON to a file, and syncs it: on another disk, a share, a
    mount that only takes appends. A line may be there twice."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def call(self, request: Request) -> Outcome:
        """Append and sync. The line goes out in one write, after what a cut one may have left."""
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                size = os.fstat(fd).st_size
                torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
                line = (b"\n" if torn else b"") + request.body + b"\n"
                if os.write(fd, line) < len(line):  # the next one begins a line of its own
                    return Unavailable(f"{self._path}: no room for a whole line")
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            return Unavailable(f"{self._path}: {error.strerror}")
        return Ok()


class UrlWitness:
    """Posts each head as JSON, with an Idempotency-Key: a 2xx says that it is kept."""

    def __init__(self, url: str, timeout_seconds: float) -> None:
        self._url = url
        self._client = httpx.Client(timeout=timeout_seconds, trust_env=False)

    def call(self, request: Request) -> Outcome:
        """One POST. A refusal is tried again as well: the witness may be set up wrong today."""
        headers = {
            "content-type": "application/json", "idempotency-key": request.idempotency_key,
        }  # fmt: skip
        try:
            reply = self._client.post(
                self._url, content=request.body, headers=headers, timeout=request.timeout_seconds
            )
        except httpx.ConnectError as error:
            return Unavailable(f"{self._url}: {error}")
        except httpx.HTTPError as error:
            return Unknown(f"{self._url}: {type(error).__name__}: {error}")
        if reply.is_success:
            return Ok()
        return Unavailable(f"{self._url} answered {reply.status_code}")


    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def file_witness(settings: Mapping[str, Any]) -> FileWitness:
    """The factory of ``checkpoint-file``."""
    return FileWitness(Path(settings["path"]))


def url_witness(settings: Mapping[str, Any]) -> UrlWitness:
    """The factory of ``checkpoint-url``."""
    return UrlWitness(settings["url"], float(settings["timeout_seconds"]))

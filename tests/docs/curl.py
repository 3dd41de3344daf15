"""The few words of curl that the documents use, for machines without it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import httpx


def main() -> int:
    """Send one request and print the body of the reply."""
    words = argparse.ArgumentParser()
    words.add_argument("-s", action="store_true")
    words.add_argument("-X", dest="method")
    words.add_argument("-H", dest="headers", action="append", default=[])
    words.add_argument("-d", dest="content")
    words.add_argument("url")
    said = words.parse_args()
    body = said.content
    if body is not None and body.startswith("@"):
        body = Path(body[1:]).read_text()
    headers = dict(header.split(": ", 1) for header in said.headers)
    method = said.method or ("GET" if body is None else "POST")
    reply = httpx.request(method, said.url, content=body, headers=headers, trust_env=False)
    sys.stdout.write(reply.text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Certificates of a test's broker: an authority of its own, one for this machine's names."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from penstock.sim.servers.process import Absent

DAYS = "30"
NAMES = "subjectAltName=DNS:localhost,IP:127.0.0.1"


class Certificates:
    """A CA and a server certificate for ``localhost`` and ``127.0.0.1``, made by openssl."""

    def __init__(self, folder: Path) -> None:
        self.ca = folder / "ca.pem"
        self._authority_key = folder / "ca.key"
        self._key, self._certificate = folder / "server.key", folder / "server.pem"
        self._make()

    def _make(self) -> None:
        _openssl(
            "req", "-x509", *_key(self._authority_key), "-out", str(self.ca), "-days", DAYS,
            "-subj", "/CN=penstock test authority", "-addext", "keyUsage=critical,keyCertSign",
        )  # fmt: skip
        _openssl(
            "req", "-x509", *_key(self._key), "-out", str(self._certificate), "-days", DAYS,
            "-subj", "/CN=localhost", "-CA", str(self.ca), "-CAkey", str(self._authority_key),
            "-addext", NAMES, "-addext", "basicConstraints=CA:FALSE",
        )  # fmt: skip

    def settings(self) -> dict[str, str]:
        """What the broker needs: its key and chain, as PEM in the settings themselves."""
        chain = self._certificate.read_text() + self.ca.read_text()
        return {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.key": self._key.read_text(),
            "ssl.keystore.certificate.chain": chain,
            "ssl.client.auth": "none",
        }


def _key(path: Path) -> list[str]:
    return ["-newkey", "rsa:2048", "-nodes", "-keyout", str(path)]


def _openssl(*argv: str) -> None:
    found = shutil.which("openssl")
    if found is None:
        raise Absent("no openssl here to make a certificate with; apt-get install openssl")
    done = subprocess.run([found, *argv], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Absent(f"openssl {argv[0]}: {done.stderr[-800:]}")

"""The image without a container engine: the Dockerfile's own steps in a root folder of their own.

Every RUN line is executed as it stands, in a mount namespace, by ``chroot``: this machine's system
stands for the base image (read-only), a fresh virtual environment at ``/usr/local`` for its Python,
COPY copies what ``.dockerignore`` lets through. What comes out is started as a cluster would: as
the image's user, without capabilities, as process 1, on a root that is read-only but for the
mounts given. Needs root and Linux.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from penstock.sim.servers.process import Absent
from tests.deploy.dockerfile import ROOT, Instruction, Stage, kept_by_ignore, ours

SYSTEM = ("bin", "lib", "lib32", "lib64", "sbin", "usr")
# Of /etc, copies: mounts go below it. Names, the loader's cache, how pip finds its index.
ETC = ("group", "hosts", "ld.so.cache", "nsswitch.conf", "passwd", "pip.conf", "resolv.conf")
TOOLS = ("chroot", "mount", "setpriv", "unshare")
OUT_OF_REACH = ("Could not find a version", "Max retries", "Temporary failure", "NewConnection")
PROGRAMS = f"{os.environ['PATH']}:/usr/sbin:/sbin"
STEP_SECONDS, STOP_SECONDS = 300, 45
# The package index and its certificates, as whoever runs the tests has set them.
PASSED_ON = ("PIP_", "SSL_", "REQUESTS_", "HTTP_", "HTTPS_", "http_", "https_", "NO_PROXY")


def require() -> None:
    """Raises ``Absent`` where root folders cannot be entered."""
    lacking = [tool for tool in TOOLS if shutil.which(tool, path=PROGRAMS) is None]
    if lacking:
        raise Absent(f"to rehearse the image {', '.join(lacking)} of util-linux must be here")
    tried = ["unshare", "--mount", "--pid", "--fork", "chroot", "/", "true"]
    done = subprocess.run(tried, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Absent(f"to rehearse the image one must be root: {done.stderr.strip()}")


class Folder:
    """A root folder: the system below it, and what steps have put on top."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._bound: list[str] = []
        for name in ("dev", "etc", "proc", "tmp", "opt", "var/lib", *SYSTEM):
            self._stand_in(name)
        (path / "tmp").chmod(0o1777)
        for name in ETC:
            if Path("/etc", name).exists():
                shutil.copy(Path("/etc", name), path / "etc" / name)
        if Path("/etc/ssl").is_dir():
            self._bind("/etc/ssl")
        self._local = path.with_name(f"{path.name}-local")
        self._local.mkdir(exist_ok=True)
        if not sys.base_prefix.startswith("/usr"):
            self._bind(sys.base_prefix)

    def _stand_in(self, name: str) -> None:
        host = Path("/", name)
        if host.is_symlink():
            if not (self.path / name).is_symlink():
                (self.path / name).symlink_to(host.readlink())
        elif name in ("dev", *SYSTEM) and host.is_dir():
            self._bind(f"/{name}")
        elif name not in SYSTEM:
            (self.path / name).mkdir(parents=True, exist_ok=True)

    def _bind(self, path: str) -> None:
        (self.path / path[1:]).mkdir(parents=True, exist_ok=True)
        self._bound.append(path)

    def entered(self, mounts: Mapping[str, str] | None = None) -> list[str]:
        """The command before a command that is to run in here. With ``mounts`` (a path here to
        ``tmpfs`` or to a file or folder outside) all else is read-only."""
        here, closed = shlex.quote(str(self.path)), mounts is not None
        lines = [f"mount --bind {here} {here}"]
        lines += [f"mount --rbind {shlex.quote(p)} {here}{shlex.quote(p)}" for p in self._bound]
        lines += [f"mount --bind {shlex.quote(str(self._local))} {here}/usr/local"]
        lines += [f"mount -t proc proc {here}/proc"]
        if closed:
            shut = ["", "/usr/local", *(p for p in self._bound if p != "/dev")]
            lines += [f"mount -o remount,ro,bind {here}{shlex.quote(p)}" for p in shut]
        for target, source in (mounts or {}).items():
            lines.append(_mount(source, f"{here}{shlex.quote(target)}"))
        chroot = shutil.which("chroot", path=PROGRAMS)
        script = "\n".join([*lines, f'exec {chroot} {here} "$@"'])
        spaces = ["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
        return ["unshare", *spaces, "sh", "-euc", script, "sh"]

    def make_python(self, *, pip: bool) -> None:
        """A Python without any library but pip, where the base image has it."""
        base = Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}")
        argv = [str(base), "-m", "venv", *([] if pip else ["--without-pip"]), "/usr/local"]
        run([*self.entered(), *argv], {"PATH": "/usr/bin:/bin"})


def _mount(source: str, target: str) -> str:
    if source == "tmpfs":
        return f"mount -t tmpfs -o mode=1777,size=64m tmpfs {target}"
    return f"mount --bind -o ro {shlex.quote(source)} {target}"


def run(argv: Sequence[str], environment: Mapping[str, str]) -> str:
    """Run a step; what it printed. Raises ``Absent`` where it found no package index."""
    passed = {k: v for k, v in os.environ.items() if k.startswith(PASSED_ON)}
    done = subprocess.run(
        argv, env=passed | dict(environment), capture_output=True, text=True, check=False,
        timeout=STEP_SECONDS,
    )
    said = done.stdout + done.stderr
    if done.returncode and any(sign in said for sign in OUT_OF_REACH):
        raise Absent(f"no package index in reach to build the image from: {said[-400:]}")
    assert done.returncode == 0, f"{shlex.join(argv[-4:])} ended with {done.returncode}: {said}"
    return said


class Image:
    """The built image: its last stage's root folder, and how its processes start."""

    def __init__(self, scratch: Path) -> None:
        """Built in ``scratch``; several processes may want it there, the first one builds."""
        self._scratch = scratch
        self._folders: dict[str, Folder] = {}
        self.stage = ours()[-1]
        scratch.mkdir(exist_ok=True)
        turn = os.open(scratch, os.O_RDONLY)
        fcntl.flock(turn, fcntl.LOCK_EX)
        try:
            if not (scratch / "built").exists():
                self._build_all()
        finally:
            os.close(turn)
        self.folder = Folder(scratch / "final")

    def _build_all(self) -> None:
        for stage in ours():
            self._build(stage)
        for stage in ours()[:-1]:  # nothing but the last one is kept, as by an engine
            shutil.rmtree(self._scratch / stage.name)
            shutil.rmtree(self._scratch / f"{stage.name}-local")
        (self._scratch / "built").touch()

    def _build(self, stage: Stage) -> None:
        folder = Folder(self._scratch / (stage.name or "final"))
        folder.make_python(pip=any("pip" in one.rest for one in stage.of("RUN")))
        self._folders[stage.name] = folder
        at = "/"
        for one in stage.instructions:
            if one.word == "WORKDIR":
                at = one.rest
                (folder.path / at[1:]).mkdir(parents=True, exist_ok=True)
            elif one.word == "COPY":
                self._copy(one, folder.path / at[1:])
            elif one.word == "RUN":
                given = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/root"}
                step = f"cd {shlex.quote(at)}\n{one.rest}"
                run([*folder.entered(), "/bin/sh", "-euc", step], given | stage.environment)

    def _copy(self, one: Instruction, at: Path) -> None:
        stage = self._folders[one.source_stage].path if one.source_stage else ROOT
        for name in one.sources:
            source = stage / name.lstrip("/")
            target = at / one.target if not one.target.startswith("/") else None
            target = target or self._folders[""].path / one.target[1:]
            if source.is_dir():
                ignore = None if one.source_stage else _ignored
                shutil.copytree(source, target, symlinks=True, ignore=ignore, dirs_exist_ok=True)
            else:
                shutil.copy2(source, target / source.name if one.target.endswith("/") else target)

    def argv(
        self, words: Sequence[str], mounts: Mapping[str, str], entry: Sequence[str] = ()
    ) -> list[str]:
        """The command that runs the image with these words, confined as the manifests say."""
        user, group = self.stage.of("USER")[0].rest.split(":")
        confined = [
            "setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups",
            "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all",
        ]  # fmt: skip
        entry = entry or self.stage.of("ENTRYPOINT")[0].argv
        for target in mounts:
            (self.folder.path / target[1:]).parent.mkdir(parents=True, exist_ok=True)
            self._place(target, mounts[target])
        home = self.stage.of("WORKDIR")[0].rest
        there = ["sh", "-euc", f'cd {home}; exec "$@"', "sh"]
        return [*self.folder.entered(mounts), *confined, *there, *entry, *words]

    def _place(self, target: str, source: str) -> None:
        path = self.folder.path / target[1:]
        if source == "tmpfs" or Path(source).is_dir():
            path.mkdir(exist_ok=True)
        else:
            path.touch()

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        """What a process of it sees: nothing of ours."""
        return {**self.stage.environment, **more}


def _ignored(folder: str, names: list[str]) -> list[str]:
    below = Path(folder).relative_to(ROOT)
    return [name for name in names if not kept_by_ignore(str(below / name))]


class Started:
    """A running container, as far as we can tell one."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("w") as out:
            self.process = subprocess.Popen(argv, env=dict(environment), stdout=out, stderr=out)

    @property
    def said(self) -> str:
        """What it printed."""
        return self._log.read_text()

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def first(self) -> int:
        """The pid, seen from here, of the process that is 1 in there."""
        own = self.process.pid
        return int(Path(f"/proc/{own}/task/{own}/children").read_text().split()[0])

    def memory_kilobytes(self) -> int:
        """The resident memory of that process, with what it shares counted in full."""
        lines = Path(f"/proc/{self.first()}/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmRSS")))

    def stop(self) -> int:
        """SIGTERM, as an engine sends it; the exit code."""
        if self.runs:
            os.kill(self.first(), signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)


@contextmanager
def started(argv: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[Started]:
    """A container for as long as the block runs; killed, if it still runs then."""
    one = Started(argv, environment, log)
    try:
        yield one
    finally:
        one.process.kill()  # the namespace's processes go with it
        one.process.wait()

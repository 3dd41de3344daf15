"""What git knows of the snapshots: the files at the commit a check compares with."""

from __future__ import annotations

import subprocess
from pathlib import Path

from msgspec import Struct

from penstock.errors import NotFound

_DEFAULT_BRANCHES = ("origin/main", "origin/master", "main", "master")
_DEEPEN = "Fetch its history first: git fetch --unshallow (in CI: a checkout of full depth)."


class Baseline(Struct, frozen=True, kw_only=True):
    """The files (path in the folder, bytes) at ``commit``; ``name`` says which commit it is."""

    name: str
    commit: str
    files: dict[str, bytes]


class NoBaseline(Exception):
    """There is nothing to compare with; the text says why and what would help."""


def baseline(folder: Path, against: str | None = None) -> Baseline:
    """The folder at ``against`` (a git ref), or at the merge-base with the default branch.

    On the default branch itself that is the commit before, or the last one while the folder has
    changes. Raises ``NoBaseline`` outside git and in clones too shallow, ``NotFound`` for a ref
    that does not exist.
    """
    git = _Git(folder)
    commit, name = (git.named(against), against) if against else git.fork()
    return Baseline(name=name or "", commit=commit, files=git.files(commit) if commit else {})


class _Git:
    """git, asked about one folder of a work tree."""

    def __init__(self, folder: Path) -> None:
        self.start = next(p for p in (folder.resolve(), *folder.resolve().parents) if p.is_dir())
        top = self.ask("rev-parse", "--show-toplevel")
        if top is None:
            raise NoBaseline(f"{folder} is not in a git work tree, so nothing tells what changed.")
        self.top = Path(top)
        self.inside = folder.resolve().relative_to(self.top.resolve()).as_posix()
        if self.ask("rev-parse", "--verify", "--quiet", "HEAD^{commit}") is None:
            raise NoBaseline("The repository has no commit yet, so nothing tells what changed.")

    def run(self, *words: str) -> subprocess.CompletedProcess[bytes] | None:
        """One git command; None where there is no git."""
        try:
            return subprocess.run(
                ["git", "-C", str(self.start), *words], capture_output=True, check=False
            )
        except FileNotFoundError:
            return None

    def ask(self, *words: str) -> str | None:
        """Its answer, None where it has none."""
        done = self.run(*words)
        return done.stdout.decode().strip() if done is not None and not done.returncode else None

    @property
    def shallow(self) -> bool:
        return self.ask("rev-parse", "--is-shallow-repository") == "true"

    def commit(self, ref: str) -> str | None:
        return self.ask("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")

    def named(self, ref: str) -> str:
        """The commit of a ref that the caller chose."""
        found = self.commit(ref)
        if found:
            return found
        if self.shallow:
            raise NoBaseline(f"{ref} is not in this shallow clone. {_DEEPEN}")
        raise NotFound("no_such_ref", f"git knows no {ref!r}.", "Name a branch, tag or commit.")

    def fork(self) -> tuple[str, str]:
        """Where this line of work left the default branch; an empty commit means: nowhere yet."""
        branch = self.default_branch()
        base = self.ask("merge-base", "HEAD", branch)
        if base is None:
            why = _DEEPEN if self.shallow else "Name the commit with --against."
            raise NoBaseline(f"HEAD and {branch} have no common commit here. {why}")
        if base != self.commit("HEAD"):
            return base, f"the merge-base with {branch}"
        if self.ask("status", "--porcelain", "--", str(self.top / self.inside)):
            return base, "the last commit"
        return self.before_head()

    def before_head(self) -> tuple[str, str]:
        """On the default branch, with nothing changed: what the last commit did is looked at."""
        parent = self.commit("HEAD^")
        if parent:
            return parent, "the commit before the last"
        if self.shallow:
            raise NoBaseline(f"The commit before the last is not in this shallow clone. {_DEEPEN}")
        return "", "the first commit, which has nothing before it"

    def default_branch(self) -> str:
        named = self.ask("symbolic-ref", "--quiet", "--short", "refs/remotes/origin/HEAD")
        for branch in (named, *_DEFAULT_BRANCHES):
            if branch and self.commit(branch):
                return branch
        raise NoBaseline("There is no default branch to compare with. Name one with --against.")

    def files(self, commit: str) -> dict[str, bytes]:
        """The snapshots in the folder at that commit."""
        listed = self.run("ls-tree", "-r", "-z", "--name-only", "--full-tree", commit, self.inside)
        names = listed.stdout.decode().split("\0") if listed is not None else []
        found = {}
        for name in filter(None, names):
            if name.endswith(".avsc"):
                shown = self.run("cat-file", "blob", f"{commit}:{name}")
                assert shown is not None, "git was there a moment ago"
                inner = name if self.inside == "." else name.removeprefix(f"{self.inside}/")
                found[inner] = shown.stdout
        return found

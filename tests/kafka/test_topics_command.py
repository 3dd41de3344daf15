"""``penstock topics plan`` and ``apply``, as a person uses them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from penstock.cli.main import cli
from penstock.errors import CheckFailed, Conflict
from penstock.flows import orders
from penstock.ports import TopicSpec
from tests.kafka.rig import Desk

SHIPPED = Path(orders.__file__).parent / "catalog.toml"
NOWHERE = "postgresql://nobody@127.0.0.1:1/none"  # topics ask no database


class Shop:
    """The shipped flow on the run's broker, under a prefix of its own."""

    def __init__(self, folder: Path, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.desk, self._patch = folder, desk, monkeypatch
        self.declare()

    def declare(self, *changes: tuple[str, str]) -> None:
        """Write the catalog, with parts of the shipped text replaced."""
        text = SHIPPED.read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new, 1)
        kafka = f'\n[kafka]\nservers = "{self.desk.servers}"\nprefix = "{self.desk.prefix}"\n'
        database = f'[postgres]\ndsn = "{NOWHERE}"\n'
        (self.folder / "shop.toml").write_text(text + kafka + database)

    def run(self, *words: str, said: str = "") -> Result:
        """Run a command over the catalog."""
        catalog = str(self.folder / "shop.toml")
        argv = ["--home", str(self.folder / "home"), "--catalog", catalog, "topics", *words]
        return CliRunner().invoke(cli, argv, input=said)


@pytest.fixture
def shop(tmp_path: Path, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Shop:
    for name in ("PENSTOCK_KAFKA", "PENSTOCK_POSTGRES"):
        monkeypatch.delenv(name, raising=False)
    return Shop(tmp_path, desk, monkeypatch)


def changes(result: Result) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(result.stdout)
    return found


def test_plan_apply_and_a_change_of_the_catalog(shop: Shop) -> None:
    planned = shop.run("plan", "-o", "json")
    assert planned.exit_code == CheckFailed.exit_code
    assert {c["act"] for c in changes(planned)} == {"create"}

    unasked = shop.run("apply", said="n\n")
    assert unasked.exit_code != 0
    assert shop.run("plan").exit_code == CheckFailed.exit_code

    assert shop.run("apply", said="y\n").exit_code == 0
    again = shop.run("plan")
    assert (again.exit_code, again.stdout) == (0, "")
    assert "Nothing differs." in again.stderr

    shop.declare(("[topics.orders]\n", "[topics.orders]\nretention_bytes = 4000000\n"))
    (change,) = changes(shop.run("plan", "-o", "json"))
    assert (change["act"], change["what"], change["old"]) == ("set", "retention.bytes", "-1")
    assert shop.run("apply", "--yes").exit_code == 0
    assert shop.run("plan").exit_code == 0


def test_a_topic_with_another_count_is_refused_and_the_rest_is_done(shop: Shop) -> None:
    shop.desk.log(TopicSpec(name="orders", partitions=8), TopicSpec(name="older", partitions=1))
    done = shop.run("apply", "--yes")
    assert isinstance(done.exception, Conflict)
    assert "8, not 4" in str(done.exception)
    left = changes(shop.run("plan", "-o", "json"))
    assert [(c["act"], c["what"]) for c in left] == [
        ("refused", "partitions"), ("unknown", "topic"),
    ]  # fmt: skip


def test_in_a_home_folder_there_is_nothing_to_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PENSTOCK_KAFKA", "PENSTOCK_POSTGRES"):
        monkeypatch.delenv(name, raising=False)
    for words in (["plan"], ["apply"]):
        said = CliRunner().invoke(cli, ["--home", str(tmp_path), "topics", *words])
        assert said.exit_code == 0
        assert "nothing to plan" in said.stderr

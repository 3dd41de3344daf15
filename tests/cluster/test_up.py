"""The whole product on a broker and a database: the same commands, the same ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.stage import Stage, catalog_at


@pytest.fixture
def stage(tmp_path: Path, kafka: str, dsn: str, prefix: str) -> Stage:
    """A house nobody has started yet."""
    catalog = catalog_at(tmp_path, kafka, dsn, prefix)
    return Stage(tmp_path / "home", catalog)


def test_the_demo_ends_as_in_a_home_folder_and_is_audited(stage: Stage) -> None:
    said = stage.said("demo", "--exit", "--port", "0", "-o", "json")
    assert sum(said["states"].values()) == said["orders"] > 100
    assert {"completed", "cancelled", "on_hold"} <= said["states"].keys()
    assert said["arranged"]
    assert not list(stage.home.glob("*.db")), "no state lies in the home folder"
    audit = stage.run("audit")
    assert audit.returncode == 0, audit.stdout + audit.stderr


def test_what_is_not_prepared_says_what_to_run(stage: Stage) -> None:
    done = stage.run("worker", "order")
    assert done.returncode == 5
    assert "penstock db migrate" in done.stderr
    assert stage.run("db", "migrate").returncode == 0
    assert stage.run("topics", "apply", "--yes").returncode == 0
    again = stage.run("topics", "plan")
    assert again.returncode == 0, again.stdout + again.stderr


@pytest.mark.parametrize(
    ("given", "lacking"), [("PENSTOCK_KAFKA", "--postgres"), ("PENSTOCK_POSTGRES", "--kafka")]
)
def test_half_a_cluster_is_refused(tmp_path: Path, given: str, lacking: str) -> None:
    """It would write into the home folder what belongs elsewhere."""
    done = Stage(tmp_path / "home").run("worker", "order", **{given: "localhost:1"})
    assert done.returncode == 2
    assert lacking in done.stderr


def test_carrying_alone_is_for_clusters(tmp_path: Path) -> None:
    done = Stage(tmp_path / "home").run("courier")
    assert done.returncode == 2
    assert "each worker carries its own rows" in done.stderr

"""Links lead somewhere, and nothing that is written is out of reach."""

from __future__ import annotations

import pytest

from tests.docs.written import ROOT, Document, documents


@pytest.mark.parametrize("document", documents(), ids=lambda d: d.name)
def test_links_resolve(document: Document) -> None:
    dead = []
    for link in document.links:
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = link.partition("#")
        target = (document.path.parent / path).resolve() if path else document.path
        if not target.exists() or (anchor and anchor not in Document(target).anchors):
            dead.append(link)
    assert not dead, f"{document.name} links to what is not there: {dead}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, ahead = set(), [ROOT / "README.md"]
    while ahead:
        path = ahead.pop()
        if path in reached:
            continue
        reached.add(path)
        if path.suffix == ".md":
            here = Document(path).links
            local = (link.partition("#")[0] for link in here if "://" not in link)
            ahead += [(path.parent / link).resolve() for link in local if link]
    pages = set((ROOT / "docs").rglob("*.md")) | set((ROOT / "docs").rglob("*.svg"))
    assert not pages - reached, sorted(str(page) for page in pages - reached)


def test_the_changelog_has_a_place_for_what_is_not_released() -> None:
    assert "unreleased" in Document(ROOT / "CHANGELOG.md").anchors

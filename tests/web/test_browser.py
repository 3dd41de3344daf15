"""The page in a real browser: it shows, it refreshes, its forms work, nothing is blocked."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.web.small import Library

pytestmark = pytest.mark.browser


def test_a_person_finds_and_retries_a_dead_letter(
    page: Any, door: httpx.Client, library: Library
) -> None:
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    library.report()
    library.park("faust", b'{"title": 1}', offset=7, reason="title is no text")
    page.goto(str(door.base_url))
    page.click("text=Pause")
    assert page.locator("text=1 dead letter waits for a person").count() == 1
    page.click("#deadletters >> text=faust")
    page.fill("#reason-retry", "mended")
    page.click("button:has-text('Retry')")
    assert page.locator("text=Asked for: retry.").count() == 1
    assert library.wishes[0][1].reason == "mended"
    assert complaints == []


def test_it_refreshes_itself(page: Any, door: httpx.Client) -> None:
    page.goto(str(door.base_url))
    assert page.locator("text=No books yet").count() == 1
    door.post("/books", json={"title": "Faust"}, headers={"Idempotency-Key": "b-1"})
    page.wait_for_selector("text=Faust", timeout=15_000)


@pytest.mark.parametrize("width", [420, 1280])
def test_it_never_scrolls_sideways(
    page: Any, door: httpx.Client, library: Library, width: int
) -> None:
    door.post("/books", json={"title": "x" * 200}, headers={"Idempotency-Key": "k" * 200})
    library.park("k" * 200, b"x" * 5000, offset=7, reason="y" * 900)
    page.set_viewport_size({"width": width, "height": 900})
    for path in ("/?refresh=0", "/ui/deadletters/reader/books/1/7", "/ui/book/" + "k" * 200):
        page.goto(f"{door.base_url}{path}".replace("//ui", "/ui"))
        assert page.evaluate("document.documentElement.scrollWidth") <= width

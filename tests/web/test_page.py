"""The page for people: what it says, and what it never lets through."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest

from penstock.web.page import cell_of
from tests.web.small import Library

LETTER = "/ui/deadletters/reader/books/1/7"
FORM = {"reason": "mended"}


def shelve(door: httpx.Client, key: str, title: str) -> None:
    """One book on the shelf."""
    reply = door.post("/books", json={"title": title}, headers={"Idempotency-Key": key})
    assert reply.status_code == 202


def test_an_empty_home_says_what_to_do_next(door: httpx.Client, library: Library) -> None:
    library.report()
    text = door.get("/").text
    assert "No books yet. Try: POST /books." in text
    assert "./penstock up" in text
    assert "Nothing needs a look." in text


def test_the_home_page_says_what_runs_and_what_is_wrong(
    door: httpx.Client, library: Library
) -> None:
    gateways = {"press": {"state": "open", "open_rows": 3, "last_error": "refused"}}
    library.report(handled=1234567, gateways=gateways, trouble={"books[1]": "held: why"})
    crew = [{"name": "sandbox-press", "about": "Prints.", "pid": 17, "restarts": 3}]
    (library.home / "run" / "crew.json").write_text(json.dumps(crew))
    shelve(door, "b-1", "Faust")
    library.park("medea", b"{}", offset=7, reason="no such author")
    text = door.get("/").text
    for said in ("1\u202f234\u202f567", "reader holds back calls of press (refused)",
                 "reader, books[1]: held: why", "sandbox-press", "Latest books", "Faust",
                 'href="/ui/book/b-1"', f'href="{LETTER}"', "no such author"):  # fmt: skip
        assert said in text


def test_a_service_that_is_silent_is_named(door: httpx.Client) -> None:
    assert "reader does not run." in door.get("/").text


def test_it_refreshes_itself_until_paused(door: httpx.Client) -> None:
    assert '<meta http-equiv="refresh" content="2">' in door.get("/").text
    paused = door.get("/?refresh=0").text
    assert "http-equiv" not in paused
    assert "Resume" in paused


@pytest.mark.parametrize("path", ["/", "/ui/deadletters", "/ui/book/none", "/static/penstock.css"])
def test_the_browser_is_told_to_run_nothing(door: httpx.Client, path: str) -> None:
    reply = door.get(path)
    policy = reply.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert "<script" not in reply.text
    assert "style=" not in reply.text


def test_what_came_from_outside_is_text(door: httpx.Client, library: Library) -> None:
    evil = "<img src=x onerror=alert(1)>"
    shelve(door, "b-1", evil)
    library.park(evil, evil.encode(), offset=7, reason=evil)
    for path in ("/", "/ui/book/b-1", "/ui/deadletters", LETTER, f"/ui/book/{evil}"):
        text = door.get(path).text
        assert "<img" not in text, path
        assert "&lt;img" in text, path


@pytest.mark.parametrize(
    ("value", "text", "href"),
    [
        (("a", "/ui/book/a"), "a", "/ui/book/a"),
        (("a", "https://evil.example"), "a", ""),
        (("a", "//evil.example"), "a", ""),
        (("a", "/\\evil.example"), "a", ""),
        (("a", "javascript:alert(1)"), "a", ""),
        (None, "", ""),
        (12345, "12\u202f345", ""),
        (True, "True", ""),
        ("2026-01-05T08:00:00.005Z", "08:00:00.005", ""),
        ("2026-01-04T08:00:00.005Z", "2026-01-04 08:00:00", ""),
    ],
)
def test_cells(value: Any, text: str, href: str) -> None:
    cell = cell_of(value, "2026-01-05")
    assert (cell.text, cell.href) == (text, href)


def test_a_detail_page_shows_one_thing(door: httpx.Client) -> None:
    shelve(door, "b-1", "Faust")
    assert "Faust" in door.get("/ui/book/b-1").text
    missing = door.get("/ui/book/none")
    assert missing.status_code == 404
    assert "Nothing is known of book none" in missing.text
    assert door.get("/ui/home/x").status_code == 404
    assert door.get("/ui/other/x").headers["content-type"].startswith("text/html")


def fresh_form(door: httpx.Client) -> dict[str, str]:
    """The letter's form as a browser would fill it; its cookie is kept by the client."""
    page = door.get(LETTER)
    cookie = page.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    found = re.search(r'name="token" value="([^"]+)"', page.text)
    assert found is not None
    return {"token": found[1], **FORM}


@pytest.mark.parametrize("verb", ["retry", "discard"])
def test_a_dead_letter_is_retried_or_discarded_by_a_form(
    door: httpx.Client, library: Library, verb: str
) -> None:
    library.park("faust", b"{}", offset=7)
    reply = door.post(f"{LETTER}/{verb}", data=fresh_form(door))
    assert (reply.status_code, reply.headers["location"]) == (
        303, f"/ui/deadletters?requested={verb}",
    )  # fmt: skip
    assert [type_ for type_, _ in library.wishes] == [f"deadletter.{verb}_requested"]
    assert library.wishes[0][1].reason == "mended"
    assert f"Asked for: {verb}." in door.get(reply.headers["location"]).text


def test_a_form_of_another_page_does_nothing(door: httpx.Client, library: Library) -> None:
    library.park("faust", b"{}", offset=7)
    form = fresh_form(door)
    other = {"Origin": "http://evil.example"}
    assert door.post(f"{LETTER}/retry", data=form, headers=other).status_code == 403
    assert door.post(f"{LETTER}/retry", data={**form, "token": "x"}).status_code == 403
    assert door.post(f"{LETTER}/retry", data={**form, "reason": " "}).status_code == 422
    assert door.post(f"{LETTER}/destroy", data=form).status_code == 404
    assert door.post(f"{LETTER}/retry", json=form).status_code == 415
    door.cookies.clear()
    assert door.post(f"{LETTER}/retry", data=form).status_code == 403
    assert library.wishes == []


def test_the_style_is_small(door: httpx.Client) -> None:
    reply = door.get("/static/penstock.css")
    assert reply.headers["content-type"] == "text/css; charset=utf-8"
    assert len(reply.content) < 8 << 10
    assert door.get("/static/penstock.svg").headers["content-type"].startswith("image/svg+xml")
    assert door.get("/static/other.css").status_code == 404

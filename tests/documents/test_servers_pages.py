"""docs/how-to/postgresql.md: whoever types what it says, on two hosts, sees what it shows. And its numbers are ours."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psycopg
import pytest

from helpers.pages import PROJECT, files, pieces, type_out
from helpers.postgresql import own_server
from trio_multispool.storage.postgres import advice, contents, link, store
from trio_multispool.storage.postgres.patience import PATIENT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.postgresql

PAGE = PROJECT / "docs" / "how-to" / "postgresql.md"
CONCEPTS = PROJECT / "docs" / "concepts" / "servers.md"
HOST = "db.example"
"""What the page calls the server."""


def prose(page: Path) -> str:
    """Return a page's text as one line."""
    return re.sub(r"\s+", " ", page.read_text("utf-8"))


def programs_with_one_line_changed() -> dict[str, str]:
    """Return the tutorial's files, as the page says that they are changed."""
    [line] = [piece.text.strip() for piece in pieces(PAGE) if piece.language == "python"]
    changed = {}
    for name, text in files(PROJECT / "docs" / "tutorial.md").items():
        changed[name], times = re.subn(r"spool = \(await Spool\.create\(.*\)\)\.unwrap\(\)", line, text)
        assert times == (name != "mail.py")
    return changed


@pytest.mark.page
def test_whoever_types_it_sees_what_it_shows(tmp_path: Path) -> None:
    """On a server of its own, where roles and databases can be made. Its SQL runs in between."""
    with own_server(tmp_path) as server:
        place = urlsplit(server.base).netloc.rpartition("@")[2]

        def execute(sql: str) -> None:
            database = server.base if "CREATE DATABASE" in sql else server.base.replace("/postgres", "/work")
            with psycopg.connect(database, autocommit=True) as connection:
                for statement in sql.split(";\n"):
                    _ = connection.execute(statement.encode())

        page = tmp_path / "page.md"
        _ = page.write_text(PAGE.read_text("utf-8").replace(HOST, place), "utf-8")
        for name, text in programs_with_one_line_changed().items():
            _ = (tmp_path / name).write_text(text.replace(HOST, place), "utf-8")
        assert type_out(page, tmp_path, execute) >= 15


def test_every_block_is_of_a_kind_that_is_run():
    """But for those that install, need more than the page has, or are no commands."""
    found = [piece.language for piece in pieces(PAGE)]
    assert set(found) == {"sh", "sql", "console", "python", "text"}
    assert found.count("python") == found.count("text") == 1
    assert PAGE.read_text("utf-8").count("\n```") == 2 * len(found)


@pytest.mark.parametrize(
    "sentence",
    [
        f"| {PATIENT.cut_off:.0f} s | the work in hand is cancelled",
        f"| {PATIENT.answer:.0f} s, since an operation began | operations answer `StoreUnreachable`",
        f"up to {['', 'one', 'two', 'three', 'four'][link.MOST_LINKS]} for operations",
        f"up to {contents.LARGEST_IN_ROW // 1024} KiB of data",
        f"pieces of {contents.CHUNK // 1024} KiB",
        f"| {store.MOST_AT_A_TIME} at most |",
        f"more than {advice._MANY_DEAD:,} dead rows",
    ],
)
def test_a_number_of_the_guide_is_that_of_the_source(sentence):
    """Whoever changes it changes the page."""
    assert sentence in prose(PAGE)


@pytest.mark.parametrize(
    "sentence",
    [
        f"after {PATIENT.cut_off:.0f} seconds without an answer, the keeper",
        f"give up after some {PATIENT.given_up} seconds",
        f"shut by the keeper after {PATIENT.answer:.0f} seconds",
        f"has known itself for {PATIENT.grace:.0f} seconds",
        f"every {PATIENT.deaths_every * 1000:.0f} milliseconds",
        f"`drain(timeout)` may take up to {PATIENT.answer:.0f} s longer",
        f"statements of up to {store.MOST_AT_A_TIME} entries",
    ],
)
def test_a_number_of_the_explanation_is_that_of_the_source(sentence):
    """Likewise."""
    assert sentence in prose(CONCEPTS)

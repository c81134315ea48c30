"""Opening a store by its location: the path of a directory, and nothing that only looks like one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from helpers.spools import MAIL
from trio_multispool import Err, NotASpool, Spool
from trio_multispool.integrations.standings import READABLE, Value, look
from trio_multispool.session.stores import look_at_store, open_store, open_store_unsafe

URLS = ["redis://localhost", "file:///var/mail", "s3+x.y-z://bucket/mail"]
"""Of kinds that there are not."""

ADVICE = "give the path of a directory, or postgresql://…"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Work where relative paths lead to a directory that stays empty, if nothing is made."""
    monkeypatch.chdir(tmp_path)
    yield
    assert os.listdir(tmp_path) == []


@pytest.mark.anyio
@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("operation", [Spool.create, Spool.load, Spool.load_unsafe], ids=lambda each: each.__name__)
async def test_a_url_is_refused_and_nothing_is_made(operation, url):
    """The message names it, and says what to give instead."""
    answer = await operation(url, MAIL)
    assert isinstance(answer, Err)
    assert isinstance(answer.error, NotASpool)
    assert str(answer.error) == (
        f"{url!r} is not a spool that can be used: no store answers to {url.split(':', maxsplit=1)[0]}: locations; "
        f"{ADVICE}"
    )


@pytest.mark.anyio
@pytest.mark.parametrize("url", [*URLS, "redis:", "redis://"])
@pytest.mark.parametrize("operation", [Spool.create, Spool.load, Spool.load_unsafe], ids=lambda each: each.__name__)
async def test_a_url_that_became_a_path_is_refused_and_nothing_is_made(operation, url):
    """`Path` leaves one slash of two: the message is that of the URL, and names what is left of it."""
    answer = await operation(Path(url), MAIL)
    assert isinstance(answer, Err)
    assert isinstance(answer.error, NotASpool)
    assert str(answer.error) == (
        f"{str(Path(url))!r} is not a spool that can be used: no store answers to "
        f"{url.split(':', maxsplit=1)[0]}: locations; {ADVICE}"
    )


@pytest.mark.anyio
@pytest.mark.parametrize("operation", [Spool.create, Spool.load, Spool.load_unsafe], ids=lambda each: each.__name__)
async def test_the_url_of_a_server_that_became_a_path_is_refused(operation):
    """`Path` has taken one of its slashes, and would take those of a password's `//` too."""
    answer = await operation(Path("postgresql://mail@host/db?spool=mail"), MAIL)
    assert isinstance(answer, Err)
    assert answer.error == NotASpool(
        "postgresql:/mail@host/db?spool=mail", "give the URL as a string: a path keeps only one of its slashes"
    )


class BytesPath:
    """A path of a kind that `os` knows and this library does not."""

    def __fspath__(self) -> bytes:
        """Return bytes."""
        return b"mail"


@pytest.mark.anyio
@pytest.mark.parametrize("wrong", [b"mail", None, 5, BytesPath()], ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("operation", [Spool.create, Spool.load, Spool.load_unsafe], ids=lambda each: each.__name__)
async def test_what_is_no_path_is_refused_with_what_is_wanted(operation, wrong):
    """The message shows what was given, and nothing is made."""
    with pytest.raises(TypeError, match=r"a string or a pathlib\.Path") as refused:
        await operation(wrong, MAIL)
    assert repr(wrong) in str(refused.value)


@pytest.mark.parametrize("way", [look_at_store, lambda url: open_store(url, ["send"], create=True), open_store_unsafe])
def test_every_way_to_open_a_store_refuses_a_url(way):
    """Also those of the command and of gauges."""
    with pytest.raises(NotASpool):
        way(URLS[0])
    assert look(URLS[0]) == [Value(READABLE, (), 0)]


@pytest.mark.parametrize(("kind", "scheme"), [(str, "redis"), (Path, "redis"), (Path, "postgresql")])
def test_a_password_is_not_told(kind, scheme):
    """Neither in the message nor in the error's fields; the rest is."""
    with pytest.raises(NotASpool) as refused:
        look_at_store(kind(f"{scheme}://mail:s3cr/et@host/db?password=s3cret&x=1"))
    told = f"{refused.value} {refused.value!r} {refused.value.path}"
    assert "s3cr" not in told
    assert "mail:…@host/db?password=…&x=1" in told


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["a:b", "c:/d", "e:", Path("f:/g"), ":// h"])
async def test_a_directory_may_have_a_colon_in_its_name(path, tmp_path):
    """Only `SCHEME://` makes a URL, and `SCHEME:/` at the beginning of a path."""
    async with (await Spool.create(tmp_path.parent / f"{tmp_path.name}-colons" / path, MAIL)).unwrap() as spool:
        assert spool.location == str(spool.path)
        assert spool.path.is_dir()

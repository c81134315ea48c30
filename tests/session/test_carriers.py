"""What a producer's instrumentation sends along reaches the workers', and costs nobody anything who does not ask."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Any

import pytest

from helpers.calls import FailingCalls
from helpers.children import Child
from helpers.listening import Listening, listened_to
from helpers.results import is_err
from helpers.spools import ANNE, MAIL, Mail, is_url, put, quick_spool, state_of
from trio_multispool import (
    Spool,
    Use,
)
from trio_multispool.instrumentation import (
    Enqueueing,
    Working,
)

both_backends = pytest.mark.anyio


@pytest.mark.sample
@both_backends
async def test_what_the_producer_sends_along_reaches_every_worker_of_the_entry(place):
    """In a reader, by a check-out, and again after a save to another queue; the metadata is not touched."""
    sent = {"traceparent": "00-1-2-01", "tracestate": "vendor=ü"}
    async with listened_to(place, carrier=sent) as (spool, heard):
        await put(spool, Mail.SEND, "a")
        (await spool.enqueue(Mail.SEND, ANNE, b"x" * 300_000, name=Use("large"))).unwrap()
        [answer] = await spool.enqueue_many(Mail.SEND, [(ANNE, b"")], names=[Use("many")])
        answer.unwrap()
        assert set(state_of(place).notes) == {"a", "large", "many"}
        async with spool.reader(Mail.SEND) as reader:
            async for job in reader.available():
                async with job:
                    (await job.save(Mail.RETRY)).unwrap()
        for name in ("a", "large", "many"):
            async with (await spool.entry(Mail.RETRY, name).unwrap().checkout()).unwrap() as job:
                (await job.remove()).unwrap()
        assert [one.carrier for one in heard.take(Working)] == [sent] * 6
        assert state_of(place).notes == {}
        assert state_of(place).faults() == []


@both_backends
async def test_nothing_is_written_for_an_instrumentation_that_does_not_ask(place):
    """There is no `.notes` in a directory, and neither is there for one that has nothing to send along."""

    class Silent(Listening):
        def enqueueing(self, enqueueing: Enqueueing) -> Any:
            return contextlib.nullcontext({"traceparent": "unasked"})

    for instrumentation in (Silent(), Listening({}), None):
        async with await quick_spool(place, instrumentation=instrumentation) as spool:
            await put(spool, Mail.SEND, "a")
            assert state_of(place).notes == {}
            async with (await spool.entry(Mail.SEND, "a").unwrap().checkout()).unwrap() as job:
                (await job.remove()).unwrap()
        assert is_url(place) or ".notes" not in os.listdir(place)


@both_backends
async def test_an_enqueue_that_fails_leaves_nothing_of_what_was_sent_along(tmp_path):
    """The note goes with the rest, and the name can be used again."""
    calls = FailingCalls()
    async with listened_to(tmp_path / "spool", system_calls=calls, carrier={"a": "b"}) as (spool, _):
        with calls.failing("move", errno.ENOSPC):
            assert is_err(await spool.enqueue(Mail.SEND, ANNE, b"", name=Use("a")))
        assert state_of(tmp_path / "spool").faults() == []
        await put(spool, Mail.SEND, "a")
        assert set(state_of(tmp_path / "spool").notes) == {"a"}


@both_backends
async def test_a_reserved_name_that_is_used_again_sends_along_what_is_sent_then(tmp_path):
    """An enqueue that failed leaves no note under the name, or if it could not unlink it, the next one does."""
    calls = FailingCalls()
    async with listened_to(tmp_path / "spool", system_calls=calls, carrier={"a": "old"}) as (spool, heard):
        async with (await spool.reserve_name()).unwrap() as reserved:
            with calls.failing("move", errno.ENOSPC):
                assert is_err(await spool.enqueue(Mail.SEND, ANNE, b"", name=Use(reserved)))
            assert state_of(tmp_path / "spool").notes == {}
            with calls.failing("move", errno.ENOSPC), calls.failing("unlink", errno.EIO, on=".notes/", skip=1):
                assert is_err(await spool.enqueue(Mail.SEND, ANNE, b"", name=Use(reserved)))
            assert set(state_of(tmp_path / "spool").notes) == {reserved.name}
            heard.carrier = {"a": "new"}
            entry = (await spool.enqueue(Mail.SEND, ANNE, b"", name=Use(reserved))).unwrap()
        async with (await entry.checkout()).unwrap():
            pass
        [working] = heard.take(Working)
        assert working.carrier == {"a": "new"}


@both_backends
async def test_an_entry_is_enqueued_though_what_is_sent_along_cannot_be_written(tmp_path, caplog):
    """A trace that ends is no reason to refuse an entry; the log tells."""
    calls = FailingCalls()
    async with listened_to(tmp_path / "spool", system_calls=calls, carrier={"a": "b"}) as (spool, heard):
        with calls.failing("open", errno.EACCES, on=".notes/"):
            await put(spool, Mail.SEND, "a")
        async with (await spool.entry(Mail.SEND, "a").unwrap().checkout()).unwrap():
            pass
        [working] = heard.take(Working)
        assert working.carrier == {}
    assert [record.__dict__["event"] for record in caplog.records] == ["multispool.not_carried"]


@both_backends
@pytest.mark.parametrize("note", [b"", b"{", b"[]", b'{"trace": {"traceparent": 1}}', b'{"progress": 0.5}', None])
async def test_a_note_that_is_torn_or_anothers_is_none(tmp_path, note):
    """The entry is worked on as if nothing had been sent along."""
    async with listened_to(tmp_path / "spool", carrier={"a": "b"}) as (spool, heard):
        [entry] = await put(spool, Mail.SEND, "a")
        path = tmp_path / "spool" / ".notes" / "a"
        path.unlink()
        if note is not None:
            path.write_bytes(note)
        async with (await entry.checkout()).unwrap():
            pass
        [working] = heard.take(Working)
        assert working.carrier == {}


@both_backends
async def test_nothing_is_sent_along_where_others_may_take_no_locks(tmp_path):
    """In a spool that is not adopted, a note could come to belong to another entry of that name."""
    async with listened_to(tmp_path / "spool", carrier={"a": "b"}) as (spool, heard):
        pass
    (tmp_path / "spool" / ".spool.json").unlink()
    heard = Listening({"a": "b"})
    async with (await Spool.load(tmp_path / "spool", MAIL, instrumentation=heard)).unwrap() as spool:
        await put(spool, Mail.SEND, "a")
    assert state_of(tmp_path / "spool").notes == {}


@both_backends
@pytest.mark.parametrize("call", ["make_directory", "open", "write", "close", "move"])
async def test_a_producer_killed_on_the_way_leaves_nothing_that_recovery_does_not_collect(tmp_path, call):
    """The note lies before the entry does; with its producer dead and no entry, recovery unlinks it."""

    def produce(parent, path, call):
        import os
        import signal

        import anyio

        from helpers.calls import WithoutSyncs
        from helpers.listening import Listening
        from helpers.spools import Mail, load_spool, put

        class Killing(WithoutSyncs):
            armed = False

            def __getattribute__(self, name):
                found = super().__getattribute__(name)
                if name != call or not type(self).armed:
                    return found

                def killed(*arguments):
                    answer = found(*arguments)
                    if ".notes" in os.listdir(path) and os.listdir(os.path.join(path, ".notes")):
                        os.kill(os.getpid(), signal.SIGKILL)
                    return answer

                return killed

        async def main() -> None:
            spool = await load_spool(path, system_calls=Killing(), instrumentation=Listening({"a": "b"}))
            Killing.armed = True
            await put(spool, Mail.SEND, "a")

        anyio.run(main)
        parent.say("lived")

    async with await quick_spool(tmp_path / "spool"):
        pass
    with Child(produce, tmp_path / "spool", call) as child:
        assert call == "make_directory" or list(child) == []
        child.process.wait()
    async with await quick_spool(tmp_path / "spool") as spool:
        (await spool.recover()).unwrap()
        found = state_of(tmp_path / "spool")
        assert found.faults() == []
        assert set(found.notes) == set(found.names("send"))

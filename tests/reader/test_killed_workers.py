"""Workers of several queues that are killed: shares and pauses hold for whoever comes after them."""

from __future__ import annotations

import collections
import contextlib
import random
from typing import TYPE_CHECKING, Any

import trio

from helpers.children import Child
from helpers.spools import Envelope, Mail, load_spool, names_in, quick_spool

if TYPE_CHECKING:
    from helpers.children import Parent
    from helpers.spools import Location

SHARES = {"send": 0.75, "retry": 0.25}


def work_off(parent: Parent, place: str) -> None:
    """Work off two queues, three of the one to one of the other; say of each entry that it is begun, and wait."""
    import trio

    from helpers.spools import Mail, load_spool
    from trio_multispool import Remove

    async def handle(_envelope: object, data: Any) -> Remove:
        parent.say(data.queue.value, data.name)
        parent.hear()
        return Remove()

    async def main() -> None:
        async with await load_spool(place) as spool, spool.reader({Mail.SEND: 3, Mail.RETRY: 1}) as reader:
            (await reader.iter(handle)).unwrap()

    trio.run(main)


def pause_and_wait(parent: Parent, place: str) -> None:
    """Pause a queue when it is told to, say so, and stay."""
    import trio

    from helpers.spools import Mail, load_spool

    async def main() -> None:
        spool = await load_spool(place)
        parent.hear()
        (await spool.pause(Mail.SEND, reason="the relay")).unwrap()
        parent.say("paused")
        parent.hear()

    trio.run(main)


class Life:
    """A worker, and what it has begun."""

    def __init__(self, place: Location) -> None:
        self.child = Child(work_off, place)
        self.begun: list[tuple[str, str]] = []

    def hear(self) -> str:
        """Wait until it has begun one more; return the queue."""
        queue, name = self.child.hear()
        self.begun.append((queue, name))
        return queue

    def step(self) -> str:
        """Wait until it has begun one more, and let it go on; return the queue."""
        queue = self.hear()
        self.child.tell("go on")
        return queue

    def kill(self) -> None:
        """End it with whatever it has in hand, and hear what it has said until then."""
        self.child.kill()
        self.begun += [(queue, name) for queue, name in self.child]


@contextlib.contextmanager
def working(place: Location, lives: list[Life]) -> Any:
    """Yield what starts a worker, and adds it to the others."""
    with contextlib.ExitStack() as stack:

        def start() -> Life:
            life = Life(place)
            stack.enter_context(life.child)
            lives.append(life)
            return life

        yield start


def fill(place: Location, number: int) -> None:
    """Make a spool with so many entries in each queue."""

    async def enqueue() -> None:
        spool = await quick_spool(place)
        for queue in (Mail.SEND, Mail.RETRY):
            for answer in await spool.enqueue_many(queue, [(Envelope("anne"), b"")] * number):
                _ = answer.unwrap()
        spool.close()

    trio.run(enqueue)


def check_whole(place: Location, lives: list[Life], number: int) -> None:
    """Each entry was begun, and none again but the last one of somebody who was killed; what those had is not lost."""

    async def rest() -> list[tuple[str, str]]:
        async with await load_spool(place) as spool:
            _ = (await spool.recover()).unwrap()
            return [(queue.value, name) for queue in (Mail.SEND, Mail.RETRY) for name in await names_in(spool, queue)]

    last = {life.begun[-1] for life in lives if life.begun}
    times = collections.Counter(each for life in lives for each in life.begun)
    assert collections.Counter(queue for queue, _ in times) == {"send": number, "retry": number}
    assert {each for each, often in times.items() if often > 1} <= last
    assert set(trio.run(rest)) <= last


def test_whoever_is_killed_each_life_gives_the_queues_their_shares(place):
    """As long as both have entries; and what those had who died is worked off with the rest."""
    number, chance, lives = 150, random.Random(7), list[Life]()
    fill(place, number)
    with working(place, lives) as start:
        workers = [start(), start()]
        for _ in range(8):
            victim = chance.randrange(2)
            for _ in range(chance.randrange(10, 20)):
                workers[victim].step()
            workers[victim].kill()
            workers[victim] = start()
        for worker in workers:
            worker.step()
        for worker in workers:
            worker.kill()
        killed_in_time = [life.begun for life in lives[:-2]]
        last = start()
        while len({each for life in lives for each in life.begun}) < 2 * number:
            last.step()
        last.kill()
    for begun in killed_in_time:
        for end in range(1, len(begun) + 1):
            taken = collections.Counter(queue for queue, _ in begun[:end])
            assert abs(taken["send"] - SHARES["send"] * end) <= 2, begun
    check_whole(place, lives, number)


def test_a_pause_outlives_whoever_asked_for_it_and_whoever_had_entries_in_hand(place):
    """What comes back from the dead stays in the paused queue, and the other queue is worked off."""
    number, lives = 40, list[Life]()
    fill(place, number)
    with working(place, lives) as start, Child(pause_and_wait, place) as operator:
        early = start()
        while early.hear() != "send":
            early.child.tell("go on")
        operator.tell("now")
        assert operator.hear() == ["paused"]
        operator.kill()
        early.kill()
        [in_hand] = [name for queue, name in early.begun if queue == "send"]
        for _ in range(3):
            worker = start()
            for _ in range(5):
                assert worker.step() == "retry"
            worker.kill()
        last = start()
        while len({name for life in lives for queue, name in life.begun if queue == "retry"}) < number:
            assert last.step() == "retry"

        async def resume() -> None:
            async with await load_spool(place) as spool:
                [(queue, pause)] = (await spool.pauses()).unwrap().items()
                assert (queue, pause.reason) == (Mail.SEND, "the relay")
                waiting = await names_in(spool, Mail.SEND)
                assert len(waiting) == number
                assert in_hand in waiting
                (await spool.resume(Mail.SEND)).unwrap()

        trio.run(resume)
        while len({each for life in lives for each in life.begun}) < 2 * number:
            last.step()
        last.kill()
    check_whole(place, lives, number)

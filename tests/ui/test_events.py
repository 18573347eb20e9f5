"""Who listens for news: nobody is waited for, and nothing is kept for who is late."""

import asyncio
import json

import pytest

from configstore.ui import events as module
from configstore.ui.events import EventStream


@pytest.fixture
def quick(monkeypatch):
    """Have patience end soon."""
    monkeypatch.setattr(module, "SEND_TIMEOUT", 0.05)
    monkeypatch.setattr(module, "BATCH_TIME", 0.01)


async def never():
    await asyncio.Event().wait()


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def test_who_takes_nothing_is_dropped_and_the_others_are_told_meanwhile(quick):
    async def scenario():
        audience = EventStream(dict)
        got, stuck = [], []

        async def takes(message):
            got.append(message.get("body", b""))

        async def takes_only_the_first(message):
            stuck.append(message)
            if len(stuck) > 2:
                await never()

        good = asyncio.ensure_future(audience({}, never, takes))
        slow = asyncio.ensure_future(audience({}, never, takes_only_the_first))
        await until(lambda: audience.size == 2 and len(stuck) == 2)
        audience.publish("a.txt changed")
        await until(lambda: audience.size == 1)
        assert slow.done(), "it was let go, without the end of its answer"
        audience.publish("b.txt changed")
        await until(lambda: any(b"b.txt" in body for body in got))
        audience.close()
        await asyncio.wait_for(good, 10)
        assert got[-1] == b""

    asyncio.run(scenario())


def test_many_news_make_one_event_that_names_the_first_ones(quick):
    async def scenario():
        audience = EventStream(dict)
        got = []

        async def takes(message):
            got.append(message.get("body", b"").decode())

        listening = asyncio.ensure_future(audience({}, never, takes))
        await until(lambda: len(got) == 2)
        for number in range(1000):
            audience.publish(f"{number}.txt changed")
        await until(lambda: len(got) == 3)
        words = json.loads(got[2].partition("data: ")[2])["words"]
        assert words.split("; ") == [f"{number}.txt changed" for number in range(module.NAMED)]
        audience.close()
        await asyncio.wait_for(listening, 10)

    asyncio.run(scenario())


def test_who_goes_is_forgotten():
    async def scenario():
        audience = EventStream(dict)
        here = asyncio.Event()

        async def goes():
            await here.wait()
            return {"type": "http.disconnect"}

        async def takes(_):
            here.set()

        await asyncio.wait_for(audience({}, goes, takes), 10)
        assert audience.size == 0

    asyncio.run(scenario())

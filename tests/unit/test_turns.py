"""Users take turns, however much one of them asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from cache_manager.turns import NOBODY, Turns


def play(test: Callable[[], Awaitable[None]]) -> None:
    """Run a test within a loop."""

    async def within() -> None:
        async with asyncio.timeout(20):
            await test()

    asyncio.run(within())


@pytest.mark.parametrize("at_a_time", [1, 2])
def test_each_user_gets_one_turn_in_a_round(at_a_time: int) -> None:
    """Those of one user keep their order."""

    async def test() -> None:
        turns, order = Turns(at_a_time, lambda: at_a_time), []

        async def one(user: str, number: int) -> None:
            async with turns.turn(user):
                order.append(f"{user}{number}")
                await asyncio.sleep(0)

        wanted = [("eve", number) for number in range(20)] + [("amy", 0), ("joe", 0), ("amy", 1)]
        await asyncio.gather(*(one(*which) for which in wanted))
        assert set(order[: 4 + at_a_time]) >= {"amy0", "joe0"}
        for user in ("eve", "amy"):
            assert [name for name in order if name.startswith(user)] == [f"{u}{n}" for u, n in wanted if u == user]

    play(test)


def test_one_user_has_no_more_than_the_share_and_nobody_has_no_share() -> None:
    """What is left over is for others."""

    async def test() -> None:
        turns = Turns(10, lambda: 3)
        eve = [turns.ask("eve") for _ in range(8)]
        assert [one.done() for one in eve] == [True] * 3 + [False] * 5
        assert turns.waiting("eve") == 5
        assert all(turns.ask(NOBODY).done() for _ in range(6))
        assert turns.ask("amy").done()
        assert not turns.ask("joe").done()
        turns.end("eve")
        assert not eve[3].done()  # joe's turn
        turns.end("eve")
        assert eve[3].done()

    play(test)


def test_who_gives_up_takes_no_turn() -> None:
    """Whether the turn came already, or never comes."""

    async def test() -> None:
        turns = Turns(1, lambda: 1)

        async def hold(user: str) -> None:
            async with turns.turn(user):
                await asyncio.sleep(3600)

        first = asyncio.create_task(hold("eve"))
        await asyncio.sleep(0)
        waiting = [asyncio.create_task(hold(user)) for user in ("eve", "amy")]
        await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            async with turns.turn("joe", asyncio.get_running_loop().time() + 0.01):
                raise AssertionError
        assert turns.waiting("joe") == 0
        first.cancel()  # eve's turn ends, and the next one is given in the same moment as it is given up
        await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        await asyncio.gather(first, *waiting, return_exceptions=True)
        async with turns.turn("zoe"):
            assert turns.waiting("zoe") == 0

    play(test)


def test_what_several_wait_for_is_given_once_at_the_expense_of_who_is_first() -> None:
    """Another owner need not wait behind all that the first one asked for before."""

    async def test() -> None:
        turns = Turns(4, lambda: 1)
        first, second = turns.ask("eve"), turns.ask("eve")
        assert (first.done(), second.done()) == (True, False)
        turns.ask("amy", second)
        assert second.result() == "amy"
        turns.end("eve")  # what eve waited for was given already
        assert turns.ask("eve").done()

    play(test)

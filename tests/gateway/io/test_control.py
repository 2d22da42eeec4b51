import asyncio
import logging

import pytest

from gateway.io.control import (
    CallingEnd,
    ChannelError,
    Command,
    CommandError,
    Commit,
    Measure,
    Prepare,
    RefusedError,
    Result,
    channel_pair,
    serve_commands,
)
from gateway.io.metrics import Measurement


class Worker:
    """Performs commands as a test needs it."""

    def __init__(self) -> None:
        self.seen: list[Command] = []
        self.gate = asyncio.Event()

    async def perform(self, command: Command) -> Result:
        self.seen.append(command)
        match command:
            case Measure():
                return Measurement({"connections": 3.0}, {"lag": [1.0, 2.0]})
            case Prepare(generation=12):
                raise RefusedError("twelve is no number")
            case Prepare(generation=13):
                raise ValueError("thirteen is not for us")
            case Prepare():
                await self.gate.wait()
        return None


async def connect(worker: Worker) -> tuple[CallingEnd, asyncio.Task[None]]:
    ours, theirs = channel_pair()
    serving = asyncio.create_task(serve_commands(theirs, worker.perform))
    return await CallingEnd.over(ours), serving


async def test_a_result_comes_back_as_it_was_sent() -> None:
    channel, serving = await connect(Worker())
    assert await channel.call(Measure(), timeout=5) == Measurement(
        {"connections": 3.0}, {"lag": [1.0, 2.0]}
    )
    await channel.close()
    await serving


async def test_a_configuration_of_many_megabytes_arrives_whole() -> None:
    worker = Worker()
    worker.gate.set()
    channel, serving = await connect(worker)
    pickled = bytes(range(256)) * 32 * 1024
    await channel.call(Prepare(1, pickled), timeout=20)
    assert worker.seen == [Prepare(1, pickled)]
    await channel.close()
    await serving


async def test_a_failure_is_told_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "gateway.io.control")
    channel, serving = await connect(Worker())
    with pytest.raises(CommandError, match="thirteen is not for us"):
        await channel.call(Prepare(13, b""), timeout=5)
    await channel.close()
    await serving


async def test_an_operators_mistake_is_told_without_a_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    channel, serving = await connect(Worker())
    with pytest.raises(CommandError, match="twelve is no number"):
        await channel.call(Prepare(12, b""), timeout=5)
    await channel.close()
    await serving
    assert not caplog.records


async def test_a_slow_command_does_not_hold_up_the_next() -> None:
    worker = Worker()
    channel, serving = await connect(worker)
    slow = asyncio.create_task(channel.call(Prepare(1, b""), timeout=5))
    assert await channel.call(Measure(), timeout=5)
    assert not slow.done()
    worker.gate.set()
    assert await slow is None
    await channel.close()
    await serving


async def test_numbers_cost_a_busy_loop_one_turn_to_read_the_call_and_one_to_answer_it() -> None:
    # With too much to do a turn takes up to a second, and that is when numbers are wanted most.
    ours, theirs = channel_pair()
    serving = asyncio.create_task(serve_commands(theirs, Worker().perform))
    loop = asyncio.get_running_loop()
    turns: asyncio.Future[int] = loop.create_future()

    def turn(number: int) -> None:
        if number == 0:
            ours.send(b'{"id":1,"command":{"type":"measure"}}\n')
        try:
            assert ours.recv(65536)
        except BlockingIOError:
            loop.call_soon(turn, number + 1)
        else:
            turns.set_result(number)

    loop.call_soon(turn, -10)  # it listens after a few
    needed = await asyncio.wait_for(turns, 5)
    ours.close()
    await serving
    assert needed == 2


async def test_a_late_reply_is_an_error_and_is_not_taken_for_the_next_one() -> None:
    worker = Worker()
    channel, serving = await connect(worker)
    with pytest.raises(CommandError, match="no reply"):
        await channel.call(Prepare(1, b""), timeout=0.01)
    worker.gate.set()
    assert isinstance(await channel.call(Measure(), timeout=5), Measurement)
    await channel.close()
    await serving


async def test_a_worker_that_dies_ends_the_calls_that_wait_for_it() -> None:
    ours, theirs = channel_pair()
    channel = await CallingEnd.over(ours)
    call = asyncio.create_task(channel.call(Commit(1), timeout=5))
    await asyncio.sleep(0)
    theirs.close()
    with pytest.raises(ChannelError):
        await call
    with pytest.raises(ChannelError):
        await channel.call(Commit(1), timeout=5)
    await channel.close()


async def test_a_worker_notices_that_its_supervisor_is_gone() -> None:
    channel, serving = await connect(Worker())
    await channel.close()
    await asyncio.wait_for(serving, 5)

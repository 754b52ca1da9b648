"""What the pool serves for the streams bench."""

import asyncio
import time
from itertools import repeat

import hatchery


def echo(x):
    return x


def items(n):
    for x in range(n):
        yield {"x": x}


def endless():
    x = 0
    while True:
        yield {"x": x}
        x += 1


def spin():
    """Runs for ever, having said that it does."""
    hatchery.progress(None)
    while True:
        pass


def hang_sleep():
    time.sleep(60)


def hang_busy_loop():
    while True:
        pass


async def hang_async():
    await asyncio.sleep(60)


def hang_c_call_with_gil():
    # Neither lets another thread run nor looks for signals. It ends by itself after a second or so, long after the
    # caller's deadline, so that the worker need not be killed and started again for each sample.
    return sum(repeat(1, 150_000_000))

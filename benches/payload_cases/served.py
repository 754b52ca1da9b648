"""What the pool serves for the payloads bench."""

import asyncio

import hatchery

WORDS_A_PAGE = 4096 // 8


def echo(x):
    return x


def copied(x):
    """Bytes that Python has made itself."""
    return bytes(x)


def sum_of_pages(array):
    """One word of each page of a numpy array."""
    return int(array[::WORDS_A_PAGE].sum())


def sum_of_pages_of_bytes(data):
    import numpy

    return sum_of_pages(numpy.frombuffer(data, numpy.uint64))


async def echo_async(x):
    await asyncio.sleep(0)
    return x


async def sleep_async():
    await asyncio.sleep(0.1)


def ask(x):
    return hatchery.call_host("same", x)

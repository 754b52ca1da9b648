"""What a language model does, in small: text that comes word by word.

The words follow Shakespeare's, each chosen among those that come after the last one somewhere in the text.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator

import hatchery

__all__ = ["ask_all", "generate", "last_ended", "ticks"]

TEXT = """
To be, or not to be, that is the question: Whether 'tis nobler in the mind to suffer the slings and arrows of
outrageous fortune, or to take arms against a sea of troubles and by opposing end them. To die, to sleep, no more; and
by a sleep to say we end the heart-ache and the thousand natural shocks that flesh is heir to: 'tis a consummation
devoutly to be wished. To die, to sleep; to sleep, perchance to dream: ay, there's the rub, for in that sleep of death
what dreams may come, when we have shuffled off this mortal coil, must give us pause.
"""

_followers: defaultdict[str, list[str]] = defaultdict(list)
_words = TEXT.split()
for _word, _next in zip(_words, _words[1:] + _words[:1]):
    _followers[_word.lower()].append(_next)

_last_ended = "none has ended yet"


def generate(prompt: str, tokens: int = 40, pause: float = 0.03) -> Iterator[str]:
    """Go on where the prompt ends, one word after the other, and say how far it is."""
    global _last_ended
    made = 0
    hatchery.progress("reading the prompt")
    words = prompt.split() or ["to"]
    rng = random.Random(prompt)
    word = words[-1].lower()
    try:
        while made < tokens:
            time.sleep(pause)
            word = rng.choice(_followers.get(word.lower()) or _words)
            made += 1
            yield word
            if made % 10 == 0:
                hatchery.progress(f"{made} of {tokens}")
    finally:
        # Here a model would free what it holds for this text. It runs at the end of the text, and also when nobody
        # wants the rest of it: then `hatchery.Cancelled` comes out of the `sleep`, or of the `yield`.
        _last_ended = f"closed after {made} words"
        print(f"generate({prompt!r}): {_last_ended}")


def last_ended() -> dict[str, object]:
    """How the last text ended, and which process this is."""
    return {"ended": _last_ended, "pid": os.getpid()}


def ticks(count: int) -> Iterator[tuple[int, float]]:
    """Numbers as fast as they are taken, each with the seconds since the first one when it was made."""
    began = time.monotonic()
    for number in range(count):
        yield number, time.monotonic() - began


async def ask_all(models: dict[str, float]) -> AsyncIterator[str]:
    """Ask several models at a time; whoever answers first comes first. Each is given with the seconds that it takes."""

    async def ask(model: str, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return f"{model} after {seconds} s"

    asked = [
        asyncio.ensure_future(ask(model, seconds)) for model, seconds in models.items()
    ]
    try:
        for answer in asyncio.as_completed(asked):
            yield await answer
    finally:
        # Nobody may want the others any more.
        for question in asked:
            question.cancel()

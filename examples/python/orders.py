"""Orders, priced by the host: what this module does not know, it asks for."""

from __future__ import annotations

import asyncio

import hatchery


def total(items: list[str]) -> int:
    """Return what some items cost, in cents, one question after the other."""
    return sum(hatchery.call_host("price", item) for item in items)


async def total_at_once(items: list[str]) -> int:
    """Return the same, with all questions asked at once."""
    return sum(await asyncio.gather(*(hatchery.call_host("price", item) for item in items)))


def invoice(items: list[str]) -> str:
    """Return one line a item; what the host does not sell is said so."""
    lines = []
    for item in items:
        try:
            lines.append(f"{item}: {hatchery.call_host('price', item)}")
        except hatchery.HostCallError as error:
            lines.append(f"{item}: {error.message}")
    return "\n".join(lines)


def factorial(n: int) -> int:
    """Return n!, each factor by another worker: the host calls this function again."""
    return 1 if n <= 1 else n * hatchery.call_host("factorial", n - 1)

"""A module as users write it, for `mypy --strict`. Nothing runs it."""

from __future__ import annotations

import time

import hatchery
from hatchery import export


@hatchery.on_preload
def load() -> None:
    pass


@hatchery.on_start
async def connect() -> None:
    pass


@hatchery.on_stop
def disconnect() -> None:
    pass


@hatchery.on_session_end
def forget(name: str, state: dict[str, object]) -> None:
    print(name, len(state))


@export
def price(item: str) -> int:
    hatchery.progress({"item": item})
    end = hatchery.deadline()
    if end is not None and end < time.monotonic():
        raise hatchery.Cancelled
    return len(item)


@export(name="cart")
def add_to_cart(item: str) -> list[str]:
    cart: list[str] = hatchery.session().setdefault("cart", [])
    cart.append(item)
    return cart


@export
async def total(items: list[str]) -> float:
    try:
        return float(sum([await hatchery.call_host("price", item, currency="EUR") for item in items]))
    except hatchery.HostCallError as error:
        print(error.name, error.message, error.cause, hatchery.request_id(), hatchery.traceparent())
        return 0.0


marked: int = price("pen")
renamed: list[str] = add_to_cart("pen")

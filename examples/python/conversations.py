"""Conversations that remember what was said in them, each for itself.

`hatchery.session()` is a dict that belongs to the session of the call, and to no other.
"""

from __future__ import annotations

import hatchery

__all__ = ["recall", "remember"]


def remember(name: str, value: str) -> None:
    """Keep a value under a name until the session ends."""
    hatchery.session()[name] = value


def recall(name: str) -> str | None:
    """What is kept under the name; None when nothing is."""
    return hatchery.session().get(name)


@hatchery.on_session_end
def save(session: str, state: dict[str, str]) -> None:
    """Do what must be done with a session's state when it ends: here it is shown, elsewhere it would be saved."""
    if state:  # a worker that only stood in for the session's own has an empty one
        print(f"the session {session!r} ends with {state}")

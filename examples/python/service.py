"""What the actix-web example serves."""

from __future__ import annotations

import time

from generation import generate
from textstats import count_words, readability

__all__ = ["count_words", "generate", "readability", "think"]


def think(seconds: float) -> str:
    """Take a while, as a model does."""
    time.sleep(seconds)
    return f"thought for {seconds} s"

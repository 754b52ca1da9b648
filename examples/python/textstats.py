"""Small statistics of English text.

A plain module: nothing here knows that it may be called from Rust.
"""

from __future__ import annotations

import re
from collections import Counter

__all__ = ["count_words", "readability", "top_words"]

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")
_SENTENCE_END = re.compile(r"[.!?]+(?:\s|$)")
_VOWELS = re.compile(r"[aeiouy]+")


def count_words(text: str) -> int:
    """How many words the text has."""
    return len(_words(text))


def top_words(text: str, n: int = 10) -> list[tuple[str, int]]:
    """The n most frequent words in lower case, each with its count; equal counts in alphabetical order."""
    if n < 0:
        raise ValueError(f"n must not be negative, got {n}")
    counts = Counter(word.lower() for word in _words(text))
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:n]


def readability(text: str) -> dict[str, float]:
    """How easy the text is to read.

    ``flesch`` is Flesch's reading ease: about 90 for a child's book, below 30 for a law. Syllables are
    estimated, so take the score as a guide. A text without words raises ValueError.
    """
    words = _words(text)
    if not words:
        raise ValueError("the text has no words")
    sentences = max(1, len(_SENTENCE_END.findall(text)))
    words_per_sentence = len(words) / sentences
    syllables_per_word = sum(map(_syllables, words)) / len(words)
    flesch = 206.835 - 1.015 * words_per_sentence - 84.6 * syllables_per_word
    return {
        "flesch": round(flesch, 1),
        "words_per_sentence": round(words_per_sentence, 2),
        "syllables_per_word": round(syllables_per_word, 2),
    }


def _words(text: str) -> list[str]:
    return _WORD.findall(text)


def _syllables(word: str) -> int:
    word = word.lower()
    groups = len(_VOWELS.findall(word))
    # A final e is silent ("tune"), but not in "-le" after a consonant ("table").
    if groups > 1 and word.endswith("e") and not re.search(r"[^aeiouy]le$", word):
        groups -= 1
    return max(1, groups)

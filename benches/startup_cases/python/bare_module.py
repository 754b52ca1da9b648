"""The least that a pool can serve."""

import os


def pid():
    return os.getpid()

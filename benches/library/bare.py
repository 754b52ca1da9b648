"""The least that a pool can serve."""

import sys


def echo(x):
    return x


def imported():
    return list(sys.modules)

"""Takes as long to import as DSPy does."""

import os

import dspy


def pid():
    return os.getpid()


def version():
    return dspy.__version__

"""The worker's side of hatchery. A module that runs in a pool need not import it."""

__version__ = "0.1.0"
__all__ = ["__version__"]

"""Serves this package from memory: a worker has no file of it on disk."""

from __future__ import annotations

import sys
from _frozen_importlib import ModuleSpec
from marshal import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any


class Embedded:
    """Finder and loader of the package's modules."""

    def __init__(self, codes: dict[str, bytes]) -> None:
        """`codes` maps full module names to their marshalled code, since most workers need only some of it."""
        self._codes = codes

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:  # noqa: ARG002
        """Find one of ours, else let the next finder look."""
        if name not in self._codes:
            return None
        return ModuleSpec(name, self, origin="<hatchery>", is_package="." not in name)  # type: ignore[arg-type]  # a loader without load_module

    def create_module(self, spec: ModuleSpec) -> None:
        """Leave it to the import system."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code in it."""
        exec(loads(self._codes[module.__name__]), module.__dict__)  # noqa: S102, S302 - it came from the host

    def get_source(self, name: str) -> None:
        """Return None: only compiled code travels to a worker."""


def install(codes: dict[str, bytes]) -> None:
    """Make the package importable, before any other of its name, and in place of one that is imported already."""
    for name in list(sys.modules):
        if name.partition(".")[0] == "hatchery":
            del sys.modules[name]  # an installed one, which a `.pth` file or a `sitecustomize` has imported
    sys.meta_path.insert(0, Embedded(codes))

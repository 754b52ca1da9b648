"""Imports this package from memory: a worker has no files of it. The bootstrap installs it."""

from __future__ import annotations

import sys
from _frozen_importlib import ModuleSpec
from marshal import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any


class Embedded:
    """Finder and loader for the package's modules."""

    def __init__(self, codes: dict[str, bytes]) -> None:
        """`codes` maps full module names to marshalled code, which is loaded on import."""
        self._codes = codes

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:  # noqa: ARG002
        """Find a module of the package; None for other names."""
        if name not in self._codes:
            return None
        return ModuleSpec(name, self, origin="<hatchery>", is_package="." not in name)  # type: ignore[arg-type]  # a loader without load_module

    def create_module(self, spec: ModuleSpec) -> None:
        """Use the import system's default."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code."""
        exec(loads(self._codes[module.__name__]), module.__dict__)  # noqa: S102, S302 - it came from the host

    def get_source(self, name: str) -> None:
        """Return None: only compiled code travels to a worker."""


def install(codes: dict[str, bytes]) -> None:
    """Make the package importable. It replaces an installed package of the same name, even one imported already."""
    for name in list(sys.modules):
        if name.partition(".")[0] == "hatchery":
            del sys.modules[name]  # imported by a `.pth` file or a `sitecustomize`
    sys.meta_path.insert(0, Embedded(codes))

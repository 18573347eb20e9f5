"""Modules that are loaded when an attribute of them is first used, and not before.

Some libraries import at their top what this project does not use. `importlib.util.LazyLoader` does not help: an
import statement that finds such a module reads its spec, and that loads it.
"""

import sys
from _thread import RLock
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec
from types import ModuleType


class _Later(ModuleType):
    """A module that is loaded, in place, at the first use of an attribute that an empty module does not have."""

    def __getattr__(self, name: str) -> object:
        inside = self.__dict__
        with inside["_loading"]:  # another thread waits; this one may use the module while it loads
            if loads_later(self) and not inside["_begun"]:
                inside["_begun"] = True
                try:
                    inside["__spec__"].loader.exec_module(self)
                    self.__class__ = ModuleType  # type: ignore[assignment] # of one layout
                finally:
                    inside["_begun"] = False
        return ModuleType.__getattribute__(self, name)


def loads_later(module: ModuleType) -> bool:
    """Return whether a module is still to be loaded."""
    return type(module) is _Later


def load_later(*names: str) -> None:
    """Have these modules loaded when they are used; those that are loaded, or not installed, are left alone."""
    for name in names:
        spec = None if name in sys.modules else _find(name)
        if spec and spec.loader:
            sys.modules[name] = module = module_from_spec(spec)
            module.__dict__.update(_loading=RLock(), _begun=False)
            module.__class__ = _Later


def _find(name: str) -> ModuleSpec | None:
    """Return the spec of a module, without loading the packages that it is in; None where it is not installed."""
    path: list[str] | None = None
    spec = None
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:count]), path)
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or ())
    return spec

"""Modules that are loaded when somebody asks for something in them, and not before.

Some libraries import at their top what only others of their users need. `importlib.util.LazyLoader` does not help
there: an import statement that meets its module looks at the module's spec, and that loads it.
"""

import sys
from _thread import RLock
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec
from types import ModuleType


class _Later(ModuleType):
    """A module that is loaded, in place, at the first look at anything that a module does not have from birth."""

    def __getattr__(self, name: str) -> object:
        inside = self.__dict__
        with inside["_loading"]:  # another thread waits until it is loaded; this one may look at itself meanwhile
            if loads_later(self) and not inside["_begun"]:
                inside["_begun"] = True
                try:
                    inside["__spec__"].loader.exec_module(self)
                    self.__class__ = ModuleType  # type: ignore[assignment] # of one layout
                finally:
                    inside["_begun"] = False
        return ModuleType.__getattribute__(self, name)


def loads_later(module: ModuleType) -> bool:
    """Tell whether a module is one that has not been loaded yet."""
    return type(module) is _Later


def load_later(*names: str) -> None:
    """Let these modules be loaded when they are used; one that is loaded, or not installed, is left alone."""
    for name in names:
        spec = None if name in sys.modules else _find(name)
        if spec and spec.loader:
            sys.modules[name] = module = module_from_spec(spec)
            module.__dict__.update(_loading=RLock(), _begun=False)
            module.__class__ = _Later


def _find(name: str) -> ModuleSpec | None:
    """Return where a module is, without loading the packages that it is in."""
    path: list[str] | None = None
    spec = None
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        spec = PathFinder.find_spec(".".join(parts[:count]), path)
        if spec is None:
            return None
        path = list(spec.submodule_search_locations or ())
    return spec

"""Libraries that only some uses of rsd2 need, imported when they are used."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


def import_extra(name: str) -> ModuleType:
    """Import a module of an optional library.

    Args:
        name: dotted name of the module.

    Returns:
        The module.

    Raises:
        ImportError: the library is not installed, or Python found only a folder of that name.
    """
    module = import_module(name)
    # Python takes any folder for a package; wandb, for one, leaves a folder wandb where it ran.
    if hasattr(module, "__path__") and getattr(module, "__file__", None) is None:
        raise ImportError(f"only a folder of that name is there: {module.__path__[0]}")
    return module

"""Research projects: the code of each lives in ``projects/<Name>/<name>/`` of the repository.

``import rsd2.projects.<name>`` works from a checkout, an editable install and a wheel alike.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

_ROOT = Path(__file__).resolve().parents[2]
if (_ROOT / "setup.py").is_file():  # a checkout; in a wheel the packages lie beside this file
    __path__ += [str(path) for path in sorted((_ROOT / "projects").glob("*")) if path.is_dir()]


def find_modules(name: str) -> Iterator[ModuleType]:
    """Import the module of one name from every project that has it.

    The core asks for what a project brings in this way, and so names no project itself.

    Args:
        name: of the module inside the project's package, like ``"conversion"``.

    Yields:
        The modules, in the order in which the projects are found.
    """
    for package in pkgutil.iter_modules(__path__, f"{__name__}."):
        module = f"{package.name}.{name}"
        if package.ispkg and importlib.util.find_spec(module) is not None:
            yield importlib.import_module(module)

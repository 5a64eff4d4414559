"""Research projects: the code of each lives in ``projects/<Name>/<name>/`` of the repository.

``import rsd2.projects.<name>`` works from a checkout, an editable install and a wheel alike.
"""

from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
if (_ROOT / "setup.py").is_file():  # a checkout; in a wheel the packages lie beside this file
    __path__ += [str(path) for path in sorted((_ROOT / "projects").glob("*")) if path.is_dir()]

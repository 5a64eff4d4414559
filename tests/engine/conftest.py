"""Makes the module ``toy`` importable, here and in loader processes."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _toy_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))

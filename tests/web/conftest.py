"""Tests vote faster than people."""

import pytest

from surefoot.evaluate.rated import store


@pytest.fixture(autouse=True)
def _no_haste(monkeypatch):
    monkeypatch.setattr(store, "QUICKEST", 0.0)

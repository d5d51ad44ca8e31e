"""A short runtime directory for sockets."""

import shutil
import tempfile
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def runtime(monkeypatch):
    path = Path(tempfile.mkdtemp(prefix="sl-"))  # short: names of sockets have 107 bytes
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(path))
    monkeypatch.delenv("SANLOOM_LAB_DIR", raising=False)
    yield path
    shutil.rmtree(path, ignore_errors=True)

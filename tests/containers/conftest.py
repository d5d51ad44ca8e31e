"""Tests with a real container engine: skipped, with the reason, when none answers."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest


def why_not() -> str | None:
    """Why there is no engine to test with; ``None`` if there is one."""
    if shutil.which("docker") is None:
        return "docker is not installed"
    for arguments, lack in (
        (["version"], "no Docker engine answers"),
        (["compose", "version"], "no Docker Compose v2"),
    ):
        done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, timeout=30)
        if done.returncode:
            return f"{lack}: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'no reason given'}"
    return None


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    ours = [item for item in items if here in Path(item.fspath).parents]
    if ours and (reason := why_not()):
        for item in ours:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def image():
    """The image of these sources."""
    from nodes.lab.images import ensure_image

    return ensure_image()


@pytest.fixture(autouse=True)
def runtime(monkeypatch):
    path = Path(tempfile.mkdtemp(prefix="sl-"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(path))
    monkeypatch.delenv("SANLOOM_LAB_DIR", raising=False)
    yield path
    shutil.rmtree(path, ignore_errors=True)

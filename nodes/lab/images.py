"""Which image the nodes run: $SANLOOM_IMAGE, else one built from these very sources, else the released one."""

import hashlib
import os
from pathlib import Path

from fabric.errors import EnvironmentLacks
from nodes.lab.compose_file import DEFAULT_IMAGE
from nodes.lab.docker_cli import docker

ENVIRONMENT_IMAGE = "SANLOOM_IMAGE"
BUILD_SECONDS = 900.0
_ROOT = Path(__file__).parents[2]
_SOURCES = ("docker", "fabric", "nodes", "provider", "topologies", "requirements", "pyproject.toml")


def ensure_image() -> str:
    """The name of an image that the engine has; one of these sources is built if it is missing. EnvironmentLacks."""
    given = os.environ.get(ENVIRONMENT_IMAGE)
    if given:
        docker("image", "inspect", given)
        return given
    if not (_ROOT / "docker" / "Dockerfile").is_file():
        docker("image", "inspect", DEFAULT_IMAGE)
        return DEFAULT_IMAGE
    image = f"{DEFAULT_IMAGE}-{_digest_of_sources()}"
    try:
        docker("image", "inspect", image)
    except EnvironmentLacks as error:
        if "missing" not in str(error):
            raise
        dockerfile = str(_ROOT / "docker" / "Dockerfile")
        docker("build", "--file", dockerfile, "--tag", image, "--tag", DEFAULT_IMAGE, str(_ROOT), timeout=BUILD_SECONDS)
    return image


def _digest_of_sources() -> str:
    digest = hashlib.sha256()
    for name in _SOURCES:
        path = _ROOT / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(str(file.relative_to(_ROOT)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]

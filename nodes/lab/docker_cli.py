"""The ``docker`` command, and what its failures mean: a sentence that says what to do."""

import json
import shutil
import subprocess
from typing import Any

from fabric.errors import EnvironmentLacks, SanloomError

TIMEOUT_SECONDS = 120.0
_MEANINGS = (
    (("permission denied",), "you may not use the Docker engine: add yourself to the group docker, or run as root"),
    (
        ("cannot connect to the docker daemon", "is the docker daemon running"),
        "no Docker engine answers: start it",
    ),
    (("no space left on device",), "the disk of the Docker engine is full: docker system prune frees some"),
    (("port is already allocated", "address already in use"), "a port is in use already"),
    (("no such image", "pull access denied", "manifest unknown"), "the image is missing: see docker/README.md"),
    (("is not a docker command", "unknown command: docker compose"), "Docker Compose v2 is not installed"),
)


def docker(*arguments: str, timeout: float = TIMEOUT_SECONDS, input_text: str | None = None) -> str:
    """Run it and return its standard output. EnvironmentLacks for what this machine lacks, SanloomError otherwise."""
    program = shutil.which("docker")
    if program is None:
        raise EnvironmentLacks("docker is not installed: install Docker Engine and Compose v2, or use --engine process")
    try:
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, check=False, timeout=timeout, input=input_text
        )
    except subprocess.TimeoutExpired:
        raise EnvironmentLacks(f"docker {arguments[0]} did not end within {timeout:.0f} s") from None
    if done.returncode:
        raise explain(arguments, done.stderr)
    return done.stdout


def explain(arguments: tuple[str, ...], errors: str) -> SanloomError:
    """The exception for a failed command."""
    told = errors.lower()
    last = errors.strip().splitlines()[-1] if errors.strip() else "it said nothing"
    for signs, meaning in _MEANINGS:
        if any(sign in told for sign in signs):
            return EnvironmentLacks(f"{meaning} ({last})")
    return SanloomError(f"docker {' '.join(arguments[:2])}: {last}")


def containers(project: str) -> dict[str, dict[str, Any]]:
    """What ``docker inspect`` says of the project's containers, by service."""
    ids = docker("ps", "-aq", "--no-trunc", "--filter", f"label=com.docker.compose.project={project}").split()
    if not ids:
        return {}
    found: list[dict[str, Any]] = json.loads(docker("inspect", *ids))
    return {container["Config"]["Labels"]["com.docker.compose.service"]: container for container in found}

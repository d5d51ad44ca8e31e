"""The checks of ``sanloom doctor``. Each is a function that looks at one thing and says what it found."""

import contextlib
import importlib.util
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from fabric.errors import SanloomError
from fabric.live.precision import measure_timer
from fabric.units import MICROSECOND
from nodes.lab import engines, records

FINE, OPTIONAL, LACKING = "ok", "optional", "LACKING"
TIMER_ROUNDS = 100
UNIX_PATH_MAX = 107
NODES_PER_GIB = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, FINE, OPTIONAL (nice to have and not here) or LACKING, and a sentence."""

    check: str
    state: str
    text: str


def examine() -> list[Finding]:
    """All checks, in the order in which one would mend things."""
    checks = (_python, _system, _packages, _runtime_directory, _sockets, _descriptors, _timer, _memory, _labs)
    found = [*(check() for check in checks), _clocks(), _program("tshark", "reads captures"), _docker()]
    return [finding for finding in found if finding is not None]


def _python() -> Finding:
    return Finding("python", FINE, f"{platform.python_version()} in {sys.prefix}")


def _system() -> Finding:
    system = f"{platform.system()} {platform.release()}, {os.cpu_count()} processors"
    if platform.system() != "Linux":
        return Finding("system", LACKING, f"{system}; nodes need Linux (timerfd, pidfd, SO_PEERCRED)")
    return Finding("system", FINE, system)


def _packages() -> Finding:
    """The ``fabric`` on the package index is an unrelated SSH tool."""
    found = importlib.util.find_spec("fabric")
    expected = Path(__file__).parents[2] / "fabric" / "__init__.py"
    if found is None or found.origin is None or Path(found.origin).resolve() != expected.resolve():
        where = found.origin if found is not None else "nowhere"
        return Finding("package names", LACKING, f"`import fabric` finds {where}; use an environment of its own")
    if importlib.util.find_spec("invoke") is not None and importlib.util.find_spec("paramiko") is not None:
        return Finding("package names", OPTIONAL, "the SSH tool `fabric` may be installed here too; keep them apart")
    return Finding("package names", FINE, "fabric, nodes and provider are Sanloom's")


def _runtime_directory() -> Finding:
    try:
        path = records.labs_directory()
    except SanloomError as error:
        return Finding("runtime directory", LACKING, str(error))
    longest = len(str(path / ("n" * 32) / ("n" * 32 + ".control")))
    if longest > UNIX_PATH_MAX:
        text = f"{path} is too long for sockets ({longest} of {UNIX_PATH_MAX}) with long names; set XDG_RUNTIME_DIR"
        return Finding("runtime directory", LACKING, text)
    return Finding("runtime directory", FINE, str(path))


def _sockets() -> Finding:
    try:
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with left, right:
            left.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        os.close(os.pidfd_open(os.getpid()))
    except (OSError, AttributeError) as error:
        return Finding("kernel", LACKING, f"peer credentials or pidfd do not work here: {error}")
    return Finding("kernel", FINE, "AF_UNIX peer credentials and pidfd work")


def _descriptors() -> Finding:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 1024:
        return Finding("descriptors", LACKING, f"only {soft} open files allowed (at most {hard}): ulimit -n 4096")
    return Finding("descriptors", FINE, f"{soft} open files allowed")


def _timer() -> Finding:
    """How late a timer rings: latencies of links below the p99 are not kept."""
    try:
        median, high = measure_timer(TIMER_ROUNDS)
    except OSError as error:
        return Finding("timer", LACKING, f"timerfd does not work here: {error}")
    text = (
        f"rings {median / MICROSECOND:.0f} us late (p50), {high / MICROSECOND:.0f} us (p99); "
        f"configure link latencies well above that"
    )
    return Finding("timer", FINE, text)


def _memory() -> Finding:
    available = next(
        (int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines() if "MemAvailable" in line), 0
    )
    gib = available / 2**20
    return Finding("memory", FINE, f"{gib:.1f} GiB free: about {int(gib * NODES_PER_GIB)} nodes")


def _labs() -> Finding:
    try:
        labs = records.running()
    except SanloomError as error:
        return Finding("labs", OPTIONAL, str(error))
    dead = [lab.name for lab in labs if _is_dead(lab)]
    if dead:
        return Finding("labs", OPTIONAL, f"dead: {', '.join(dead)}; remove with: sanloom down --lab NAME")
    return Finding("labs", FINE, f"{len(labs)} running" + "".join(f" {lab.name}" for lab in labs))


def _is_dead(lab: records.LabRecord) -> bool:
    if lab.engine == "process":
        return not lab.alive()
    try:
        return all(state == "ended" for state in engines.states(lab).values())
    except SanloomError:
        return False  # the engine does not answer, which is another finding


def _clocks() -> Finding | None:
    """How frames are timed in running labs whose nodes do not all share one clock."""
    found = []
    try:
        labs = [lab for lab in records.running() if not _is_dead(lab)]
    except SanloomError:
        return None  # the runtime directory is another finding
    for lab in labs:
        for node in lab.nodes:
            with contextlib.suppress(SanloomError):
                for name, each in engines.ask(lab, node, "ps").get("neighbours", {}).items():
                    if each["clock"] != "same":
                        error = f" (error {each['error_us']} us)" if "error_us" in each else ""
                        found.append(f"{lab.name}: {name}->{node} by {each['clock']}{error}")
    return Finding("clocks", FINE, "; ".join(found)) if found else None


def _program(name: str, purpose: str) -> Finding:
    found = shutil.which(name)
    if found is None:
        return Finding(name, OPTIONAL, f"not installed; it {purpose} (Debian: apt install {name})")
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [found, "--version"],
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
            env={**os.environ, "HOME": home},
        )
    return Finding(name, FINE, (done.stdout or done.stderr).splitlines()[0] if done.stdout or done.stderr else found)


def _docker() -> Finding:
    found = shutil.which("docker")
    if found is None:
        return Finding("docker", OPTIONAL, "not installed; the process engine does without")
    try:
        done = subprocess.run(
            [found, "version", "--format", "{{.Server.Version}}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        )
    except subprocess.TimeoutExpired:
        return Finding("docker", OPTIONAL, "the engine does not answer; the process engine does without")
    if done.returncode:
        return Finding("docker", OPTIONAL, "installed, but no engine answers; the process engine does without")
    return Finding("docker", FINE, f"engine {done.stdout.strip()} answers")

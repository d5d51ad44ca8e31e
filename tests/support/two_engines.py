"""Two Docker engines on this machine that are strangers to each other but for one wire: each in a network namespace
and a UTS namespace of its own, joined by a veth pair. What only shows between machines (overlay traffic, remote
tasks, a machine that is cut off) can be tested with them. They share the kernel; but the monotonic clock of ``slb``
and of all that runs there is AHEAD_SECONDS ahead, as if that machine had been up for longer.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

NEEDED = ("docker", "dockerd", "ip", "iptables", "nsenter", "unshare")
START_SECONDS = 40.0
AHEAD_SECONDS = 5000
NAMES = ("sla", "slb")
ADDRESSES = {"sla": "10.213.0.1", "slb": "10.213.0.2"}


class CannotStart(Exception):
    """Why there are no two engines here."""


class TwoEngines:
    """The engines ``sla``, the manager of the swarm, and ``slb``. They are what their host names say too."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def url(self, name: str) -> str:
        """For DOCKER_HOST."""
        return f"unix://{self._directory}/{name}.sock"

    def docker(self, name: str, *arguments: str, check: bool = True, timeout: float = 120) -> str:
        """Run ``docker`` against one of them."""
        command = ["docker", "--host", self.url(name), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=check, timeout=timeout).stdout.strip()

    def start(self) -> None:
        """CannotStart, with the system's words."""
        missing = [program for program in NEEDED if shutil.which(program) is None]
        if missing or os.geteuid() != 0:
            raise CannotStart("two engines need root and " + ", ".join(missing or NEEDED))
        for name in NAMES:
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("link", "add", "wire", "netns", "sla", "type", "veth", "peer", "name", "wire", "netns", "slb")
        for name in NAMES:
            _ip("-n", name, "addr", "add", f"{ADDRESSES[name]}/24", "dev", "wire")
            _ip("-n", name, "link", "set", "wire", "up")
            self._start_daemon(name)
        deadline = time.monotonic() + START_SECONDS
        for name in NAMES:
            while not self.docker(name, "version", "--format", "{{.Server.Version}}", check=False):
                if self._daemons[name].poll() is not None or time.monotonic() > deadline:
                    last = (self._directory / f"{name}.log").read_text().strip().splitlines()[-1:]
                    raise CannotStart(f"dockerd {name} does not come up: {last}")
                time.sleep(0.1)
        self.docker("sla", "swarm", "init", "--advertise-addr", ADDRESSES["sla"])
        token = self.docker("sla", "swarm", "join-token", "--quiet", "worker")
        manager = f"{ADDRESSES['sla']}:2377"
        self.docker("slb", "swarm", "join", "--token", token, "--advertise-addr", ADDRESSES["slb"], manager)

    def load(self, image: str) -> None:
        """Bring an image of the machine's own engine to both."""
        archive = self._directory / "image.tar"
        subprocess.run(["docker", "save", "--output", str(archive), image], check=True, timeout=120)
        for name in NAMES:
            self.docker(name, "load", "--input", str(archive))
        archive.unlink()

    def cut(self) -> None:
        """Pull the wire at ``slb``."""
        _ip("-n", "slb", "link", "set", "wire", "down")

    def mend(self) -> None:
        """Plug it in again."""
        _ip("-n", "slb", "link", "set", "wire", "up")

    def stop(self) -> None:
        """End both, with everything that runs in them, and remove their namespaces and files."""
        for name, daemon in self._daemons.items():
            if daemon.poll() is None:
                with contextlib.suppress(subprocess.SubprocessError):
                    if containers := self.docker(name, "ps", "--quiet", "--all", check=False).split():
                        self.docker(name, "rm", "--force", *containers, check=False)
                    self.docker(name, "swarm", "leave", "--force", check=False)
                daemon.terminate()
        for daemon in self._daemons.values():
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._end_leftovers()
        for name in NAMES:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)

    def _start_daemon(self, name: str) -> None:
        root = self._directory / name
        arguments = ["--data-root", f"{root}/data", "--exec-root", f"{root}/exec", "--pidfile", f"{root}/pid"]
        become = f"hostname {name} && exec dockerd --host {self.url(name)} {' '.join(arguments)}"
        ahead = ["--time", "--monotonic", str(AHEAD_SECONDS)] if name == "slb" else []
        root.mkdir()
        with (self._directory / f"{name}.log").open("wb") as log:
            self._daemons[name] = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{name}", "unshare", "--uts", *ahead, "sh", "-c", become],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _end_leftovers(self) -> None:
        """Shims and mounts of a daemon that did not end in order: all of them name our directory."""
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if str(self._directory).encode() in (entry / "cmdline").read_bytes() and int(entry.name) != os.getpid():
                    os.kill(int(entry.name), signal.SIGKILL)
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in reversed([mount for mount in mounts if mount.startswith(f"{self._directory}/")]):
            subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False, timeout=20)
    if done.returncode:
        raise CannotStart(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


@contextlib.contextmanager
def two_engines() -> Iterator[TwoEngines]:
    """Both running, one swarm. CannotStart; whatever happens, nothing is left."""
    with tempfile.TemporaryDirectory(prefix="sl2-", ignore_cleanup_errors=True) as name:
        engines = TwoEngines(Path(name))
        try:
            engines.start()
            yield engines
        finally:
            engines.stop()

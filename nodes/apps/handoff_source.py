"""The controlling process of the SAN scenario: ``python -m nodes.apps.handoff_source HOST:PORT --out FILE``.

Connects to a ``file_sender``, reads the first third of the file, hands the live connection to a worker process that
it starts, takes it back after the worker has read the middle third, reads the rest and ends the session: the
seventeen steps, each one marked. The file is written to ``--out`` by both processes, each at its own offset.
"""

import argparse
import base64
import contextlib
import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from nodes.apps.steps import report, step
from provider import socket
from provider.client.any_socket import AnySocket

ROLE = "source"
CHUNK = 1 << 18


def copy(connection: AnySocket, out: Path, offset: int, count: int) -> None:
    """Move ``count`` bytes of the stream into ``out`` at ``offset``; EOFError if the stream ends early."""
    with out.open("r+b") as file:
        file.seek(offset)
        left = count
        while left:
            data = connection.recv(min(left, CHUNK))
            if not data:
                raise EOFError(f"the stream ended {left} bytes early")
            file.write(data)
            left -= len(data)


def read_exactly(connection: AnySocket, count: int) -> bytes:
    """The next ``count`` bytes; EOFError if the stream ends early."""
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise EOFError("the stream ended early")
        data += part
    return data


def connect(address: tuple[str, int], timeout: float, patience: float) -> AnySocket:
    """Connect; while nobody listens there, try again for ``patience`` seconds."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return socket.create_connection(address, timeout=timeout)
        except ConnectionRefusedError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.05)


class Worker:
    """The destination process and the pipe to it: lines of JSON both ways."""

    def __init__(self, *arguments: str, module: str = "nodes.apps.handoff_worker") -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def send(self, copies: int = 1, **message: Any) -> None:
        """One message to the worker; a fault plan may have it lost or repeated."""
        assert self._process.stdin is not None
        self._process.stdin.write((json.dumps(message) + "\n") * copies)
        self._process.stdin.flush()

    def receive(self, key: str) -> dict[str, Any]:
        """The worker's next message that has ``key``, others are repetitions; its reports are passed on to our own
        output.
        """
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message: dict[str, Any] = json.loads(line)
            if "event" in message:
                sys.stdout.write(line)
                sys.stdout.flush()
            elif key in message:
                return message
        raise EOFError("the worker ended")

    def finish(self, timeout: float) -> int:
        """Wait for its end; it is killed when it takes longer than ``timeout`` seconds."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        with contextlib.suppress(EOFError):
            self.receive("end")
        try:
            return self._process.wait(timeout)
        finally:
            self._process.kill()
            self._process.wait()


def main() -> int:
    """Entry point; status 0 when the seventeen steps are done."""
    parser = argparse.ArgumentParser(prog="handoff_source", description=__doc__)
    parser.add_argument("address", help="HOST:PORT of the file sender")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--mode", choices=["suspend", "local", "rehome"], default=None)
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for every wait")
    parser.add_argument(
        "--patience", type=float, default=0.0, help="seconds to wait for a sender that does not listen yet"
    )
    options = parser.parse_args()
    host, _, port = options.address.rpartition(":")
    options.out.touch()
    mode = [] if options.mode is None else ["--mode", options.mode]
    worker = Worker("--out", str(options.out), "--timeout", str(options.timeout), *mode)
    with step(ROLE, 1):
        original = connect((host, int(port)), options.timeout, options.patience)
    size = int.from_bytes(read_exactly(original, 8), "big")
    first, middle = size // 3, size // 3
    copy(original, options.out, 0, first)
    with step(ROLE, 2) as copies:
        worker.send(copies, ask="process id")
    with step(ROLE, 4):
        pid = int(worker.receive("pid")["pid"])
    with step(ROLE, 5):
        info = original.share(pid, options.mode)
    with step(ROLE, 6) as copies:
        worker.send(copies, info=base64.b64encode(info).decode(), offset=first, count=middle)
    with step(ROLE, 13):
        info = base64.b64decode(worker.receive("info")["info"])
    with step(ROLE, 14):
        connection = socket.fromshare(info)
        connection.settimeout(options.timeout)
    with step(ROLE, 15):
        original.close()
    copy(connection, options.out, first + middle, size - first - middle)
    with step(ROLE, 16):
        connection.shutdown(socket.SHUT_WR)
        if connection.recv(1):
            raise AssertionError("bytes after the end of the file")
    with step(ROLE, 17):
        connection.close()
    status = worker.finish(options.timeout)
    report(ROLE, "received", bytes=size, sha256=hashlib.sha256(options.out.read_bytes()).hexdigest(), worker=status)
    return status


if __name__ == "__main__":
    sys.exit(main())

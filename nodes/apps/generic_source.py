"""The source of the generic scenario: ``python -m nodes.apps.generic_source HOST:PORT --out FILE``.

Connects to a ``file_sender``, reads the first half of the file, hands the live connection to a worker process for
good, and closes its own descriptor: the ten steps of the generic page, each one marked. The worker reads the rest and
ends the session.
"""

import argparse
import base64
import hashlib
import sys
from pathlib import Path

from nodes.apps.handoff_source import Worker, copy, read_exactly
from nodes.apps.steps import report, step
from provider import socket

ROLE, SCENARIO = "source", "generic"


def main() -> int:
    """Entry point; status 0 when the ten steps are done and the file is whole."""
    parser = argparse.ArgumentParser(prog="generic_source", description=__doc__)
    parser.add_argument("address", help="HOST:PORT of the file sender")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--mode", choices=["suspend", "local", "rehome"], default=None)
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for every wait")
    options = parser.parse_args()
    host, _, port = options.address.rpartition(":")
    options.out.touch()
    arguments = ["--out", str(options.out), "--timeout", str(options.timeout)]
    worker = Worker(*arguments, module="nodes.apps.generic_worker")
    with step(ROLE, 1, SCENARIO):
        connection = socket.create_connection((host, int(port)), timeout=options.timeout)
    size = int.from_bytes(read_exactly(connection, 8), "big")
    copy(connection, options.out, 0, size // 2)
    with step(ROLE, 2, SCENARIO) as copies:
        worker.send(copies, ask="process id")
    with step(ROLE, 4, SCENARIO):
        pid = int(worker.receive("pid")["pid"])
    with step(ROLE, 5, SCENARIO):
        info = connection.share(pid, options.mode)
    with step(ROLE, 6, SCENARIO) as copies:
        worker.send(copies, info=base64.b64encode(info).decode(), offset=size // 2, count=size - size // 2)
    with step(ROLE, 10, SCENARIO):
        connection.close()
    status = worker.finish(options.timeout)
    report(ROLE, "received", bytes=size, sha256=hashlib.sha256(options.out.read_bytes()).hexdigest(), worker=status)
    return status


if __name__ == "__main__":
    sys.exit(main())

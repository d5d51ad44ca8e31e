"""The source of the generic scenario: ``python -m nodes.apps.generic_source IP:PORT --out FILE``.

Connects to a ``file_sender --tcpip`` through the TCP/IP provider's SPI, reads the first half of the file, shares the
live connection with a worker process, reads a quarter of the rest while the worker reads the others, and closes its own
descriptor: the ten steps of the generic page, each one marked. The worker still has the socket, and ends the session.
"""

import argparse
import base64
import hashlib
import sys
from pathlib import Path

from nodes.apps.handoff_source import Worker
from nodes.apps.shared_stream import SharedStream
from nodes.apps.steps import report, step
from provider import constants as c

ROLE, SCENARIO = "source", "generic"


def main() -> int:
    """Entry point; status 0 when the ten steps are done and the file is whole."""
    parser = argparse.ArgumentParser(prog="generic_source", description=__doc__)
    parser.add_argument("address", help="IP:PORT of the file sender")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for every wait")
    options = parser.parse_args()
    ip, _, port = options.address.rpartition(":")
    options.out.write_bytes(b"")
    worker = Worker(*["--out", str(options.out), "--timeout", str(options.timeout)], module="nodes.apps.generic_worker")
    shared = SharedStream(ROLE, options.timeout)
    table = shared.table
    with step(ROLE, 1, SCENARIO):
        shared.s = table.WSPSocket(c.AF_INET, c.SOCK_STREAM, c.IPPROTO_TCP)
        table.WSPConnect(shared.s, (ip, int(port)))
    size = int.from_bytes(shared.read_exactly(8), "big")
    shared.append(options.out, size // 2)
    rest = size - size // 2
    with step(ROLE, 2, SCENARIO) as copies:
        worker.send(copies, ask="process id")
    with step(ROLE, 4, SCENARIO):
        pid = int(worker.receive("pid")["pid"])
    with step(ROLE, 5, SCENARIO):
        info = table.WSPDuplicateSocket(shared.s, pid)
    with step(ROLE, 6, SCENARIO) as copies:
        worker.send(copies, info=base64.b64encode(info.pack()).decode(), count=rest - rest // 4)
    worker.receive("sharing")  # it is at step 9: from here on both use the socket at once
    shared.append(options.out, rest // 4)
    with step(ROLE, 10, SCENARIO):
        table.WSPCloseSocket(shared.s)
    table.WSPCleanup()
    worker.send(closed=True)
    status = worker.finish(options.timeout)
    report(ROLE, "received", bytes=size, sha256=hashlib.sha256(options.out.read_bytes()).hexdigest(), worker=status)
    return status


if __name__ == "__main__":
    sys.exit(main())

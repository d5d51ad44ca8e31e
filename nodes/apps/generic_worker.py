"""The target of the generic scenario; started by ``generic_source``, spoken to on standard input and output."""

import argparse
import base64
import os
import sys
from pathlib import Path

from nodes.apps.handoff_worker import receive, send
from nodes.apps.shared_stream import SharedStream
from nodes.apps.steps import report, step
from provider import constants as c
from provider.protocol_info import WSAPROTOCOL_INFOW

ROLE, SCENARIO = "worker", "generic"


def main() -> int:
    """Entry point; status 0 when the rest of the file was read and the session ended gracefully."""
    parser = argparse.ArgumentParser(prog="generic_worker", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--timeout", type=float, default=120.0)
    options = parser.parse_args()
    shared = SharedStream(ROLE, options.timeout)
    table, whatever = shared.table, c.FROM_PROTOCOL_INFO
    with step(ROLE, 3, SCENARIO) as copies:
        receive("ask")
        send(copies, pid=os.getpid())
    with step(ROLE, 7, SCENARIO):
        message = receive("info")
    with step(ROLE, 8, SCENARIO):
        info = WSAPROTOCOL_INFOW.unpack(base64.b64decode(message["info"]))
        shared.s = table.WSPSocket(whatever, whatever, whatever, info)
    with step(ROLE, 9, SCENARIO):
        send(1, sharing=True)
        shared.append(options.out, int(message["count"]))
    receive("closed")  # the source has read its part and closed its descriptor; the socket is still open
    table.WSPShutdown(shared.s, c.SD_SEND)
    if shared.recv(1):
        raise AssertionError("bytes after the end of the file")
    table.WSPCloseSocket(shared.s)
    table.WSPCleanup()
    report(ROLE, "done")
    return 0


if __name__ == "__main__":
    sys.exit(main())

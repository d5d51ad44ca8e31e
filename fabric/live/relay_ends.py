"""Source and sink around the bare relay, each a process: ``python -m fabric.live.relay_ends ROLE DIRECTORY``.

The counterpart of two measuring hosts (``nodes.bench.generator``) at a network switch: one zmq message per frame, a
window of unacknowledged frames, an acknowledgement for every ACK_EVERY. The source takes lines of JSON on standard
input, {"frame": hex, "window", "seconds"}, and answers each with {"frames", "ns"}: the frames of this burst, all
acknowledged, and the time to the last acknowledgement. Both end with their standard input.
"""

import json
import select
import sys
import time
from pathlib import Path

import zmq

from fabric.live.zmq_channel import HIGH_WATER_MARK, ipc_address

ACK_EVERY = 64
"""Frames per acknowledgement, here and between generators."""
HELLO, ACKNOWLEDGEMENT = b"hello", b"ack"
_SECOND = 1_000_000_000


def sink(dealer: "zmq.Socket[bytes]") -> None:
    """Acknowledge every ACK_EVERY-th frame; say hello to whoever says it."""
    poller = zmq.Poller()
    poller.register(dealer, zmq.POLLIN)
    poller.register(sys.stdin.fileno(), zmq.POLLIN)
    received = 0
    while all(socket != sys.stdin.fileno() for socket, _ in poller.poll()):
        try:
            for _ in range(1000):
                if dealer.recv(zmq.NOBLOCK) == HELLO:
                    dealer.send(HELLO)
                    continue
                received += 1
                if received % ACK_EVERY == 0:
                    dealer.send(ACKNOWLEDGEMENT)
        except zmq.Again:
            pass


def source(dealer: "zmq.Socket[bytes]") -> None:
    """One burst per line of standard input."""
    while not dealer.poll(20):
        _end_if_abandoned()
        dealer.send(HELLO)  # lost until all three are connected
    for line in sys.stdin:
        request = json.loads(line)
        began = time.monotonic_ns()
        until = began + int(request["seconds"] * _SECOND)
        frames = _burst(dealer, bytes.fromhex(request["frame"]), int(request["window"]), until)
        sys.stdout.write(json.dumps({"frames": frames, "ns": time.monotonic_ns() - began}) + "\n")
        sys.stdout.flush()


def _burst(dealer: "zmq.Socket[bytes]", frame: bytes, window: int, until: int) -> int:
    sent = acknowledged = 0
    while True:
        while sent - acknowledged < window and (sent % ACK_EVERY or time.monotonic_ns() < until):
            dealer.send(frame)
            sent += 1
        if acknowledged == sent:
            return sent
        if not dealer.poll(100):
            _end_if_abandoned()
        elif dealer.recv() == ACKNOWLEDGEMENT:
            acknowledged += ACK_EVERY


def _end_if_abandoned() -> None:
    """SystemExit if nobody holds the other end of standard input; what waits in it is not touched."""
    poller = select.poll()
    poller.register(sys.stdin.fileno(), 0)
    if poller.poll(0):
        sys.exit(1)


def main(role: str, directory: Path) -> None:
    """Entry point."""
    context = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    for option in (zmq.SNDHWM, zmq.RCVHWM):
        dealer.setsockopt(option, HIGH_WATER_MARK)
    dealer.setsockopt(zmq.LINGER, 0)
    dealer.setsockopt(zmq.IDENTITY, {"source": b"client", "sink": b"server"}[role])
    dealer.setsockopt(zmq.RECONNECT_IVL, 20)
    dealer.connect(ipc_address(directory, "s1"))
    try:
        (source if role == "source" else sink)(dealer)
    finally:
        dealer.close(0)
        context.term()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

"""The baseline of the forwarding benchmark: a process that passes zmq messages on and does nothing else.

``python -m fabric.live.relay DIRECTORY`` binds where a network switch named s1 would, and sends what comes from
``client`` to ``server`` and the other way round, message by message, until standard input ends.
"""

import sys
from pathlib import Path

import zmq

from fabric.live.zmq_channel import HIGH_WATER_MARK, ipc_address


def main(directory: Path) -> None:
    """Entry point."""
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    for option in (zmq.SNDHWM, zmq.RCVHWM):
        router.setsockopt(option, HIGH_WATER_MARK)
    router.setsockopt(zmq.LINGER, 0)
    router.setsockopt(zmq.ROUTER_HANDOVER, 1)  # the next round's ends may be there before the last one's are gone
    router.bind(ipc_address(directory, "s1"))
    poller = zmq.Poller()
    poller.register(router, zmq.POLLIN)
    poller.register(sys.stdin.fileno(), zmq.POLLIN)
    other = {b"client": b"server", b"server": b"client"}
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        if any(socket == sys.stdin.fileno() for socket, _ in poller.poll()):
            break
        try:
            for _ in range(1000):
                source, message = router.recv_multipart(zmq.NOBLOCK)
                router.send_multipart([other[source], message])
        except zmq.Again:
            pass
    router.close(0)
    context.term()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

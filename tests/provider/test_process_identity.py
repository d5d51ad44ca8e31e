"""Who connected, by the kernel's word."""

import os
import signal
import socket
from pathlib import Path

import pytest

from provider.process_identity import NoSuchProcess, identify, instance_of

LAST_PID = Path("/proc/sys/kernel/ns_last_pid")


@pytest.fixture
def listener():
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as made:
        made.bind("")  # an abstract name of the kernel's choice
        made.listen()
        yield made


def connected_by_a_child(listener) -> tuple[int, socket.socket]:
    """A child has connected, and its connection outlives it."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if not child:
        sock.connect(listener.getsockname())
        os._exit(0)
    os.waitpid(child, 0)
    return child, sock


def test_this_process(listener):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(listener.getsockname())
        connection, _ = listener.accept()
        with connection:
            peer = identify(connection)
            os.close(peer.pidfd)
            assert (peer.process, peer.uid) == (instance_of(os.getpid()), os.getuid())


def test_a_process_that_has_ended(listener):
    _, sock = connected_by_a_child(listener)
    connection, _ = listener.accept()
    with sock, connection, pytest.raises(NoSuchProcess):
        identify(connection)


@pytest.mark.skipif(not os.access(LAST_PID, os.W_OK), reason="only root can have a process number given out again")
def test_another_process_that_has_its_number_now(listener):
    for _ in range(50):
        ended, sock = connected_by_a_child(listener)
        connection, _ = listener.accept()
        with sock, connection:
            LAST_PID.write_text(str(ended - 1))
            other = os.fork()
            if not other:
                signal.pause()
            try:
                if other == ended:
                    with pytest.raises(NoSuchProcess):
                        identify(connection)
                    return
            finally:
                os.kill(other, signal.SIGKILL)
                os.waitpid(other, 0)
    pytest.skip("others were quicker to take the number")

"""A server without a descriptor for its next caller waits for better times."""

import resource
import socket

import trio

from nodes.accepting import Acceptor
from provider import ipc


def test_a_caller_is_served_once_there_is_a_descriptor_again(runtime):
    path = str(runtime / "s")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def main() -> None:
        listener = trio.socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        caller = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with listener, caller, trio.fail_after(20):
            await listener.bind(path)
            listener.listen(1)
            acceptor = Acceptor(listener)
            ipc.connect(caller, path, 10)
            async with trio.open_nursery() as nursery:
                resource.setrlimit(resource.RLIMIT_NOFILE, (1, before[1]))

                async def recover() -> None:
                    while acceptor.short < 2:
                        await trio.lowlevel.checkpoint()
                    resource.setrlimit(resource.RLIMIT_NOFILE, before)

                nursery.start_soon(recover)
                with await acceptor.next() as connection:
                    await connection.send(b"hello")
            assert caller.recv(10) == b"hello"
            assert acceptor.short >= 2

    try:
        trio.run(main)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_full_queue_makes_a_caller_wait_and_not_fail(runtime):
    """The next caller gets through although nobody has been accepted when it calls."""
    path = str(runtime / "s")

    async def main() -> None:
        listener = trio.socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        callers = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(3)]
        with listener, trio.fail_after(20):
            await listener.bind(path)
            listener.listen(0)
            ipc.connect(callers[0], path, 10)
            async with trio.open_nursery() as nursery:
                for caller in callers[1:]:
                    nursery.start_soon(trio.to_thread.run_sync, ipc.connect, caller, path, 10)
                for _ in callers:
                    connection, _ = await listener.accept()
                    connection.close()
        for caller in callers:
            assert caller.recv(1) == b""
            caller.close()

    trio.run(main)

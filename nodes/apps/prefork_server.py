"""One process accepts, N worker processes serve: ``python -m nodes.apps.prefork_server --port 7000 --workers 3``.

The controlling process never reads a byte of a connection. It hands each one to an idle worker (WSPDuplicateSocket),
keeps its own, dormant descriptor until the worker says that it has the connection, and closes it then. If the worker
dies before that, control of the connection comes back (RETURN), and another worker gets it; the client sees a delay.
Connections that no worker is free for wait in the listener's backlog. The service is an echo.
"""

import argparse
import select
import subprocess
import sys
import time
from collections import deque

from nodes.apps.meeting import hear
from provider import socket
from provider.client.any_socket import AnySocket

CHUNK = 1 << 16
PATIENCE = 3.0
"""Seconds for a worker to take what it is given; one that does not is as good as dead."""


class Worker:
    """A worker process and the channel to it."""

    def __init__(self) -> None:
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "nodes.apps.prefork_server", "--channel", str(theirs.fileno())]
            self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        self.connection: AnySocket | None = None  # on its way to the worker
        self.given_at = 0.0
        self.idle = True

    def give(self, connection: AnySocket) -> None:
        """Hand a connection over. OSError: it is still ours."""
        info = connection.share(self.process.pid)
        self.connection, self.given_at, self.idle = connection, time.monotonic(), False
        try:
            self.channel.send(info)
        except BrokenPipeError:
            pass  # it has died; its channel says so too


def control(port: int, count: int) -> None:
    """The controlling process, for ever."""
    workers = [Worker() for _ in range(count)]
    waiting: deque[AnySocket] = deque()  # connections that came back
    with socket.create_server(("", port)) as listener:
        print(f"listening on port {port}, {count} workers", flush=True)
        while True:
            idle = [worker for worker in workers if worker.idle]
            while waiting and idle:
                give(waiting.popleft(), idle.pop(), waiting)
            channels = {worker.channel: worker for worker in workers}
            ready, _, _ = select.select([*channels, *([listener] if idle else [])], [], [], PATIENCE)
            for channel in ready:
                if channel not in channels:
                    give(listener.accept()[0], idle.pop(), waiting)
                else:
                    listen_to(channels[channel], workers, waiting)
            for worker in workers:
                if worker.connection is not None and time.monotonic() > worker.given_at + PATIENCE:
                    worker.process.kill()


def give(connection: AnySocket, worker: Worker, waiting: deque[AnySocket]) -> None:
    """Hand over; a worker that has just died is found out by its channel, a peer that has gone needs no worker."""
    try:
        worker.give(connection)
    except OSError:
        if worker.process.poll() is None:
            connection.close()
        else:
            waiting.append(connection)


def listen_to(worker: Worker, workers: list[Worker], waiting: deque[AnySocket]) -> None:
    """A word from a worker, or its end."""
    word = hear(worker.channel)
    connection = worker.connection
    if word == b"idle":
        worker.idle = True
    elif word == b"taken" and connection is not None:
        connection.close()  # our descriptor only
        worker.connection = None
    elif not word:
        worker.channel.close()
        print(f"worker {worker.process.pid} ended ({worker.process.wait()})", flush=True)
        workers[workers.index(worker)] = Worker()
        if connection is not None:
            try:
                connection.wait_for_return()
            except OSError:
                connection.close()  # the worker had begun to use it, or the peer has gone
            else:
                waiting.append(connection)


def serve(channel: AnySocket) -> None:
    """A worker: one connection after the other, until the controlling process ends."""
    while info := hear(channel):
        connection = socket.fromshare(info)
        channel.send(b"taken")
        with connection:
            try:
                while data := connection.recv(CHUNK):
                    connection.sendall(data)
            except ConnectionError as error:
                print(f"a client went away: {error}", flush=True)
        channel.send(b"idle")


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="prefork_server", description=__doc__)
    parser.add_argument("--port", type=int, default=7000)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--channel", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.channel is None:
        control(options.port, options.workers)
    else:
        serve(socket.socket(fileno=options.channel))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)

"""Sockets as arguments of multiprocessing, under every start method."""

import subprocess
import sys

import pytest

from tests.nodes.handoff.conftest import read_exactly

pytestmark = pytest.mark.live
PROGRAM = """
import multiprocessing, os, sys
from provider import socket

def serve(connection, name):
    connection.sendall(b"%s %d\\n" % (name, os.getpid()))
    while data := connection.recv(65536):
        connection.sendall(data)
    connection.close()

def serve_all(pipe):
    while (connection := pipe.recv()) is not None:
        serve(connection, b"piped")

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    with socket.create_server(("", int(sys.argv[2]))) as listener:
        print("listening", flush=True)
        connection, _ = listener.accept()
        assert connection.recv(5, socket.MSG_WAITALL) == b"hello"
        child = context.Process(target=serve, args=(connection, b"argument"))
        child.start()
        connection.close()
        child.join()
        assert child.exitcode == 0, child.exitcode
        ours, theirs = context.Pipe()
        child = context.Process(target=serve_all, args=(theirs,))
        child.start()
        connection, _ = listener.accept()
        ours.send(connection)
        connection.close()
        ours.send(None)
        child.join()
        assert child.exitcode == 0, child.exitcode
    print("done", os.getpid(), flush=True)
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_connection_as_argument_and_through_a_pipe(lab, puppets, tmp_path, method):
    port = str(7700 + ["fork", "spawn", "forkserver"].index(method))
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, str(tmp_path / "program.py"), method, port]
    with lab.command("server", *command, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout.readline() == "listening\n"
            for how in (b"argument", b"piped"):
                client = puppets("client")
                client.run(f"c = socket.create_connection(('server', {port}), timeout=20)")
                if how == b"argument":
                    client.run("c.sendall(b'hello')")
                client.run("c.sendall(b'sent before the child had it')")
                name, pid = client.run("""
line = b""
while not line.endswith(b"\\n"): line += c.recv(1)
line""").split()
                assert name == how
                assert int(pid) != server.pid
                assert client.run(read_exactly("28")) == b"sent before the child had it"
                client.run("thread = threading.Thread(target=c.sendall, args=(bytes(200_000),)); thread.start()")
                assert client.run(read_exactly("200000")) == bytes(200_000)
                client.run("c.shutdown(socket.SHUT_WR)")
                assert client.run("c.recv(1)") == b""
            assert server.stdout.readline() == f"done {server.pid}\n"
        finally:
            server.kill()


def test_plain_pickle_refuses_as_the_original_does(pair):
    _, source = pair
    assert source.run("""
import pickle
try: pickle.dumps(c); told = ""
except TypeError as error: told = str(error)
told""").startswith("cannot pickle")

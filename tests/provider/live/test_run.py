"""Unmodified programs on the SAN: ``python -m provider.run``."""

import shutil
import subprocess
import sys

import pytest

from nodes.lab.process_engine import environment_on
from tests.support.labs import wait_until

pytestmark = pytest.mark.live
RUN = (sys.executable, "-m", "provider.run")
SECONDS = 30


class Program:
    """A program on a host, which says ``ready`` when it serves; ended with the test."""

    def __init__(self, lab, host, *arguments):
        self.process = lab.command(host, *RUN, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def await_ready(self):
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line == "ready\n", (line, self.process.stderr.read() if not line else "")


def run_on(lab, host, *arguments, command=RUN):
    done = subprocess.run(
        [*command, *arguments],
        env=environment_on(lab.record, host),
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


HTTP_SERVER = """
import http.server, socketserver
class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_): pass
with http.server.ThreadingHTTPServer(("", 8000), Handler) as server:
    print("ready", flush=True)
    server.serve_forever()
"""


def test_http_server_and_urllib(lab, tmp_path, monkeypatch):
    (tmp_path / "page.txt").write_bytes(bytes(range(256)) * 2000)
    monkeypatch.chdir(tmp_path)
    with Program(lab, "server", "-c", HTTP_SERVER) as server:
        server.await_ready()
        code = (
            "import hashlib, http.client, urllib.request\n"
            "data = urllib.request.urlopen('http://server:8000/page.txt', timeout=20).read()\n"
            "c = http.client.HTTPConnection('server', 8000, timeout=20)\n"
            "c.request('GET', '/none'); first = c.getresponse(); first.read()\n"
            "c.request('HEAD', '/page.txt'); second = c.getresponse()\n"
            "print(len(data), hashlib.sha256(data).hexdigest(), first.status, second.status)\n"
        )
        size, digest, first, second = run_on(lab, "client", "-c", code).split()
    import hashlib

    expected = hashlib.sha256((tmp_path / "page.txt").read_bytes()).hexdigest()
    assert (size, digest, first, second) == ("512000", expected, "404", "200")


def test_the_module_of_the_standard_library_serves(lab, tmp_path, monkeypatch):
    """As ``python -m http.server`` is started: its own ``import socket`` is the one that was replaced."""
    (tmp_path / "page.txt").write_text("hello")
    monkeypatch.chdir(tmp_path)
    with Program(lab, "server", "-m", "http.server", "8001", "--directory", str(tmp_path)):
        wait_until(lambda: lab.ask("server", "ps")["sockets"])
        code = "import urllib.request as u; print(u.urlopen('http://server:8001/page.txt', timeout=20).read().decode())"
        assert run_on(lab, "client", "-c", code) == "hello\n"


ASYNCIO_SERVER = """
import asyncio
async def handle(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
async def main():
    server = await asyncio.start_server(handle, "server", 8002)
    print("ready", flush=True)
    await server.serve_forever()
asyncio.run(main())
"""
ASYNCIO_CLIENT = """
import asyncio
async def one(number):
    reader, writer = await asyncio.open_connection("server", 8002)
    sent = bytes([number]) * 300_000
    writer.write(sent)
    writer.write_eof()
    got = await reader.read()
    writer.close()
    await writer.wait_closed()
    return got == sent
async def main():
    print(all(await asyncio.gather(*map(one, range(5)))))
asyncio.run(main())
"""


def test_asyncio_streams(lab):
    with Program(lab, "server", "-c", ASYNCIO_SERVER) as server:
        server.await_ready()
        assert run_on(lab, "client", "-c", ASYNCIO_CLIENT) == "True\n"


TLS_SERVER = """
import ssl, socket, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
listener = socket.create_server(("", 8003))
if sys.argv[3] == "listener":
    listener = context.wrap_socket(listener, server_side=True)
print("ready", flush=True)
connection, peer = listener.accept()
if sys.argv[3] == "connection":
    connection = context.wrap_socket(connection, server_side=True)
assert connection.getpeername() == peer
try:
    connection.share(1)
except OSError as error:
    print(error.winerror, flush=True)
while data := connection.recv(65536):
    connection.sendall(data)
connection.close()
listener.close()
"""
TLS_CLIENT = """
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[1])
with socket.create_connection(("server", 8003), timeout=20) as plain:
    with context.wrap_socket(plain, server_hostname="server") as connection:
        connection.sendall(b"secret" * 10_000)
        got = b""
        while len(got) < 60_000: got += connection.recv(65536)
        print(connection.version(), connection.getpeername()[1], got == b"secret" * 10_000)
"""


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl, which makes the certificate, is not installed")
@pytest.mark.parametrize("wrapped", ["connection", "listener"])
def test_tls(lab, tmp_path, wrapped):
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=server", "-addext", "subjectAltName=DNS:server"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*make, *names, *files], check=True, capture_output=True, timeout=30)
    with Program(lab, "server", "-c", TLS_SERVER, str(certificate), str(key), wrapped) as server:
        server.await_ready()
        assert run_on(lab, "client", "-c", TLS_CLIENT, str(certificate)) == "TLSv1.3 8003 True\n"
        out, errors = server.process.communicate(timeout=SECONDS)
        assert (server.process.returncode, out) == (0, "10022\n"), errors
    wait_until(lambda: not lab.ask("server", "ps")["sockets"] and not lab.ask("client", "ps")["sockets"])


def test_a_descriptor_that_was_detached_ends_when_it_is_closed(lab):
    code = """
import os, socket
listener = socket.create_server(("", 8004))
near = socket.create_connection(("127.0.0.1", 8004), timeout=20)
far, _ = listener.accept()
far.settimeout(20)
fd = near.detach()
os.write(fd, b"raw")
assert far.recv(3) == b"raw"
again = socket.socket(fileno=os.dup(fd))
again.sendall(b"object"); again.close()
assert far.recv(6) == b"object"
os.close(fd)
print(far.recv(1) == b"", socket.socket(fileno=os.open("/dev/null", os.O_RDONLY)) if False else "end")
"""
    assert run_on(lab, "client", "-c", code) == "True end\n"


def test_off_the_san_is_the_operating_systems(lab):
    code = """
import socket, threading
import provider.socket as san
a, b = socket.socketpair(); a.sendall(b"x"); assert b.recv(1) == b"x"
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("127.0.0.1", 0))
v = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); v.sendto(b"dgram", u.getsockname()); assert u.recv(10) == b"dgram"
assert isinstance(u, socket.socket)
six = socket.create_server(("::1", 0), family=socket.AF_INET6)
c = socket.create_connection(six.getsockname()[:2]) if False else socket.socket(socket.AF_INET6)
c.connect(six.getsockname()); d, _ = six.accept(); c.sendall(b"six"); assert d.recv(3) == b"six"
assert isinstance(d, socket.socket)
from provider.client.addresses import is_on_san
assert not is_on_san("192.0.2.1", ["10.77.0.1", "10.77.0.2"]) and is_on_san("10.77.0.9", ["10.77.0.1", "10.77.0.2"])
s = socket.socket(); s.setblocking(False)
number = s.fileno()
print(s.connect_ex(("192.0.2.1", 9)) != 0, s.fileno() == number, s.family.name, type(s).__name__)
"""
    out = run_on(lab, "client", "-c", code)
    assert out == "True True AF_INET SystemSocket\n"


def test_a_program_of_its_own_and_its_arguments(lab, tmp_path):
    program = tmp_path / "program.py"
    program.write_text("import socket, sys, helper; print(sys.argv[1:], socket.gethostname(), helper.NAME)\n")
    (tmp_path / "helper.py").write_text("import socket\nNAME = socket.getfqdn('10.77.0.2')\n")
    assert run_on(lab, "client", str(program), "a", "b") == "['a', 'b'] client server\n"


@pytest.mark.parametrize("arguments", [[], ["-m"], ["-c"]])
def test_usage(arguments):
    done = subprocess.run([*RUN, *arguments], capture_output=True, text=True, check=False, timeout=SECONDS)
    assert (done.returncode, done.stderr.startswith("usage:")) == (2, True)

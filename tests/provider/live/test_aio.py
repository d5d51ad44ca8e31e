"""provider.aio on real hosts: trio's own stream checks, servers, errors, cancellation, hand-over in mid-stream."""

import pytest

from tests.support.puppet import PuppetError

pytestmark = pytest.mark.live
SETUP = """
import trio, trio.testing
from provider import aio
def go(main, *arguments):
    async def within():
        with trio.fail_after(25):
            return await main(*arguments)
    return trio.run(within)
"""


@pytest.fixture
def host(puppets):
    def start(name: str):
        puppet = puppets(name)
        puppet.run(SETUP)
        return puppet

    return start


def test_trios_checks_of_a_half_closeable_stream(host):
    server = host("server")
    server.run("""
async def pair():
    listener = await aio.open_san_listener(0)
    try:
        _, port = await listener.getsockname()
        found = []
        async with trio.open_nursery() as nursery:
            async def accept(): found.append(await listener.accept())
            nursery.start_soon(accept)
            client = await aio.open_san_stream("server", port)
        return client, found[0]
    finally:
        await listener.aclose()
go(trio.testing.check_half_closeable_stream, pair, None)
""")


def test_a_server_and_many_clients(host):
    server, client = host("server"), host("client")
    server.start("""
async def echo(stream):
    async for data in stream:
        await stream.send_all(data)
    await stream.send_eof()
async def main():
    async with trio.open_nursery() as nursery:
        await nursery.start(aio.serve_san, echo, 7701)
        print_ready()
        await trio.sleep_forever()
def print_ready(): open(ready, "w").close()
ready = "/dev/null"
go(main)
""")
    answer = client.run("""
async def one(number, results):
    while True:
        try:
            stream = await aio.open_san_stream("server", 7701)
            break
        except ConnectionRefusedError:
            await trio.sleep(0.01)
    async with stream:
        data = bytes([number]) * 100_000
        async with trio.open_nursery() as nursery:
            async def send():
                await stream.send_all(data)
                await stream.send_eof()
            nursery.start_soon(send)
            got = b"".join([part async for part in stream])
        results.append(got == data)
async def main():
    results = []
    async with trio.open_nursery() as nursery:
        for number in range(12): nursery.start_soon(one, number, results)
    return results
go(main)
""")
    assert answer == [True] * 12
    server.kill()


def test_errors_are_trios_with_ours_as_their_cause(host):
    server = host("server")
    with pytest.raises(PuppetError) as refused:
        server.run("go(aio.open_san_stream, 'client', 7999)")
    assert "ConnectionRefusedError" in refused.value.kinds
    with pytest.raises(PuppetError) as size:
        server.run("go(aio.from_share, b'x')")
    assert size.value.kinds[0] == "ValueError"
    assert server.run("""
async def main():
    listener = await aio.open_san_listener(7702)
    try:
        await aio.open_san_listener(7702)
    except OSError as error:
        told = error.winerror
    with trio.move_on_after(0.02) as scope:
        await listener.accept()
    await listener.aclose()
    try:
        await listener.accept()
    except trio.ClosedResourceError:
        return told, scope.cancelled_caught
go(main)
""") == [10048, True]


def test_cancelling_an_operation_loses_no_byte(host):
    server, client = host("server"), host("client")
    client.run("l = socket.create_server(('', 7703))")
    server.start("""
async def main():
    stream = await aio.open_san_stream("client", 7703)
    cancelled = 0
    got = b""
    async with stream:
        while len(got) < 50_000:
            with trio.move_on_after(0.001) as scope:
                got += await stream.receive_some(777)
            cancelled += scope.cancelled_caught
    return got == bytes(range(250)) * 200, cancelled > 0
go(main)
""")
    client.run("""
c, _ = l.accept()
for n in range(200):
    c.sendall(bytes(range(250)))
    if n % 20 == 0: time.sleep(0.005)
""")
    assert server.result() == [True, True]


def test_a_stream_is_handed_over_in_the_middle(host):
    client, source, target = host("client"), host("server"), host("server")
    client.run("l = socket.create_server(('', 7704))")
    source.start(f"""
async def main():
    stream = await aio.open_san_stream("client", 7704)
    got = b""
    while len(got) < 1000: got += await stream.receive_some(1000 - len(got))
    info = await stream.share({target.pid})
    try:
        await stream.receive_some()
    except trio.BrokenResourceError as error:
        told = error.__cause__.winerror
    await stream.aclose()
    return got == b"x" * 1000, told, info.hex()
go(main)
""")
    client.run("c, _ = l.accept(); c.settimeout(20); c.sendall(b'x' * 1000 + b'y' * 2000); c.shutdown(socket.SHUT_WR)")
    first, told, info = source.result()
    assert (first, told) == (True, 10022)
    assert target.run(f"""
async def main():
    async with await aio.from_share(bytes.fromhex({info!r})) as stream:
        got = b"".join([part async for part in stream])
        await stream.send_all(b"thanks")
        await stream.send_eof()
        return got == b"y" * 2000, await stream.getpeername()
go(main)
""") == [True, ["10.77.0.1", 7704]]
    assert client.run("c.recv(10)") == b"thanks"

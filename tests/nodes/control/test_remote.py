"""A node's remote control: commands, their input and output, freezing and killing, and who is not let in."""

import functools
import os
import signal
import subprocess
from contextlib import asynccontextmanager

import pytest
import trio

from fabric.live.curve import Credentials, new_keys
from fabric.live.message_channel import MessageClient, MessageServer
from nodes.control import remote_messages
from nodes.control.container_processes import ContainerProcesses
from nodes.control.reach import NodeDoesNotAnswer, Reach, states
from nodes.control.remote_messages import Kind, MalformedMessage, decode, encode, encode_credit, encode_json
from nodes.control.remote_server import RemoteServer
from nodes.lab.leftovers import start_time

DEADLINE = 20
NODE, CONTROLLER, STRANGER = new_keys(), new_keys(), new_keys()


def in_trio(function):
    @functools.wraps(function)
    def run_it(*arguments, **named):
        return trio.run(functools.partial(function, *arguments, **named))

    return run_it


class Collected(trio.abc.SendStream):
    """Keeps what is sent."""

    def __init__(self):
        self.data = bytearray()

    async def send_all(self, data):
        await trio.lowlevel.checkpoint()
        self.data += data

    async def wait_send_all_might_not_block(self):
        await trio.lowlevel.checkpoint()

    async def aclose(self):
        await trio.lowlevel.checkpoint()


class Given(trio.abc.ReceiveStream):
    """Gives what it was made with, then its end."""

    def __init__(self, data=b""):
        self.data = data

    async def receive_some(self, max_bytes=None):
        await trio.lowlevel.checkpoint()
        part, self.data = self.data[:max_bytes], self.data[max_bytes:]
        return part

    async def aclose(self):
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def served(proc=None):
    channel = MessageServer("tcp://127.0.0.1:*", Credentials(NODE, {"control": CONTROLLER.public}))
    server = RemoteServer(channel, ContainerProcesses(frozenset(), proc), lambda: True)
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve)
            try:
                yield channel, server
            finally:
                nursery.cancel_scope.cancel()
    channel.close()


def reach(channel, keys=CONTROLLER):
    return Reach("s1", channel.address, Credentials(keys, {"s1": NODE.public}))


async def run(channel, *arguments, source=b"", terminal=None):
    out, errors = Collected(), Collected()
    with reach(channel) as one:
        status = await one.run(list(arguments), terminal, Given(source), {Kind.OUTPUT: out, Kind.ERRORS: errors})
    return status, bytes(out.data), bytes(errors.data)


@pytest.fixture
def no_processes(tmp_path):
    return tmp_path


@in_trio
async def test_a_command_its_input_output_errors_and_status(no_processes):
    async with served(no_processes) as (channel, _):
        script = "cat; echo oops >&2; exit 7"
        assert await run(channel, "sh", "-c", script, source=b"abc") == (7, b"abc", b"oops\n")
        assert await run(channel, "sh", "-c", "kill -9 $$") == (128 + 9, b"", b"")
        status, _, errors = await run(channel, "/no/such/program")
        assert (status, errors) == (127, b"/no/such/program: No such file or directory\n")
        assert (await run(channel, "/"))[0] == 126


@in_trio
async def test_more_than_the_credit_goes_both_ways_whole(no_processes):
    data = os.urandom(3 * remote_messages.CREDIT_BYTES + 17)
    async with served(no_processes) as (channel, server):
        assert await run(channel, "cat", source=data) == (0, data, b"")
        status, out, errors = await run(
            channel, "sh", "-c", "head -c 2000000 /dev/zero & head -c 2000000 /dev/zero >&2; wait"
        )
        assert (status, len(out), len(errors), server.malformed) == (0, 2_000_000, 2_000_000, 0)


@in_trio
async def test_a_command_on_a_terminal(no_processes):
    async with served(no_processes) as (channel, _):
        status, out, _ = await run(channel, "sh", "-c", "test -t 0 && test -t 1 && stty size", terminal=(31, 77))
        assert (status, out) == (0, b"31 77\r\n")
        status, out, _ = await run(channel, "cat", source=b"typed\n", terminal=(31, 77))
        assert (status, out.count(b"typed")) == (0, 2)  # once echoed, once by cat, which the end of input ended


@in_trio
async def test_a_terminal_follows_its_client(no_processes):
    async with served(no_processes) as (channel, _):
        client = MessageClient(channel.address, Credentials(CONTROLLER, {"s1": NODE.public}), "s1")
        script = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.01; done"
        client.send(encode_json(Kind.RUN, {"arguments": ["sh", "-c", script], "terminal": [24, 80]}))
        out = b""
        while b"ready" not in out:
            out += (await client.receive())[1:]
        client.send(encode_json(Kind.RESIZE, {"terminal": [50, 132]}))
        while b"50 132\r\n" not in out:
            out += (await client.receive())[1:]
        client.close()


@in_trio
async def test_the_command_ends_when_its_client_has_gone(no_processes):
    async with served(no_processes) as (channel, _):
        out = Collected()
        with reach(channel) as one, trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def leave_once_it_runs():
                    while not out.data:
                        await trio.lowlevel.checkpoint()
                    scope.cancel()

                nursery.start_soon(leave_once_it_runs)
                arguments = ["sh", "-c", "echo $$; exec sleep 1000"]
                await one.run(arguments, None, Given(), {Kind.OUTPUT: out, Kind.ERRORS: Collected()})
        pid = int(out.data)
        while start_time(pid) is not None:  # noqa: ASYNC110  # another process ends; nothing tells us
            await trio.sleep(0.01)


@in_trio
async def test_an_unknown_key_is_not_let_in(no_processes):
    async with served(no_processes) as (channel, _):
        with reach(channel, STRANGER) as one, pytest.raises(NodeDoesNotAnswer, match="node s1 does not answer"):
            await one.ask("state", 0.5)
        assert channel.handshakes_refused >= 1
        found = await states(["s1", "s2"], lambda node: reach(channel, CONTROLLER if node == "s1" else STRANGER))
        assert found == {"s1": {"paused": False, "ready": True}, "s2": None}


@in_trio
async def test_pause_resume_and_kill_reach_the_processes_that_are_listed(tmp_path):
    processes = sleepers()
    try:
        for process in processes:
            (tmp_path / str(process.pid)).symlink_to(f"/proc/{process.pid}")
        (tmp_path / "self").symlink_to("/proc/self")
        async with served(tmp_path) as (channel, _):
            with reach(channel) as one:
                assert await one.ask("pause") == {"paused": True, "ready": True}
                assert {state_of(process) for process in processes} == {"T"}
            with pytest.raises(NodeDoesNotAnswer, match="the node is paused"):
                await run(channel, "true")
            with reach(channel) as one:
                assert await one.ask("resume") == {"paused": False, "ready": True}
                assert "T" not in {state_of(process) for process in processes}
                await one.ask("kill")
        assert [process.wait(DEADLINE) for process in processes] == [-signal.SIGKILL] * 3
    finally:
        for process in processes:
            process.kill()
            process.wait()


def sleepers():
    return [subprocess.Popen(["sleep", "1000"]) for _ in range(3)]


def state_of(process):
    with open(f"/proc/{process.pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (b"", "no message"),
        (b"\xff", "no message"),
        (encode(Kind.RUN, b"{"), "not JSON"),
        (encode(Kind.RUN, b"[]"), "not a JSON object"),
        (encode(Kind.RUN, b"[" * 100_000), "not JSON"),
        (encode_json(Kind.RUN, {"arguments": []}), "expected a list of texts"),
        (encode_json(Kind.RUN, {"arguments": ["a\0b"]}), "NUL"),
        (encode_json(Kind.RUN, {"arguments": ["true"], "terminal": [0, 80]}), "rows and columns"),
        (encode_json(Kind.RUN, {"arguments": ["true"], "terminal": [24]}), "rows and columns"),
        (encode(Kind.RUN, b" " * (remote_messages.ARGUMENTS_MAX + 1)), "at most"),
        (encode_json(Kind.ASK, {"op": "reboot"}), "unknown operation 'reboot'; there are state, pause"),
    ],
)
@in_trio
async def test_nonsense_is_refused_and_the_server_goes_on(no_processes, message, told):
    async with served(no_processes) as (channel, server):
        client = MessageClient(channel.address, Credentials(CONTROLLER, {"s1": NODE.public}), "s1")
        client.send(message)
        kind, payload = decode(await client.receive())
        assert (kind, server.malformed) == (Kind.REFUSED, 1)
        assert told in payload.decode()
        client.close()
        assert (await run(channel, "true"))[0] == 0


@in_trio
async def test_a_client_that_breaks_the_credit_loses_its_command(no_processes):
    async with served(no_processes) as (channel, server):
        for nonsense in (encode_credit(1), encode_json(Kind.ASK, {"op": "state"}), encode(Kind.CREDIT, b"1")):
            client = MessageClient(channel.address, Credentials(CONTROLLER, {"s1": NODE.public}), "s1")
            client.send(encode_json(Kind.RUN, {"arguments": ["sleep", "1000"]}))
            client.send(nonsense)
            while decode(message := await client.receive())[0] is not Kind.REFUSED:
                pass
            assert message
            client.close()
        assert server.malformed == 3


def test_kinds_and_credits():
    with pytest.raises(MalformedMessage):
        decode(bytes((len(Kind) + 1,)))
    credit = remote_messages.Credit()
    credit.take(remote_messages.CREDIT_BYTES)
    assert credit.left == 0
    credit.give(5)
    assert credit.left == 5
    with pytest.raises(MalformedMessage):
        credit.give(remote_messages.CREDIT_BYTES)

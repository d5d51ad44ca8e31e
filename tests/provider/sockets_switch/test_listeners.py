"""Listeners of the agent half in virtual time: what becomes of connections that nobody accepted."""

from fabric.units import SECOND
from tests.support.handoff_run import SENDER, SOURCE, build


def test_a_connection_that_ended_unaccepted_goes_with_its_listener():
    run = build(1, 0.0)
    world, client, server = run.world, run.client.half, run.server.half
    client.attach(SENDER, "", 0)
    server.attach(SOURCE, "", 0)
    listener = server.socket(SOURCE, 2, 1, 0, 0)
    server.bind(SOURCE, listener.s, ("0.0.0.0", 7000), 0)
    world.command("server", lambda now: server.listen(SOURCE, listener.s, 5, now))
    caller = client.socket(SENDER, 2, 1, 0, 0)
    world.command("client", lambda now: client.connect(SENDER, caller.s, ("10.77.0.2", 7000), now))
    world.run_until(world.now + SECOND)
    assert len(listener.socket.queue) == 1
    world.command("client", lambda now: client.detach(SENDER, now))
    world.run_until(world.now + SECOND)
    (waiting,) = listener.socket.queue
    assert waiting.ended
    world.command("server", lambda now: server.close(SOURCE, listener.s, now))
    assert run.server.statistics().sockets == 0
    world.run_until(world.now + 100 * SECOND)
    assert run.server.poll_timeout() is None

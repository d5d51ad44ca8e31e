"""What the statements about moving control lazily say, for descriptors that a child has inherited over fork."""

import pytest

from fabric.ids import ProcessInstance
from fabric.units import SECOND
from provider.errors import WsaErrno, WsaError
from provider.sockets_switch import events
from tests.support.handoff_run import SENDER, SOURCE, build

CHILD, SECOND_CHILD = ProcessInstance(30, 1), ProcessInstance(31, 1)


class Family:
    """A connection of SOURCE's, inherited by its children; ``calls`` are the calls of the provider, by name."""

    def __init__(self):
        self.run = build(1, 0.0)
        self.world, self.half = self.run.world, self.run.server.half
        client = self.run.client.half
        client.attach(SENDER, "", 0)
        for process in (SOURCE, CHILD, SECOND_CHILD):
            self.half.attach(process, "", 0)
        listener = client.socket(SENDER, 2, 1, 0, 0)
        client.bind(SENDER, listener.s, ("0.0.0.0", 7000), 0)
        client.listen(SENDER, listener.s, 5, 0)
        self.parent = self.half.socket(SOURCE, 2, 1, 0, 0)
        self.do(self.half.connect, SOURCE, self.parent.s, ("10.77.0.1", 7000))
        self.run.wait(events.ChannelOpened)
        self.world.run_until(self.world.now + SECOND)

    def do(self, function, *arguments):
        return self.world.command("server", lambda now: function(*arguments, now))

    def inherit(self, child):
        return self.do(self.half.relatives.inherit, SOURCE, self.parent.s, child)

    def owner(self):
        return self.half.core.controlling(self.parent.socket)

    def calls(self):
        return [line for line in self.run.lines if '"spi.' in line]


@pytest.fixture
def family():
    return Family()


def test_092_inheriting_calls_no_provider(family):
    before = family.calls()
    assert before
    family.inherit(CHILD)
    family.inherit(SECOND_CHILD)
    family.world.run_until(family.world.now + SECOND)
    assert family.calls() == before
    assert family.owner() is family.parent


def test_093_control_moves_at_the_first_use_of_a_relative(family):
    child = family.inherit(CHILD)
    family.do(family.half.get_option, CHILD, child.s, 0xFFFF, 0x1007)  # that is no use
    assert family.owner() is family.parent
    family.do(family.half.relatives.take, child)  # what the library asks for when the child reads or writes
    assert family.owner() is child
    assert any('"spi.WSPDuplicateSocket"' in line for line in family.calls())


def test_095_the_old_controller_asks_like_any_other(family):
    child, second = family.inherit(CHILD), family.inherit(SECOND_CHILD)
    family.do(family.half.relatives.take, child)
    with pytest.raises(WsaError) as refused:
        family.do(family.half.shutdown_send, SOURCE, family.parent.s)
    assert refused.value.wsa is WsaErrno.WSAEINVAL
    for asks in (family.parent, second, child, family.parent):
        family.do(family.half.relatives.take, asks)
        assert family.owner() is asks

"""A process of a host throws garbage at its agent and floods it: it gets errors and quotas, and nobody else notices."""

import pytest

from tests.support.labs import wait_until

pytestmark = pytest.mark.live


def test_garbage_of_every_length_and_type(hostile, honest, agent):
    puppet = hostile()
    puppet.run("throw(None, iter([b'x']))")  # from now on its end is waited for
    files = agent.held()["files"]
    puppet.start("throw(None, garbage(1))")
    honest.goes_on()
    assert puppet.result(120) > 300
    wait_until(lambda: agent.held()["files"] == files)  # none of the descriptors beside the packets is kept


def test_every_member_of_every_operation_missing_or_wrong(hostile, honest):
    """Each is answered, with a result or one of Winsock's numbers, or hung up on; never with silence or the end."""
    puppet = hostile()
    puppet.start("""
sock, answers, hung_up = attached(), [], 0
s, fd = new_socket(sock)
for request in wrong_requests():
    request = {name: s if (name, repr(value)) == ("s", "1") else value for name, value in request.items()}
    sock.send(encoded(request))
    reply, descriptors = answer(sock)
    for descriptor in descriptors: os.close(descriptor)
    if reply is None:
        hung_up += 1
        sock = attached()
    else:
        answers.append(wsa(reply))
        if "s" in reply.get("result", {}) or request["op"] == "WSPCloseSocket" and not answers[-1]:
            ask(sock, "WSPCloseSocket", s=reply["result"].get("s", 0))
            if ask(sock, "status", s=s) is None or wsa(ask(sock, "status", s=s)): s, fd = new_socket(sock)
[len(answers), hung_up, sorted(set(answers))]
""")
    honest.goes_on()
    answers, hung_up, numbers = puppet.result(120)
    assert answers > 1000
    assert hung_up > 30  # what is no request at all
    assert all(number == 0 or 10_000 < number < 11_100 for number in numbers), numbers


def test_thousands_of_connections(hostile, honest, agent):
    limits = agent.statistics()["limits"]
    puppet = hostile()
    puppet.start("""
held, refused = [], 0
for _ in range(3000):
    sock = connect()
    sock.send(encoded({"op": "attach", "version": 1}))
    reply, _ = answer(sock)
    if reply is None or "error" in reply:
        refused += 1
        sock.close()
    else:
        held.append(sock)
[len(held), refused]
""")
    honest.goes_on()
    assert puppet.result(120) == [limits["connections_per_process"], 3000 - limits["connections_per_process"]]
    assert agent.statistics()["connections"] <= limits["connections_per_process"] + 4
    assert honest.makes_a_socket() == "ok"


def test_many_processes_take_all_connections_and_a_newcomer_is_let_in(hostile, honest, agent):
    limits = agent.statistics()["limits"]
    each = limits["connections_per_process"]
    crowd = [hostile() for _ in range(limits["connections"] // each + 1)]
    for puppet in crowd:
        puppet.start(f"held = [connect() for _ in range({each})]; len(held)")
    for puppet in crowd:
        assert puppet.result(60) == each
    honest.goes_on()
    newcomer = hostile()
    assert (
        newcomer.run("held = [connect() for _ in range(20)]; [wsa(ask(s, 'attach', version=1)) for s in held]")
        == [0] * 20
    )
    assert newcomer.run("[wsa(ask(s, 'attach', version=1)) for s in held]") == [0] * 20
    honest.goes_on()
    assert agent.statistics()["connections"] <= limits["connections"]


def test_requests_whose_answers_nobody_reads(hostile, honest, agent):
    """The agent neither blocks nor grows: what it cannot send stops the sender alone, and no descriptor piles up."""
    puppet = hostile()
    memory = agent.memory()
    puppet.start("""
flooders = [attached() for _ in range(50)]
sent = 0
for sock in flooders:
    sock.setblocking(False)
    try:
        while True:
            sock.send(encoded({"op": "WSPSocket", "af": 2, "type": 1} if sent % 2 else {"op": "status", "s": 1}))
            sent += 1
    except BlockingIOError:
        pass
sent
""")
    honest.goes_on()
    assert puppet.result(60) > 1000
    honest.goes_on()
    assert agent.statistics()["channels"] <= 50 + 2  # one unread answer with a descriptor per connection
    assert agent.memory() < memory + (64 << 20)


def test_a_flood_of_requests_from_all_connections_a_process_may_have(hostile, honest, agent):
    puppet = hostile()
    puppet.run("""
stop, done = False, 0
def flood(op, **members):
    global done
    sock = attached()
    while not stop:
        assert ask(sock, op, **members) is not None
        done += 1
threads = [threading.Thread(target=flood, args=("WSPSocket",), kwargs={"info": "AAAA"}) for _ in range(20)]
threads += [threading.Thread(target=flood, args=("mark",), kwargs={"scenario": "san", "step": 1, "moment": "before"})]
threads += [threading.Thread(target=flood, args=("status",), kwargs={"s": 1}) for _ in range(100)]
for thread in threads: thread.start()
""")
    memory = agent.memory()
    honest.goes_on(100)
    assert puppet.run("stop = True\nfor thread in threads: thread.join()\ndone", 60) > 100
    assert agent.memory() < memory + (32 << 20)


@pytest.mark.parametrize("moment", ["idle", "flooding"])
def test_a_process_that_is_stopped_in_the_middle(hostile, honest, agent, moment):
    puppet = hostile()
    puppet.run("held = [attached() for _ in range(100)]; mine = [new_socket(sock) for sock in held]; len(mine)")
    if moment == "flooding":
        puppet.start("while True:\n    for sock in held: ask(sock, 'status', s=1)")
    puppet.stop()
    honest.goes_on()
    puppet.kill()
    wait_until(lambda: agent.statistics()["connections"] < 10)

"""Deadlines of many connections."""

import random

from fabric.cm.timers import Deadlines
from fabric.ids import CommId


def test_latest_setting_counts_and_ties_keep_their_order():
    deadlines = Deadlines()
    deadlines.set(CommId(1), 10)
    deadlines.set(CommId(2), 20)
    deadlines.set(CommId(3), 20)
    deadlines.set(CommId(1), 20)
    assert deadlines.first() == 20
    assert deadlines.pop_due(19) is None
    assert [deadlines.pop_due(20) for _ in range(4)] == [2, 3, 1, None]
    assert deadlines.first() is None


def test_agrees_with_a_plain_dict_and_stays_small():
    rng, deadlines, model = random.Random(5), Deadlines(), {}
    for _ in range(5_000):
        comm_id = CommId(rng.randrange(20))
        if rng.random() < 0.8:
            model[comm_id] = rng.randrange(1000)
            deadlines.set(comm_id, model[comm_id])
        else:
            model.pop(comm_id, None)
            deadlines.clear(comm_id)
        assert deadlines.first() == min(model.values(), default=None)
        assert len(deadlines._heap) <= 2 * 20 + 65

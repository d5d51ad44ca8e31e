"""Random histories of several processes and sockets: the registry against a small model written from design.md 3."""

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fabric.ids import ProcessInstance
from provider.errors import WsaErrno, WsaError
from provider.handoff.registry import ControlMoved, Holder, LastReferenceClosed, SocketAborted, TransferId
from tests.support.handoff import LIFETIME, Bench

SLOTS = st.integers(0, 3)
SOCKETS = st.sampled_from((1, 1, 2))


def refusal() -> "pytest.RaisesExc[WsaError]":
    """WSAEINVAL is the one refusal of these histories."""
    return pytest.raises(WsaError, check=lambda error: error.wsa is WsaErrno.WSAEINVAL)


@dataclass(slots=True)
class Model:
    """What a socket should be."""

    holders: list[Holder]
    owner: Holder | None
    epoch: int = 0
    source: Holder | None = None
    target: ProcessInstance | None = None
    transfer: TransferId | None = None
    info: bytes | None = None
    expires: int = 0
    dead: bool = False
    came_from: Holder | None = None
    fresh: bool = False
    spent: list[tuple[bytes, ProcessInstance]] = field(default_factory=list)

    def fail(self) -> None:
        """RETURN or ABORT."""
        if self.info is not None and self.target is not None:
            self.spent.append((self.info, self.target))
        kept = self.source in self.holders
        self.owner, self.dead = (self.source if kept else None), not kept
        self.source = self.target = self.transfer = self.info = None

    def drop(self, holder: Holder) -> None:
        """A descriptor ends."""
        self.holders.remove(holder)
        if self.came_from == holder:
            self.came_from = None
        if self.transfer is not None:
            if self.info is None and self.source == holder:
                self.fail()
        elif self.owner == holder:
            self.owner = self.came_from or (self.holders[-1] if self.holders else None)
            self.epoch += self.owner is not None
            self.came_from, self.fresh = None, False


class RegistryMachine(RuleBasedStateMachine):
    """Rules pick a process slot and a socket; a crash gives the slot's pid to a new instance."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench()
        self.processes = [ProcessInstance(100 + slot, 1) for slot in range(4)]
        self.models: dict[int, Model] = {}
        self.commits = self.last = self.aborts = 0
        self.seen_commits = self.seen_last = self.seen_aborts = 0

    def settle(self) -> None:
        """Sockets without a reference are gone."""
        for number in list(self.models):
            model = self.models[number]
            if not model.holders and model.transfer is None:
                del self.models[number]
                self.last += 1

    def model(self, number: int) -> Model | None:
        return self.models.get(number)

    @initialize()
    def first(self) -> None:
        """Every history has a socket from the start."""
        self.open(0, 1)

    @rule(slot=SLOTS, number=SOCKETS)
    def open(self, slot: int, number: int) -> None:
        if number not in self.models:
            holder = self.bench.opened(self.processes[slot], number)
            self.models[number] = Model([holder], holder)

    @precondition(lambda self: self.models)
    @rule(number=SOCKETS, slot=SLOTS, pick=st.integers(0, 5))
    def begin(self, number: int, slot: int, pick: int) -> None:
        model = self.model(number)
        if model is None or not model.holders:
            return
        source = model.holders[pick % len(model.holders)] if pick else model.owner or model.holders[0]
        allowed = model.transfer is None and model.owner == source
        target = self.processes[slot]
        if not allowed:
            with refusal():
                self.bench.begin(source, target, number)
            return
        transfer = self.bench.begin(source, target, number)
        model.transfer, model.source, model.target, model.owner = transfer, source, target, None

    @rule(number=SOCKETS)
    def ticket(self, number: int) -> None:
        model = self.model(number)
        if model is not None and model.transfer is not None and model.info is None:
            model.info = self.bench.record(model.transfer)
            model.expires = self.bench.now + LIFETIME

    @rule(number=SOCKETS, slot=st.integers(-1, 3))
    def redeem(self, number: int, slot: int) -> None:
        model = self.model(number)
        if model is None or model.info is None or model.target is None:
            return
        process, info = (model.target if slot < 0 else self.processes[slot]), model.info
        allowed = process == model.target and self.bench.now < model.expires
        if not allowed:
            with refusal():
                self.bench.redeem(info, process)
            return
        holder = self.bench.redeem(info, process)
        model.spent.append((info, process))
        model.holders.append(holder)
        model.came_from = model.source if model.source in model.holders else None
        model.owner, model.fresh = holder, True
        model.epoch += 1
        model.source = model.target = model.transfer = model.info = None
        self.commits += 1

    @rule(number=SOCKETS, slot=SLOTS)
    def hand_over(self, number: int, slot: int) -> None:
        """A whole hand-over, so that histories get deep."""
        model = self.model(number)
        if model is not None and model.owner is not None:
            self.begin(number, slot, 0)
            self.ticket(number)
            self.redeem(number, -1)

    @rule(number=SOCKETS)
    def replay(self, number: int) -> None:
        model = self.model(number)
        for info, process in model.spent if model is not None else []:
            with refusal():
                self.bench.check(info, process)

    @rule(number=SOCKETS)
    def cancel(self, number: int) -> None:
        model = self.model(number)
        if model is not None and model.transfer is not None:
            self.bench.registry.cancel(model.transfer, self.bench.now)
            model.fail()
            self.aborts += model.dead
            self.settle()

    @rule(number=SOCKETS)
    def use(self, number: int) -> None:
        model = self.model(number)
        if model is not None and model.owner is not None:
            self.bench.registry.used(number)
            model.fresh = False

    @rule(number=SOCKETS, pick=st.integers(0, 5))
    def close(self, number: int, pick: int) -> None:
        model = self.model(number)
        if model is None or not model.holders:
            return
        holder = model.holders[pick % len(model.holders)]
        self.bench.registry.close(holder, self.bench.now)
        dead = model.dead
        model.drop(holder)
        self.aborts += model.dead and not dead
        self.settle()

    @rule(slot=SLOTS)
    def crash(self, slot: int) -> None:
        process, registry, now = self.processes[slot], self.bench.registry, self.bench.now
        for model in list(self.models.values()):
            for holder in [h for h in model.holders if h.process == process]:
                back = registry.owner_died(holder, now)
                controlled = model.transfer is None and model.owner == holder
                source = model.came_from
                expected = controlled and model.fresh and source is not None and source.process != process
                assert back is expected
                if expected:
                    model.owner, model.came_from, model.fresh = source, None, False
                    model.epoch += 1
                elif controlled:
                    model.owner, model.dead = None, True
                    self.aborts += len(model.holders) > 1
                registry.close(holder, now)
                dead = model.dead
                model.drop(holder)
                self.aborts += model.dead and not dead
            if model.transfer is not None and model.target == process:
                dead = model.dead
                model.fail()
                self.aborts += model.dead and not dead
        registry.process_exited(process, now)
        self.settle()
        self.processes[slot] = ProcessInstance(process.pid, process.start_time + 1)

    @rule(share=st.integers(1, 12))
    def pass_time(self, share: int) -> None:
        self.bench.now += LIFETIME * share // 10
        wanted = self.bench.registry.poll_timeout()
        assert wanted == min((m.expires for m in self.models.values() if m.info is not None), default=None)

    @rule()
    def fire_timer(self) -> None:
        self.bench.registry.handle_timeout(self.bench.now)
        for model in self.models.values():
            if model.info is not None and self.bench.now >= model.expires:
                model.fail()
                self.aborts += model.dead
        self.settle()

    @invariant()
    def agrees(self) -> None:
        registry = self.bench.registry
        for event in self.bench.events():
            self.seen_commits += isinstance(event, ControlMoved)
            self.seen_last += isinstance(event, LastReferenceClosed)
            self.seen_aborts += isinstance(event, SocketAborted)
        assert (self.seen_commits, self.seen_last, self.seen_aborts) == (self.commits, self.last, self.aborts)
        counts = registry.statistics()
        assert counts.sockets == len(self.models)
        assert counts.descriptors == sum(len(m.holders) for m in self.models.values())
        assert counts.tickets == sum(m.transfer is not None for m in self.models.values())
        assert counts.resuming == 0
        for number, model in self.models.items():
            users = [holder for holder in model.holders if registry.may_use(number, holder)]
            assert len(users) <= 1, "two controllers"
            assert users == ([] if model.owner is None else [model.owner])
            assert bool(users) == (model.transfer is None and not model.dead), "nobody, or somebody in transfer"
            assert registry.controlling(number) == model.owner
            assert registry.epoch(number) == model.epoch

    def teardown(self) -> None:
        for model in list(self.models.values()):
            for holder in list(model.holders):
                self.bench.registry.close(holder, self.bench.now)
        self.bench.registry.handle_timeout(self.bench.now + 2 * LIFETIME)
        for transfer in [m.transfer for m in self.models.values() if m.transfer is not None]:
            self.bench.registry.cancel(transfer, self.bench.now)
        assert self.bench.is_at_baseline()


RegistryMachine.TestCase.settings = settings(
    max_examples=250, stateful_step_count=60, deadline=None, derandomize=True, database=None
)
TestRegistry = RegistryMachine.TestCase

"""What a queue pair reports. What comes once per packet is a NamedTuple: it takes a third of the time to make."""

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from fabric.rc.work import CompletionStatus, WorkCompletion


class Completion(NamedTuple):
    """A work request has ended."""

    completion: WorkCompletion


@dataclass(frozen=True, slots=True)
class CommunicationEstablished:
    """The first request arrived before the connection manager said so (rule 27)."""


@dataclass(frozen=True, slots=True)
class FatalError:
    """The queue pair went to ERR by itself."""

    status: CompletionStatus


QpEvent: TypeAlias = Completion | CommunicationEstablished | FatalError

"""What a queue pair reports."""

from dataclasses import dataclass
from typing import TypeAlias

from fabric.rc.work import CompletionStatus, WorkCompletion


@dataclass(frozen=True, slots=True)
class Completion:
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

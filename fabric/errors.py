"""The caller's mistakes. What a peer or the network does is an event, a NAK or a status, never one of these;
a bug of our own is an assertion."""


class SanloomError(Exception):
    """Root of every exception that Sanloom raises on purpose."""


class UsageError(SanloomError):
    """Bad option or bad input file; the text names file, line and key. The command line ends with status 2."""


class EnvironmentLacks(SanloomError):
    """This machine lacks something; the text says what and how to get it. The command line ends with status 3."""


class IllegalTransition(SanloomError):
    """A command that the state machine does not allow now.

    >>> str(IllegalTransition("queue pair", "RESET", "post_send", "requester"))
    'queue pair (requester): post_send is not allowed in state RESET'
    """

    def __init__(self, machine: str, state: str, event: str, role: str) -> None:
        super().__init__(f"{machine} ({role}): {event} is not allowed in state {state}")
        self.machine, self.state, self.event, self.role = machine, state, event, role

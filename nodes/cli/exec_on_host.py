"""``sanloom exec HOST -- COMMAND``: run a command on a host of a running lab."""

import os

import click

from fabric.errors import UsageError
from nodes.cli.options_and_tables import lab_option
from nodes.lab import records
from nodes.lab.engines import exec_command


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@lab_option
@click.argument("host")
@click.argument("arguments", metavar="-- COMMAND...", nargs=-1, type=click.UNPROCESSED, required=True)
def command(lab_name: str | None, host: str, arguments: tuple[str, ...]) -> int:
    """Run COMMAND with the host's agent in its environment (SANLOOM_AGENT); its exit status is ours.

    A Python program needs only ``from provider import socket`` instead of ``import socket``.
    """
    if arguments[0] == "--":
        arguments = arguments[1:]
    if not arguments:
        raise UsageError("exec: which command? For example: sanloom exec client -- python app.py")
    command_line, environment = exec_command(records.find(lab_name), host, arguments)
    try:
        os.execvpe(command_line[0], command_line, environment)
    except OSError as error:
        raise UsageError(f"exec: {command_line[0]}: {error.strerror}") from None

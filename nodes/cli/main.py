"""The ``sanloom`` command: finds the subcommand, imports only that, and turns our exceptions into exit statuses."""

import difflib
import errno
import importlib
import sys

import click

from fabric.errors import EnvironmentLacks, SanloomError, UsageError

COMMANDS = {
    "demo": ("nodes.cli.demo", "Move a file, hand the live connection over and back, show what happened."),
    "validate": ("nodes.cli.validate", "Check topology files."),
    "schema": ("nodes.cli.schema", "Print the JSON Schema of topology files."),
    "render": ("nodes.cli.render", "Translate a topology into a compose file."),
    "up": ("nodes.cli.up", "Start a lab."),
    "down": ("nodes.cli.down", "End a lab."),
    "ps": ("nodes.cli.ps", "Show nodes, processes and connections."),
    "logs": ("nodes.cli.logs", "Print the logs or journals of a lab's nodes."),
    "exec": ("nodes.cli.exec_on_host", "Run a command on a host."),
    "capture": ("nodes.cli.capture", "Capture frames of a running lab, live."),
    "fault": ("nodes.cli.fault", "Change the links of a running lab."),
    "partition": ("nodes.cli.partition", "Cut the links between two groups of nodes."),
    "heal": ("nodes.cli.heal", "End every partition."),
    "pause": ("nodes.cli.pause", "Freeze a node."),
    "resume": ("nodes.cli.resume", "Let a frozen node go on."),
    "kill": ("nodes.cli.kill", "Kill a node."),
    "bench": ("nodes.cli.bench", "Measure ratios against baselines of the same run."),
    "doctor": ("nodes.cli.doctor", "Say what this machine can do."),
}
"""Command -> module with a click command named ``command``, and its line in the help."""


REMEDIES = {
    errno.ENOSPC: "free some space, or choose another folder for the results with --out",
    errno.EDQUOT: "free some space, or choose another folder for the results with --out",
    errno.EROFS: "choose a folder that can be written, with --out",
    errno.EACCES: "choose a folder of yours, with --out",
    errno.EMFILE: "allow more open files: ulimit -n 4096",
    errno.ENFILE: "this machine has too many open files; end some programs",
    errno.ENOMEM: "this machine has too little memory; end some programs",
}
"""What this machine may lack at any moment -> what to do."""


class LazyGroup(click.Group):
    """Imports a subcommand when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The subcommand, or ``None``."""
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table's lines, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """With a suggestion for a mistyped name."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], COMMANDS, 1)
            raise click.UsageError(
                f"no command {args[0]!r}" + (f"; did you mean {close[0]!r}?" if close else "; see sanloom --help")
            )
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sanloom", prog_name="sanloom")
def cli() -> None:
    """A distributed network emulator with a virtual SAN fabric."""


def main() -> int:
    """Exit status 0 fine, 1 the verdict is a failure, 2 bad usage, 3 the environment lacks something."""
    try:
        result = cli.main(standalone_mode=False)
        return int(result or 0)
    except click.exceptions.Abort:
        return 130
    except click.ClickException as error:
        error.show()
        return 2
    except UsageError as error:
        click.echo(str(error), err=True)
        return 2
    except EnvironmentLacks as error:
        click.echo(f"sanloom: {error}", err=True)
        return 3
    except SanloomError as error:
        click.echo(f"sanloom: {error}", err=True)
        return 1
    except OSError as error:
        if error.errno not in REMEDIES:
            raise
        where = f" ({error.filename})" if error.filename else ""
        click.echo(f"sanloom: {error.strerror}{where}: {REMEDIES[error.errno]}", err=True)
        return 3


if __name__ == "__main__":
    sys.exit(main())

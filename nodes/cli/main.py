"""The command ``sanloom``: a table of lazily imported commands, and the one place that turns errors into exits."""

import difflib
import importlib
import sys

import click

from fabric.errors import EnvironmentLacks, UsageError

COMMANDS = {
    "validate": "Check topology files.",
    "schema": "Print the JSON Schema of topology files.",
    "up": "Launch a topology.",
    "down": "Stop a running lab.",
    "ps": "Show what runs in a lab.",
    "logs": "Show what the nodes of a lab wrote.",
    "exec": "Run a command on a host.",
    "capture": "Capture frames of a running lab as pcapng.",
    "doctor": "Tell what this machine can do.",
    "bench": "Measure, as ratios against baselines of the same run.",
    "demo": "Hand a live connection over, in one go.",
}
"""Command -> help text; the command itself is ``nodes.cli.<name>.command``."""


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = f"nodes.cli.{cmd_name}"
        try:
            command: click.Command = importlib.import_module(module).command
        except ModuleNotFoundError as error:
            if error.name == module:
                raise UsageError(f"{cmd_name} is not part of this version of Sanloom") from error
            raise EnvironmentLacks(f"{cmd_name} needs the Python package {error.name}; install Sanloom anew") from error
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], COMMANDS, 1)
            raise UsageError(f"no command {args[0]!r}" + (f"; did you mean {close[0]!r}?" if close else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _version(ctx: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        click.echo(f"sanloom {version('sanloom')}")
        ctx.exit()


@click.group(cls=_LazyGroup)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
def group() -> None:
    """Sanloom: a network emulator with a virtual SAN fabric."""


def main() -> None:
    """Run the command line; exit 2 for bad usage, 3 for what the environment lacks, 130 when interrupted."""
    try:
        result = group.main(prog_name="sanloom", standalone_mode=False)
        status = result if isinstance(result, int) else 0
    except click.exceptions.Exit as error:
        status = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        status = 130
    except click.ClickException as error:
        error.show()
        status = 2
    except UsageError as error:
        click.echo(f"sanloom: {error}", err=True)
        status = 2
    except EnvironmentLacks as error:
        click.echo(f"sanloom: {error}", err=True)
        status = 3
    sys.exit(status)

"""``sanloom doctor``: what this machine can do, and what it lacks."""

import json

import click

from nodes.cli.options_and_tables import json_option
from nodes.lab.doctor import LACKING, Finding, examine


@click.command()
@json_option
def command(as_json: bool) -> int:
    """Check this machine. Exit status 3 if something that Sanloom needs is missing."""
    findings = examine()
    if as_json:
        click.echo(json.dumps([{"check": f.check, "state": f.state, "text": f.text} for f in findings]))
    else:
        for finding in findings:
            click.echo(_line(finding))
    return 3 if any(finding.state == LACKING for finding in findings) else 0


def _line(finding: Finding) -> str:
    return f"{finding.state:8} {finding.check:18} {finding.text}"

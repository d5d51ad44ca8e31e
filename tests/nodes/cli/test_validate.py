"""``sanloom validate`` and the group's exits."""

import json

import pytest
from click.testing import CliRunner

from nodes.cli import main as cli
from nodes.cli.validate import command


def exit_status(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["sanloom", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return caught.value.code


def test_shipped_topologies_are_fine():
    result = CliRunner().invoke(command, ["pair", "star", "leaf-spine", "--json"], standalone_mode=False)
    assert [item["valid"] for item in json.loads(result.output)] == [True, True, True]


def test_exits(monkeypatch, capsys, tmp_path):
    assert exit_status(monkeypatch, "validate", "pair") == 0
    assert exit_status(monkeypatch, "validat") == 2
    assert "did you mean 'validate'?" in capsys.readouterr().err
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: x\nhots: {}\n")
    assert exit_status(monkeypatch, "validate", str(bad)) == 2
    assert "bad.yaml:2:1: hots: unknown key (did you mean 'hosts'?)" in capsys.readouterr().err

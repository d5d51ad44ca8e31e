"""What a node writes stays whole pieces, also when it cannot be written: files may not grow for ever here."""

import subprocess
import sys

from nodes.output_file import OutputFile

LIMITED = """
import resource, signal, sys
from pathlib import Path
from nodes.output_file import OutputFile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # a write beyond the limit fails then
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
def full_after(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
path = Path(sys.argv[1])
"""
"""Begins a program of its own: the limit is one of the whole process."""


def in_a_limited_process(path, program):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED + program, str(path)], capture_output=True, text=True, check=True, timeout=20
    )
    return done.stdout.split()


def test_pieces_are_appended(tmp_path):
    path = tmp_path / "journal"
    path.write_bytes(b"old\n")
    file = OutputFile(path)
    file.write_text("é\n")
    file.write(b"two\n")
    assert path.read_text() == "old\né\ntwo\n"
    file.close()


def test_what_waits_is_written_when_it_is_enough_or_at_the_end(tmp_path):
    path = tmp_path / "capture"
    file = OutputFile(path, buffer=4)
    file.write(b"abc")
    assert path.read_bytes() == b""
    file.write(b"de")
    assert path.read_bytes() == b"abcde"
    file.write(b"f")
    file.close()
    assert path.read_bytes() == b"abcdef"


def test_a_full_disk_costs_pieces_and_never_half_a_piece(tmp_path):
    program = r"""
file = OutputFile(path)
file.write(b"first\n")
full_after(10)
file.write(b"too long\n")
file.write(b"too long again\n")
print(file.lost)
file.write(b"abc\n")
full_after(100)
file.write(b"after\n")
file.close()
print(file.lost)
"""
    assert in_a_limited_process(tmp_path / "journal", program) == ["2", "2"]
    assert (tmp_path / "journal").read_bytes() == b"first\nabc\nafter\n"


def test_a_file_without_gaps_ends_at_the_first_loss(tmp_path):
    program = r"""
file = OutputFile(path, buffer=6, resume=False)
for piece in (b"abc", b"def"):
    file.write(piece)
full_after(8)
for piece in (b"ghi", b"jkl", b"m"):
    file.write(piece)
full_after(100)
file.write(b"nopqrst")
file.close()
print(file.lost)
"""
    assert in_a_limited_process(tmp_path / "capture", program) == ["4"]
    assert (tmp_path / "capture").read_bytes() == b"abcdef"

"""The benchmarks run and print their tables; what they measure is no test's business."""

from __future__ import annotations

import sys

import pytest

import generate
from processes import run
from projects import ROOT

SCRIPT = ROOT / "benchmarks" / "generate.py"


@pytest.mark.slow
def test_one_round_prints_a_row_for_each_tool_and_clock() -> None:
    printed = run(sys.executable, SCRIPT, "--rounds", "1", cwd=ROOT, check=False).stdout
    rows = [line.split(" | ") for line in printed.splitlines() if line.startswith("| co")]
    assert [(row[0].split()[1], row[1]) for row in rows] == [
        ("cookiecutter", "clock"),
        ("cookiecutter", "processor"),
        ("copier", "clock"),
        ("copier", "processor"),
    ], printed
    for row in rows:
        ours, bare, added = (float(cell.split(" ")[0]) for cell in row[2:])
        assert abs(ours - bare - added) < 0.02
    assert "Medians of 1 interleaved rounds" in printed


def test_missed_goals_are_named() -> None:
    seconds = {case: [1.0, 1.2, 1.1] for case in generate.CASES}
    assert generate.missed(seconds) == []
    seconds[generate.Case("copier", "ours")] = [2.6, 2.7, 2.8]
    assert generate.missed(seconds) == [
        "copier: a generation takes 2.70 s, more than 2.5 s",
        "copier: 1.60 s are added, more than 0.3 s",
    ]


def test_no_rounds_are_refused() -> None:
    refused = run(sys.executable, SCRIPT, "--rounds", "0", cwd=ROOT, check=False)
    assert refused.returncode == 2
    assert "--rounds 0 is refused: it has to be at least 1, for example 15" in refused.stdout

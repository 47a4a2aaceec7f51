"""Time one generation with each tool, beside the bare tool on the same tree.

The bare template is made from this one: the same files with the default answers, and no question,
rule or hook. All four commands run in every round, in turns, so that a busy machine is unfair to
none of them; what this template adds is the median of the rounds' differences.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import copier_questions  # noqa: E402 - the scripts are files of their own, in no package
import lint_template  # noqa: E402
import refresh_constraints  # noqa: E402

TREE = lint_template.TEMPLATE_NAME
BIN = Path(sys.executable).parent
TOOLS = ("cookiecutter", "copier")
# Seconds: what this template may add to each tool, and how long a generation may take.
MAY_ADD = {"cookiecutter": 0.8, "copier": 0.3}
MAY_TAKE = 2.5
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "MAKE"))},
    **{f"GIT_{who}_NAME": "A Benchmark" for who in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{who}_EMAIL": "benchmark@example.com" for who in ("AUTHOR", "COMMITTER")},
    # As an installed tool: with compiled modules, which the first round writes.
    "PYTHONDONTWRITEBYTECODE": "",
}


class Taken(NamedTuple):
    """Seconds of one generation: by the clock, and of processor time."""

    clock: float
    work: float


class Case(NamedTuple):
    """One of the four commands."""

    tool: str
    template: str


Seconds = dict[Case, list[float]]
CASES = [Case(tool, template) for tool in TOOLS for template in ("ours", "bare")]


def main() -> int:
    """Run the rounds and print the table; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="rounds that count, at least 1")
    rounds = parser.parse_args().rounds
    if rounds < 1:
        parser.error(f"--rounds {rounds} is refused: it has to be at least 1, for example 15")
    with tempfile.TemporaryDirectory() as scratch:
        templates = make_templates(Path(scratch))
        measure(templates, Path(scratch))
        seconds: Seconds = {case: [] for case in CASES}
        work: Seconds = {case: [] for case in CASES}
        for number in range(rounds):
            order = CASES if number % 2 == 0 else CASES[::-1]
            for case, taken in measure(templates, Path(scratch), order).items():
                seconds[case].append(taken.clock)
                work[case].append(taken.work)
        files = sum(path.is_file() for path in (templates["bare"] / TREE).rglob("*"))
    print(report(seconds, work, files))
    return 1 if missed(seconds) else 0


def make_templates(scratch: Path) -> dict[str, Path]:
    """Repositories of this template and of the bare one, each with a release."""
    templates = {name: scratch / name / "template" for name in ("ours", "bare")}
    for folder in templates.values():
        for path in lint_template.repository_files(ROOT):
            target = folder / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    strip(templates["bare"])
    for folder in templates.values():
        for words in ("init --quiet", "add --all", "commit --quiet --message All", "tag 0.1.0"):
            subprocess.run(["git", *words.split()], cwd=folder, env=ENVIRONMENT, check=True)
    return templates


def strip(template: Path) -> None:
    """Take questions, rules, hooks and the other tracker's files out of a copy of this template."""
    definition = json.loads((template / "cookiecutter.json").read_text(encoding="utf-8"))
    answers = refresh_constraints.default_answers(definition)
    shutil.rmtree(template / "hooks")
    for tracker, patterns in definition["_tracker_files"].items():
        for pattern in patterns if tracker != answers["tracker"] else []:
            for path in (template / TREE).glob(pattern):
                path.unlink()
    marks = {"_jinja2_env_vars": definition["_jinja2_env_vars"]}
    (template / "cookiecutter.json").write_text(json.dumps(answers | marks), encoding="utf-8")
    ours = copier_questions.settings(definition)
    settings = {name: ours[name] for name in ("_subdirectory", "_templates_suffix", "_envops")}
    namespace = {"type": "json", "when": False, "default": json.dumps(answers)}
    (template / "copier.yml").write_text(
        yaml.safe_dump({**settings, "cookiecutter": namespace}), encoding="utf-8"
    )


def measure(
    templates: Mapping[str, Path], scratch: Path, order: list[Case] = CASES
) -> dict[Case, Taken]:
    """Time one generation with each command, one after the other."""
    taken = {}
    for case in order:
        output = scratch / "output"
        words = command(case.tool, templates[case.template], output)
        output.mkdir()
        start, work = time.perf_counter(), processor_seconds()
        subprocess.run(words, cwd=scratch, env=ENVIRONMENT, capture_output=True, check=True)
        taken[case] = Taken(time.perf_counter() - start, processor_seconds() - work)
        shutil.rmtree(output)
    return taken


def processor_seconds() -> float:
    """Processor time of the commands that have ended; other programs do not change it much."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def command(tool: str, template: Path, output: Path) -> list[str]:
    """The words of a generation with the default answers."""
    if tool == "cookiecutter":
        options = ["--no-input", "--default-config", "--output-dir", str(output)]
        return [str(BIN / tool), str(template), *options]
    return [str(BIN / tool), "copy", "--defaults", "--quiet", str(template), str(output / "it")]


def added(seconds: Seconds, tool: str) -> list[float]:
    """Seconds that this template adds to a tool, for each round."""
    pairs = zip(seconds[Case(tool, "ours")], seconds[Case(tool, "bare")], strict=True)
    return [ours - bare for ours, bare in pairs]


def missed(seconds: Seconds) -> list[str]:
    """The goals that were missed, in words."""
    found = []
    for tool in TOOLS:
        whole = statistics.median(seconds[Case(tool, "ours")])
        more = statistics.median(added(seconds, tool))
        if whole > MAY_TAKE:
            found.append(f"{tool}: a generation takes {whole:.2f} s, more than {MAY_TAKE} s")
        if more > MAY_ADD[tool]:
            found.append(f"{tool}: {more:.2f} s are added, more than {MAY_ADD[tool]} s")
    return found


def report(seconds: Seconds, work: Seconds, files: int) -> str:
    """The table in Markdown, with the machine and the goals below."""
    lines = ["| tool | | this template, s | bare tool, s | added, s |", "|---|---|---|---|---|"]
    for tool in TOOLS:
        name = f"{tool} {importlib.metadata.version(tool)}"
        for kind, values in (("clock", seconds), ("processor", work)):
            ours, bare = (values[Case(tool, template)] for template in ("ours", "bare"))
            cells = [name, kind, spread(ours), spread(bare), spread(added(values, tool))]
            lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"Medians of {len(seconds[CASES[0]])} interleaved rounds with the quartiles in brackets; "
        f"{files} files. {machine()}",
        "",
        *(missed(seconds) or ["Every goal is met."]),
    ]
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    """A median with its quartiles."""
    low, middle, high = statistics.quantiles([*values, *values], n=4, method="inclusive")
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def machine() -> str:
    """What the figures were measured on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = platform.freedesktop_os_release()["PRETTY_NAME"]
    git = subprocess.run(["git", "--version"], capture_output=True, text=True, check=True).stdout
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GiB, {system}, Python {platform.python_version()}, "
        f"{git.strip()}; load of the last minutes: "
        f"{', '.join(f'{load:.1f}' for load in os.getloadavg())}."
    )


if __name__ == "__main__":
    sys.exit(main())

"""Commands of the pipeline."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live
from rich.table import Table

from ..console import err, out
from ..settings import Settings

if TYPE_CHECKING:
    from ..pipeline import StepState

commands = typer.Typer(no_args_is_help=True, help="From data to a registered version.")

MARKS = {"running": "[yellow]running[/]", "done": "[green]done[/]", "failed": "[red]failed[/]"}

AsOf = Annotated[
    datetime | None, typer.Option(help="What counts as now (UTC); a past instant is a backfill.")
]


@commands.command("run")
def pipeline_run(
    as_of: AsOf = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Run every step, whatever an earlier run made.")
    ] = False,
    containers: Annotated[
        bool, typer.Option("--containers", help="Run each step in a container of the jobs' image.")
    ] = False,
) -> None:
    """Run the pipeline on this machine and register the model if it is better.

    Example: pipeline run --as-of 2025-10-01
    """
    from ..pipeline import run

    watcher = Watcher()
    with watcher.live:
        version = run(Settings(), as_of, cache=not no_cache, watch=watcher, containers=containers)
    out.print(watcher.table(finished=True))
    if version is None:
        out.print(
            f"nothing was registered, the model is not better: {watcher.gains()}\n"
            "next: change features or parameters (data.py, model.py); other data than production's "
            "belongs into an ML_HOME of its own",
            markup=False,
        )
    else:
        out.print(f"version {version} is registered (staging)\nnext: registry promote")


@commands.command("compile")
def pipeline_compile(
    file: Annotated[Path, typer.Argument(help="Where the YAML goes.")],
) -> None:
    """Write the pipeline as YAML for a Kubeflow cluster, checked against kfp's schema.

    Example: pipeline compile build/pipeline.yaml
    """
    from ..kubeflow import compile_pipeline

    compile_pipeline(Settings(), file)
    out.print(f"{file}\nnext: pipeline submit")


@commands.command("submit")
def pipeline_submit(
    as_of: AsOf = None,
    cron: Annotated[
        str, typer.Option(help="Repeat on a schedule of six fields, seconds first.")
    ] = "",
) -> None:
    """Run the pipeline on a Kubeflow cluster, once or on a schedule.

    ML_KUBEFLOW_HOST is the address of its API; ML_PIPELINE_IMAGE, ML_RAW_DATA and
    ML_PIPELINE_SECRET are compiled in (`settings` explains each).

    Example: pipeline submit --cron "0 0 3 * * *"
    """
    from ..kubeflow import submit

    settings = Settings()
    made = submit(settings, as_of.isoformat() if as_of else "", cron)
    kind = "recurring run" if cron else "run"
    out.print(f"{kind} {made}\nnext: look at it on {settings.kubeflow_host}")


class Watcher:
    """Shows each step's state and time: a table on a terminal, a line for each step elsewhere."""

    def __init__(self) -> None:
        self.live = Live(console=err, transient=True, auto_refresh=False)
        self._states: list[StepState] = []
        self._told = 0

    def __call__(self, states: list[StepState]) -> None:
        """Take note of the states as they are."""
        self._states = states
        if err.is_terminal:
            self.live.update(self.table(finished=False), refresh=True)
            return
        ended = sorted((s for s in states if s.ended), key=lambda state: state.ended or 0)
        for state in ended[self._told :]:
            err.print(f"{state.step} {state.state} ({state.seconds:.1f} s)")
        self._told = len(ended)

    def gains(self) -> str:
        """What the comparison of the run has found."""
        from ..steps import describe_gains

        found = (state.result for state in self._states if state.step == "compare")
        return next((describe_gains(gains) for gains in found if isinstance(gains, dict)), "")

    def table(self, finished: bool) -> Table:
        """Every step of the run; those that did not run came from the cache, or were not due."""
        from ..kubeflow import STEPS

        table = Table("step", "state", "seconds")
        for name in STEPS:
            ran = [state for state in self._states if state.step == name]
            for state in ran:
                table.add_row(name, MARKS[state.state], f"{state.seconds:.1f}")
            if not ran and finished:
                table.add_row(name, "not due" if name == "register" else "from the cache", "")
        return table

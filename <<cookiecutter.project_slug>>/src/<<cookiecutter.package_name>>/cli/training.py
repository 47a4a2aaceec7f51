"""Commands that train."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ..console import out
from ..settings import Settings

if TYPE_CHECKING:
    from ..bundle import Metadata


def train(
    param: Annotated[
        list[str] | None, typer.Option(help="A hyper-parameter, as in max_iter=200; repeatable.")
    ] = None,
) -> None:
    """Train, evaluate, explain, export and log one model.

    Example: train --param learning_rate=0.1 --param max_iter=200
    """
    from ..training import train as run_training

    settings = Settings()
    chosen = {**settings.model_parameters, **dict(_parameter(text) for text in param or [])}
    trained = run_training(settings.model_copy(update={"model_parameters": chosen}))
    _print_metrics(trained.bundle.metadata)
    out.print(f"model and pictures: {trained.folder}\nnext: registry register")


def _parameter(text: str) -> tuple[str, int | float | str | bool | None]:
    name, separator, value = text.partition("=")
    if not separator:
        raise typer.BadParameter(f"{text!r} must look like name=value, as in max_iter=200")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _print_metrics(metadata: Metadata) -> None:
    table = Table("hold-out", "model", "baseline")
    for name, value in metadata.metrics.items():
        table.add_row(name, f"{value:.4f}", f"{metadata.baseline_metrics[name]:.4f}")
    out.print(table)
    out.print(
        f"gain in {metadata.primary_metric} over the baseline: {metadata.gain_over_baseline} "
        f"(95% interval)"
    )

"""Commands of batch scoring."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..console import out
from ..settings import Settings


def predict(
    source: Annotated[Path, typer.Argument(metavar="INPUT.parquet", help="Rows to score.")],
    target: Annotated[Path, typer.Argument(metavar="OUTPUT.parquet", help="File to write.")],
    model: Annotated[
        str | None, typer.Option(help="Alias or version; default: what is in production.")
    ] = None,
) -> None:
    """Score a Parquet file: its columns that are no features, prediction and confidence.

    A run that was interrupted goes on where it stopped when it is started again.

    Example: predict customers.parquet scored.parquet --model staging
    """
    from ..batch_scoring import score_file

    done = score_file(Settings(), source, target, model)
    resumed = f" ({done.resumed:,} of them by the run before)" if done.resumed else ""
    out.print(f"{done.rows:,} rows{resumed} scored by version {done.model}: {target}", markup=False)

"""Commands that watch the model in production."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from ..console import err, out
from ..settings import Settings

if TYPE_CHECKING:
    from ..monitoring.drift import DriftReport

commands = typer.Typer(no_args_is_help=True, help="Is the model still right?")

EXIT_CODES = {"steady": 0, "drifted": 3, "broken": 4, "too few rows": 5}
UNDELIVERED = 6

Current = Annotated[
    str | None,
    typer.Option(help="Parquet file, folder or s3:// address; default: the prediction log."),
]
OtherReference = Annotated[
    str | None, typer.Option("--reference", help="Parquet of other rows to compare with.")
]
Version = Annotated[str, typer.Option("--version", help="A version's number or an alias.")]


@commands.command("run")
def drift_run(
    current: Current = None,
    reference: OtherReference = None,
    profiles: Annotated[
        list[Path] | None, typer.Option(help="What `drift profile` wrote; repeatable.")
    ] = None,
    version: Version = "production",
    html: Annotated[bool, typer.Option(help="Write Evidently's report of a sample.")] = True,
    alert: Annotated[bool, typer.Option(help="Send alerts.")] = True,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Retrain where drift is found.")
    ] = False,
) -> None:
    """Compare the newest predictions with the rows that the model was judged on.

    Exit code 0: no drift; 3: drift; 4: a column is broken; 5: too few rows; 6: an alert was not
    delivered; 1: another error.

    Example: drift run --current today.parquet --no-html
    """
    from ..monitoring import drift, outputs
    from ..monitoring.alerts import AlertError, announce, channels
    from ..monitoring.counting import read_counts

    settings = Settings()
    held_against = drift.reference_of(settings, version, reference)
    pages = None
    if profiles:
        report = drift.compare_parts(settings, held_against, [read_counts(p) for p in profiles])
    else:
        report, sample = drift.compare(settings, held_against, current)
        if html and sample is not None:
            before = outputs.reference_sample(settings, held_against, reference)
            pages = {"reference": before, "current": sample}
    folder = outputs.write_report(settings, report, pages)
    _print_report(report)
    out.print(f"report: {folder}")
    code = EXIT_CODES[report.status]
    try:
        for line in announce(settings, report, folder) if alert else ():
            out.print(line)
        if alert and code and not channels(settings):
            err.print("[yellow]nobody is told[/]: set ML_ALERTMANAGER_URL or an ML_ALERT_..._URL")
    except AlertError as error:
        err.print(f"error: {error}", markup=False)
        code = UNDELIVERED
    # After the alert: whoever is on call is told, whatever is away.
    outputs.publish_metrics(settings, report)
    outputs.track_report(settings, report, folder)
    if retrain and report.status == "drifted":
        from ..monitoring.retraining import retrain_on_drift

        out.print(retrain_on_drift(settings, report.version, "; ".join(report.reasons)))
    elif report.status == "drifted":
        out.print("next: drift retrain")
    raise typer.Exit(code)


@commands.command("profile")
def drift_profile(
    current: Annotated[str, typer.Option(help="Parquet file, folder or s3:// address.")],
    destination: Annotated[Path, typer.Option("--to", help="The part's counts, as JSON.")],
    reference: OtherReference = None,
    version: Version = "production",
) -> None:
    """Count one part of the current rows; `drift run --profiles` adds parts up exactly.

    Example: drift profile --current part-1.parquet --to part-1.json
    """
    from ..database import connect
    from ..monitoring import drift
    from ..monitoring.counting import count

    settings = Settings()
    held_against = drift.reference_of(settings, version, reference)
    with connect(settings) as db:
        counts = count(drift.parquet_rows(db, current), held_against.profile)
    counts.write(destination)
    out.print(f"{counts.rows:,} rows counted\nnext: drift run --profiles {destination} ...")


@commands.command("simulate")
def drift_simulate(
    destination: Annotated[Path, typer.Option("--to", help="Parquet file to write.")],
    shift: Annotated[
        Literal["none", "mean", "scale", "category", "missing", "constant"],
        typer.Option(help="What happens to the columns."),
    ] = "mean",
    size: Annotated[
        float, typer.Option(help="Deviations, a factor, or a share of the rows.")
    ] = 1.0,
    column: Annotated[
        list[str] | None, typer.Option(help="Repeatable; default: every column that it suits.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1)] = 10_000,
    seed: Annotated[int, typer.Option()] = 7,
    version: Version = "production",
) -> None:
    """Write current rows with a shift, to try `drift run --current` on.

    Example: drift simulate --shift mean --size 0.5 --to shifted.parquet
    """
    from ..monitoring.shifts import shifted
    from ..registry import Registry

    sample = Registry(Settings()).holdout(version).features
    destination.parent.mkdir(parents=True, exist_ok=True)
    shifted(sample, shift, size, column or [], rows, seed).to_parquet(destination, index=False)
    out.print(f"{rows:,} rows in {destination}\nnext: drift run --current {destination}")


@commands.command("retrain")
def drift_retrain(
    reason: Annotated[str, typer.Option(help="Why; it goes into the record.")] = "by hand",
    force: Annotated[
        bool, typer.Option("--force", help="Pass over the cool-down and the budget.")
    ] = False,
) -> None:
    """Train, judge and promote what is better, under the cool-down and the budget."""
    _retrain(Settings(), reason, force)


def _retrain(settings: Settings, reason: str, force: bool = False) -> None:
    from ..monitoring.retraining import retrain

    out.print(retrain(settings, reason, force))


def _print_report(report: DriftReport) -> None:
    table = Table("column", "verdict", "PSI", "chance", "missing", "outside", "note")
    colours = {"steady": "green", "drifted": "yellow", "broken": "red"}
    for column in report.columns:
        table.add_row(
            column.name,
            f"[{colours[column.status]}]{column.status}[/]",
            "" if column.psi is None else f"{column.psi:.4f}",
            "" if column.p_value is None else f"{column.p_value:.1e}",
            f"{column.missing:.1%}",
            f"{column.outside:.1%}",
            column.note,
        )
    if report.columns:
        out.print(table)
    if report.performance is not None:
        out.print(str(report.performance), markup=False)
    why = "".join(f"\n  {reason}" for reason in report.reasons)
    out.print(
        f"{report.status}: {report.rows:,} rows ({report.source}) against version "
        f"{report.version}'s {report.reference_rows:,}{why}",
        markup=False,
    )

"""Commands that make or take in data."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..console import err, out
from ..settings import Settings

if TYPE_CHECKING:
    from ..purchases import Manifest

commands = typer.Typer(no_args_is_help=True, help="Make or take in the log of purchases.")

Replace = Annotated[bool, typer.Option("--replace", help="Overwrite an imported log.")]


@commands.command("simulate")
def data_simulate(
    customers: Annotated[int, typer.Option(min=10, help="About ten purchases each.")] = 5_000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same log.")] = 7,
    until: Annotated[
        datetime, typer.Option(formats=["%Y-%m-%d"], help="The day after the last one.")
    ] = datetime(2026, 1, 1),
    shift_on: Annotated[
        list[datetime] | None,
        typer.Option(formats=["%Y-%m-%d"], help="A day on which habits change; repeatable."),
    ] = None,
    replace: Replace = False,
) -> None:
    """Write a simulated log of purchases over two years.

    Example: data simulate --customers 100000 --seed 1 --shift-on 2025-09-01
    """
    from ..purchases import simulate

    shifts = [day.date() for day in shift_on or []]
    _print_manifest(simulate(Settings(), customers, seed, until.date(), replace, shifts))


@commands.command("import")
def data_import(
    file: Annotated[Path, typer.Argument(help="CSV with a header line, or Parquet.")],
    customer_column: Annotated[str, typer.Option()] = "customer_id",
    date_column: Annotated[str, typer.Option()] = "purchased_at",
    amount_column: Annotated[str, typer.Option()] = "amount",
    date_format: Annotated[
        str | None, typer.Option(help="For dates not in ISO form, such as %d/%m/%Y.")
    ] = None,
    keep_duplicates: Annotated[
        bool, typer.Option("--keep-duplicates", help="Rows equal in every column are purchases.")
    ] = False,
    keep_future: Annotated[
        bool, typer.Option("--keep-future", help="Dates ahead of the clock are no mistakes.")
    ] = False,
    replace: Replace = False,
) -> None:
    """Take in a retailer's log; rows that cannot be used are set aside with their reason.

    Example: data import orders.csv --customer-column customer --date-column date
    """
    from ..purchases import REJECTED_FILE, ColumnMapping, import_log

    settings = Settings()
    mapping = ColumnMapping(customer_column, date_column, amount_column, date_format)
    manifest = import_log(settings, file, mapping, keep_duplicates, replace, keep_future)
    _print_manifest(manifest)
    if manifest.rejected:
        reasons = ", ".join(f"{rows:,} {reason}" for reason, rows in manifest.rejected.items())
        err.print(f"[yellow]set aside[/]: {reasons}; see {settings.data_dir / REJECTED_FILE}")


def _print_manifest(manifest: Manifest) -> None:
    out.print(
        f"{manifest.rows:,} purchases of {manifest.customers:,} customers, "
        f"{manifest.oldest_event:%Y-%m-%d} to {manifest.newest_event:%Y-%m-%d} "
        f"({manifest.kind}: {manifest.source})\nnext: features build"
    )

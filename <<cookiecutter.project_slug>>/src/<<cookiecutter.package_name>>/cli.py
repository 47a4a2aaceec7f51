"""The commands. Each is a thin layer: options in, one call, a table or a line out."""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError
from rich.table import Table

from .console import err, out
from .errors import ProjectError
from .settings import Settings, environment_file

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from .bundle import Metadata
    from .gate import Verdict
    from .purchases import Manifest

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich")
data_commands = typer.Typer(no_args_is_help=True, help="Make or take in the log of purchases.")
features_commands = typer.Typer(no_args_is_help=True, help="Compute features and labels.")
registry_commands = typer.Typer(no_args_is_help=True, help="Versions of the model.")
app.add_typer(data_commands, name="data")
app.add_typer(features_commands, name="features")
app.add_typer(registry_commands, name="registry")

Reference = Annotated[str, typer.Argument(help="A version's number or an alias.")]
Reason = Annotated[str, typer.Option(help="Why; it goes into the record.")]
Replace = Annotated[bool, typer.Option("--replace", help="Overwrite an imported log.")]


@app.callback()
def describe() -> None:
    """From data to a served model: data, features, training, registry, server."""


@app.command("settings")
def show_settings() -> None:
    """Print every setting with its default, in the form of a .env file."""
    out.print(environment_file(), end="", markup=False)


@data_commands.command("simulate")
def data_simulate(
    customers: Annotated[int, typer.Option(min=10, help="About ten purchases each.")] = 5_000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same log.")] = 7,
    until: Annotated[
        datetime, typer.Option(formats=["%Y-%m-%d"], help="The day after the last one.")
    ] = datetime(2026, 1, 1),
    replace: Replace = False,
) -> None:
    """Write a simulated log of purchases over two years.

    Example: data simulate --customers 100000 --seed 1
    """
    from .purchases import simulate

    _print_manifest(simulate(Settings(), customers, seed, until.date(), replace))


@data_commands.command("import")
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
    replace: Replace = False,
) -> None:
    """Take in a retailer's log; rows that cannot be used are set aside with their reason.

    Example: data import orders.csv --customer-column customer --date-column date
    """
    from .purchases import REJECTED_FILE, ColumnMapping, import_log

    settings = Settings()
    mapping = ColumnMapping(customer_column, date_column, amount_column, date_format)
    manifest = import_log(settings, file, mapping, keep_duplicates, replace)
    _print_manifest(manifest)
    if manifest.rejected:
        reasons = ", ".join(f"{rows:,} {reason}" for reason, rows in manifest.rejected.items())
        err.print(f"[yellow]set aside[/]: {reasons}; see {settings.data_dir / REJECTED_FILE}")


@features_commands.command("build")
def features_build() -> None:
    """Compute the features and labels of all training examples, and the features as of now."""
    from .features import build

    built = build(Settings())
    kept = "" if built.sampled_share == 1 else f" (a sample of {built.sampled_share:.1%})"
    out.print(
        f"{built.examples:,} examples{kept} at {built.instants - 1} times, "
        f"{built.entities_now:,} entities as of now"
    )


@app.command()
def train(
    param: Annotated[
        list[str] | None, typer.Option(help="A hyper-parameter, as in max_iter=200; repeatable.")
    ] = None,
) -> None:
    """Train, evaluate, explain, export and log one model.

    Example: train --param learning_rate=0.1 --param max_iter=200
    """
    from .training import train as run_training

    settings = Settings()
    chosen = {**settings.model_parameters, **dict(_parameter(text) for text in param or [])}
    trained = run_training(settings.model_copy(update={"model_parameters": chosen}))
    _print_metrics(trained.bundle.metadata)
    out.print(f"model and pictures: {trained.folder}\nnext: registry register")


@registry_commands.command("register")
def registry_register(
    folder: Annotated[
        Path | None, typer.Argument(help="A trained model's folder; default: the newest.")
    ] = None,
) -> None:
    """Make a version of a trained model and point `staging` at it."""
    from .registry import Registry

    version = Registry(Settings()).register(folder)
    origin = version.tags.get("run_id", "a folder")
    out.print(
        f"registered version {version.number} (staging) of run {origin}\nnext: registry validate"
    )


@registry_commands.command("list")
def registry_list() -> None:
    """Show every version."""
    from .registry import Registry

    settings = Settings()
    table = Table("version", "aliases", "created (UTC)", "validation", "gain over baseline", "run")
    for version in Registry(settings).versions():
        table.add_row(
            version.number,
            ", ".join(version.aliases),
            f"{version.created_at:%Y-%m-%d %H:%M}",
            version.validation,
            version.tags.get("gain_over_baseline", ""),
            version.tags.get("run_id", ""),
        )
    if table.row_count:
        out.print(table)
    else:
        out.print(f"{settings.model_name} has no version yet: run `train`, `registry register`")


@registry_commands.command("validate")
def registry_validate(
    reference: Reference = "staging",
    new_signature: Annotated[
        bool,
        typer.Option("--new-signature", help="Accept other features or answers than production's."),
    ] = False,
) -> None:
    """Judge a version against the baseline and production; exit code 2 if it fails."""
    from .registry import Registry

    verdict = Registry(Settings()).validate(reference, new_signature)
    _print_verdict(verdict)
    if not verdict.passed:
        raise typer.Exit(2)
    out.print("next: registry promote")


@registry_commands.command("promote")
def registry_promote(reference: Reference = "staging", reason: Reason = "") -> None:
    """Point `production` at a version that passed the gate."""
    from .registry import Registry

    version = Registry(Settings()).promote(reference, reason)
    out.print(f"version {version.number} is in production\nnext: registry sync")


@registry_commands.command("rollback")
def registry_rollback(reason: Reason = "") -> None:
    """Point `production` back at the version before; again goes one further back."""
    from .registry import Registry

    version = Registry(Settings()).rollback(reason)
    out.print(f"version {version.number} is in production again\nnext: registry sync")


@registry_commands.command("history")
def registry_history() -> None:
    """Show who moved production when and why."""
    from .registry import Registry

    table = Table("when (UTC)", "who", "what", "from", "to", "state", "reason")
    for move in Registry(Settings()).history():
        table.add_row(
            f"{move.created_at:%Y-%m-%d %H:%M:%S}",
            move.actor,
            move.action,
            move.from_version or "",
            move.to_version,
            move.state,
            move.reason,
        )
    out.print(table)


@registry_commands.command("download")
def registry_download(
    destination: Annotated[Path, typer.Argument(help="A folder that is not there yet.")],
    reference: Annotated[str, typer.Option(help="Version or alias.")] = "production",
) -> None:
    """Copy a version's verified bundle into a new folder."""
    from .registry import Registry

    version = Registry(Settings()).download(reference, destination)
    out.print(f"version {version.number} is in {destination}")


@registry_commands.command("sync")
def registry_sync(
    every: Annotated[
        float | None, typer.Option(min=0.5, help="Repeat after so many seconds.")
    ] = None,
) -> None:
    """Bring the aliased versions to the folder that the server watches."""
    from .registry import Registry

    settings = Settings()
    registry = Registry(settings)
    while True:
        aliases = registry.sync()
        named = ", ".join(f"{alias}: version {number}" for alias, number in aliases.items())
        out.print(f"{settings.served_dir}: {named or 'no version has an alias yet'}")
        if every is None:
            return
        time.sleep(every)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Default: ML_HOST.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65_535, help="Default: ML_PORT.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Default: ML_WORKERS.")] = None,
) -> None:
    """Answer predictions over HTTP with the model in production.

    Example: serve --port 9000
    """
    from .serving import serve as run_server

    given = {"host": host, "port": port, "workers": workers}
    run_server(
        Settings().model_copy(update={name: v for name, v in given.items() if v is not None})
    )


@app.command()
def demo(
    customers: Annotated[int, typer.Option(min=200, help="Simulated customers.")] = 5_000,
) -> None:
    """Run the whole loop with simulated customers, in a folder of its own."""
    from .demo import run

    run(customers)


def main() -> None:
    """Run a command; errors that a user can mend end with a line and exit code 1."""
    try:
        app()
    except (ProjectError, ConnectionError) as error:
        err.print("[red]error:[/] ", end="")
        err.print(str(error), markup=False)
        sys.exit(1)
    except ValidationError as error:
        for problem in error.errors():
            err.print(_described(error.title, problem), markup=False)
        sys.exit(1)
    except SettingsError as error:
        err.print(f"error: a setting is not valid JSON: {error}", markup=False)
        sys.exit(1)


def _described(title: str, problem: ErrorDetails) -> str:
    """One finding of pydantic in words: of a setting, or of what data.py and model.py declare."""
    field = "_".join(map(str, problem["loc"]))
    if title == Settings.__name__:
        name = "ML_" + field.upper().removeprefix("ML_")
        return f"error: the setting {name}={problem['input']!r} is not valid: {problem['msg']}"
    return f"error: {title} {field} = {problem['input']!r} is not valid: {problem['msg']}"


def _parameter(text: str) -> tuple[str, int | float | str | bool | None]:
    name, separator, value = text.partition("=")
    if not separator:
        raise typer.BadParameter(f"{text!r} must look like name=value, as in max_iter=200")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _print_manifest(manifest: Manifest) -> None:
    out.print(
        f"{manifest.rows:,} purchases of {manifest.customers:,} customers, "
        f"{manifest.oldest_event:%Y-%m-%d} to {manifest.newest_event:%Y-%m-%d} "
        f"({manifest.kind}: {manifest.source})\nnext: train"
    )


def _print_metrics(metadata: Metadata) -> None:
    table = Table("hold-out", "model", "baseline")
    for name, value in metadata.metrics.items():
        table.add_row(name, f"{value:.4f}", f"{metadata.baseline_metrics[name]:.4f}")
    out.print(table)
    out.print(
        f"gain in {metadata.primary_metric} over the baseline: {metadata.gain_over_baseline} "
        f"(95% interval)"
    )


def _print_verdict(verdict: Verdict) -> None:
    table = Table("check", "passed", "figure", "limit")
    for check in verdict.checks:
        mark = "[green]yes[/]" if check.passed else "[red]no[/]"
        table.add_row(check.name, mark, check.figure, check.limit)
    out.print(table)
    word = "passed" if verdict.passed else "failed"
    out.print(f"version {verdict.version} {word} the gate on {verdict.rows:,} hold-out rows")

"""Commands of the model registry."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from ..console import out
from ..settings import Settings

if TYPE_CHECKING:
    from ..verdict import Verdict

commands = typer.Typer(no_args_is_help=True, help="Versions of the model.")

Reference = Annotated[str, typer.Argument(help="A version's number or an alias.")]
Reason = Annotated[str, typer.Option(help="Why; it goes into the record.")]


@commands.command("register")
def registry_register(
    folder: Annotated[
        Path | None, typer.Argument(help="A trained model's folder; default: the newest.")
    ] = None,
) -> None:
    """Make a version of a trained model and point `staging` at it."""
    from ..registry import Registry

    version = Registry(Settings()).register(folder)
    origin = version.tags.get("run_id", "a folder")
    out.print(
        f"registered version {version.number} (staging) of run {origin}\nnext: registry validate"
    )


@commands.command("list")
def registry_list() -> None:
    """Show every version."""
    from ..registry import Registry
    from ..tracking import not_mirrored

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
        where = "" if settings.mlflow_tracking_uri else f" in {settings.home.resolve()}"
        out.print(
            f"{settings.model_name} has no version yet{where}: run `train`, `registry register`",
            soft_wrap=True,
        )
    if waiting := not_mirrored(settings):
        out.print(waiting, markup=False)


@commands.command("number")
def registry_number(reference: Reference = "staging") -> None:
    """Print the number of the version that an alias points at by now, for scripts.

    Example: registry number production
    """
    from ..registry import Registry

    out.print(Registry(Settings()).version(reference).number)


@commands.command("validate")
def registry_validate(
    reference: Reference = "staging",
    new_signature: Annotated[
        bool,
        typer.Option("--new-signature", help="Accept other features or answers than production's."),
    ] = False,
) -> None:
    """Judge a version against the baseline and production; exit code 2 if it fails."""
    from ..registry import Registry

    verdict = Registry(Settings()).validate(reference, new_signature)
    _print_verdict(verdict)
    if not verdict.passed:
        raise typer.Exit(2)
    out.print("next: registry promote")


@commands.command("promote")
def registry_promote(
    reference: Reference = "staging",
    reason: Reason = "",
    force: Annotated[
        bool, typer.Option("--force", help="Whatever the gate says; needs --reason.")
    ] = False,
) -> None:
    """Point `production` at a version that passed the gate.

    Example: registry promote 7 --reason "better recall in the north"
    """
    from ..registry import Registry

    version = Registry(Settings()).promote(reference, reason, force)
    out.print(f"version {version.number} is in production\nnext: registry sync")


@commands.command("rollback")
def registry_rollback(reason: Reason = "") -> None:
    """Point `production` back at the version before; again goes one further back."""
    from ..registry import Registry

    version = Registry(Settings()).rollback(reason)
    out.print(f"version {version.number} is in production again\nnext: registry sync")


@commands.command("history")
def registry_history() -> None:
    """Show who moved production when and why."""
    from ..registry import Registry

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


@commands.command("card")
def registry_card(
    reference: Reference = "production",
    output: Annotated[
        Path | None, typer.Option(help="Folder to write to; default: model-card-VERSION.")
    ] = None,
) -> None:
    """Write a version's model card: Markdown with its pictures, and one HTML page.

    Example: registry card 7 --output build/card
    """
    from ..registry import Registry

    registry = Registry(Settings())
    number = registry.version(reference).number
    written = registry.write_card(number, output or Path(f"model-card-{number}"))
    out.print(f"model card of version {number}: {', '.join(map(str, written))}")


@commands.command("download")
def registry_download(
    destination: Annotated[Path, typer.Argument(help="A folder that is not there yet.")],
    reference: Annotated[str, typer.Option(help="Version or alias.")] = "production",
) -> None:
    """Copy a version's verified bundle into a new folder."""
    from ..registry import Registry

    version = Registry(Settings()).download(reference, destination)
    out.print(f"version {version.number} is in {destination}")


@commands.command("sync")
def registry_sync(
    every: Annotated[
        float | None, typer.Option(min=0.5, help="Repeat after so many seconds.")
    ] = None,
) -> None:
    """Bring the aliased versions to the folder that the server watches."""
    from ..registry import Registry

    settings = Settings()
    registry = Registry(settings)
    while True:
        aliases = registry.sync()
        named = ", ".join(f"{alias}: version {number}" for alias, number in aliases.items())
        out.print(f"{settings.served_dir}: {named or 'no version has an alias yet'}")
        if every is None:
            return
        time.sleep(every)


def _print_verdict(verdict: Verdict) -> None:
    table = Table("check", "on", "passed", "figure", "limit")
    for check in verdict.checks:
        mark = "[green]yes[/]" if check.passed else "[red]no[/]"
        table.add_row(check.name, check.rows, mark, escape(check.figure), check.limit)
    out.print(table)
    word = "passed" if verdict.passed else "failed"
    out.print(f"version {verdict.version} {word} the gate on {verdict.rows:,} hold-out rows")

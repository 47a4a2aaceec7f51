"""Commands of the A/B test."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from ..console import err, out
from ..experiment import Experiment, ExperimentError, read_experiment, validated, write_experiment
from ..settings import Settings

if TYPE_CHECKING:
    from ..monitoring.experiment_analysis import Report

commands = typer.Typer(no_args_is_help=True, help="A/B tests of model versions.")

MeasureOption = Annotated[
    Literal["conversion", "accuracy", "error", "mean"] | None,
    typer.Option(help="Default: conversion, accuracy or error, by the task."),
]


@commands.command("start")
def experiment_start(
    name: Annotated[str, typer.Option(help="Also the salt: another name, another split.")],
    variant: Annotated[list[str], typer.Option(help="name=model:weight; the first is control.")],
    shadow: Annotated[str | None, typer.Option(help="A model to score, never to answer.")] = None,
    users: Annotated[
        int, typer.Option(min=100, help="Users you expect to have outcomes.")
    ] = 10_000,
) -> None:
    """Split the users between versions; an alias other than production is fixed to its version.

    Example: experiment start --name deeper --variant control=production:0.9
    --variant treatment=staging:0.1
    """
    from ..registry import Registry
    from ..served_models import PRODUCTION

    settings = Settings()
    if running := read_experiment(settings.experiment_path):
        raise ExperimentError(f"{running.name} is running: end it by `experiment stop` first")
    if _archived(settings, name).exists():
        raise ExperimentError(f"{name} has ended, and the log holds its answers: take another name")
    registry = Registry(settings)

    def fixed(model: str) -> str:
        number = registry.version(model).number
        return model if model == PRODUCTION else number

    arms = [_variant(text) for text in variant]
    for arm in arms:
        arm["model"] = fixed(arm["model"])
    weights = {arm["name"]: arm["weight"] for arm in arms}
    content = {
        "name": name,
        "variants": arms,
        "shadow": {"model": fixed(shadow)} if shadow else None,
        "planned_users": users,
        "history": [{"since": settings.as_of, "weights": weights}],
    }
    experiment = validated(content)
    write_experiment(settings.experiment_path, experiment)
    _print_experiment(experiment)
    out.print("next: registry sync")


@commands.command("ramp")
def experiment_ramp(
    weights: Annotated[list[str], typer.Argument(help="name=weight; control takes the rest.")],
) -> None:
    """Change the weights; no more users change sides than must.

    Example: experiment ramp treatment=0.5
    """
    settings = Settings()
    new = {name: _decimal(value) for name, value in map(_pair, weights)}
    ramped = _running(settings).ramped(new, _after_every_answer(settings))
    write_experiment(settings.experiment_path, ramped)
    _print_experiment(ramped)
    out.print("next: experiment report")


@commands.command("show")
def experiment_show() -> None:
    """Show the running experiment."""
    _print_experiment(_running(Settings()))


@commands.command("stop")
def experiment_stop() -> None:
    """End the experiment: everybody gets production; its description is kept for reports."""
    settings = Settings()
    kept = _end(settings, _running(settings))
    out.print(f"ended; described in {kept}\nnext: experiment report --ended NAME")


@commands.command("report")
def experiment_report(
    measure: MeasureOption = None,
    smallest: Annotated[
        float | None, typer.Option(help="Smallest difference worth finding.")
    ] = None,
    ended: Annotated[str | None, typer.Option(help="The name of an ended experiment.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Judge the experiment from the compacted log, as often as you like.

    Exit codes: 0 no decision yet, 10 a treatment is better, 11 every treatment is worse,
    12 sample ratio mismatch, 13 no difference worth finding; 1 and 2 are errors.

    Example: experiment report --json
    """
    settings = Settings()
    experiment = _ended(settings, ended) if ended else _running(settings)
    picture = settings.experiments_dir / f"{experiment.name}.png"
    report = _analysed(settings, experiment, measure, smallest, picture)
    if as_json:
        out.print(report.model_dump_json(indent=2), markup=False)
    else:
        _print_report(report, picture)
    raise typer.Exit(report.exit_code)


@commands.command("promote")
def experiment_promote(
    measure: MeasureOption = None,
    force: Annotated[str | None, typer.Option(help="A variant to promote, winner or not.")] = None,
    reason: Annotated[str, typer.Option(help="Why; it goes into the record.")] = "",
) -> None:
    """Make the winner production, through the registry's gate, and end the experiment.

    Example: experiment promote --force treatment --reason "cheaper to run"
    """
    from ..registry import Registry
    from ..served_models import PRODUCTION

    settings = Settings()
    experiment = _running(settings)
    registry = Registry(settings)
    if force:
        if not reason:
            raise ExperimentError("--force needs a --reason")
        models = {variant.name: variant.model for variant in experiment.variants}
        if force not in models:
            raise ExperimentError(f"there is no variant {force!r}: there are {', '.join(models)}")
        version = registry.version(models[force]).number
    else:
        report = _analysed(settings, experiment, measure, None, None)
        if report.winner is None:
            raise ExperimentError(f"there is no winner ({report.verdict}): see --force")
        if report.warnings:
            raise ExperimentError(f"{'; '.join(report.warnings)}: see --force")
        version = next(arm.versions[0] for arm in report.arms if arm.name == report.winner)
        reason = reason or f"experiment {experiment.name}: {report.verdict.partition(':')[0]}"
    # After a kill between the two steps, only the second is left to do.
    if PRODUCTION not in registry.version(version).aliases:
        registry.promote(version, reason)
    _end(settings, experiment)
    out.print(f"version {version} is in production, {experiment.name} ended\nnext: registry sync")


def _running(settings: Settings) -> Experiment:
    experiment = read_experiment(settings.experiment_path)
    if experiment is None:
        raise ExperimentError(
            f"no experiment runs ({settings.experiment_path} is not there): `experiment start`"
        )
    return experiment


def _after_every_answer(settings: Settings) -> datetime:
    """Now, but after what is logged: a server's clock goes on where the data's stands still."""
    from ..prediction_log import newest_answer

    newest = newest_answer(settings)
    return max(settings.as_of, newest + timedelta(microseconds=1)) if newest else settings.as_of


def _archived(settings: Settings, name: str) -> Path:
    return settings.experiments_dir / f"{name}.json"


def _ended(settings: Settings, name: str) -> Experiment:
    experiment = read_experiment(_archived(settings, name))
    if experiment is None:
        raise ExperimentError(f"no experiment {name!r} has ended: {_archived(settings, name)}")
    return experiment


def _end(settings: Settings, experiment: Experiment) -> Path:
    kept = _archived(settings, experiment.name)
    write_experiment(kept, experiment)
    settings.experiment_path.unlink()
    return kept


def _analysed(
    settings: Settings,
    experiment: Experiment,
    measure: Any,
    smallest: float | None,
    picture: Path | None,
) -> Report:
    from ..monitoring.experiment_analysis import analyse
    from ..served_models import read_aliases, served_bundle

    control = experiment.variants[0].model
    aliases = read_aliases(settings.served_dir)
    signature = served_bundle(settings.served_dir, aliases.get(control, control)).signature
    return analyse(settings, experiment, signature, measure, smallest, picture)


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise typer.BadParameter(f"{text!r} must look like treatment=0.1")
    return name, value


def _variant(text: str) -> dict[str, Any]:
    name, value = _pair(text)
    model, separator, weight = value.rpartition(":")
    if not separator:
        raise typer.BadParameter(f"{text!r} must look like treatment=staging:0.1")
    return {"name": name, "model": model, "weight": _decimal(weight)}


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation as error:
        raise typer.BadParameter(f"{text!r} is no weight: it must look like 0.1") from error


def _print_experiment(experiment: Experiment) -> None:
    table = Table("variant", "model", "weight", title=experiment.name)
    for variant in experiment.variants:
        table.add_row(variant.name, variant.model, f"{variant.weight:.2%}")
    if experiment.shadow:
        table.add_row(experiment.shadow.name, experiment.shadow.model, "shadow")
    out.print(table)


def _print_report(report: Report, picture: Path) -> None:
    table = Table(
        "variant", "version", "users", "expected", "outcomes", report.measure, "p50 / p95"
    )
    for arm in report.arms:
        table.add_row(
            arm.name,
            ", ".join(arm.versions),
            f"{arm.users:,}",
            f"{arm.expected_users:,.0f}",
            f"{arm.outcomes:,}",
            "" if arm.figure is None else f"{arm.figure:.4f}",
            "" if arm.latency_p50 is None else f"{_ms(arm.latency_p50)} / {_ms(arm.latency_p95)}",
        )
    out.print(table)
    out.print(f"sample ratio: p = {report.sample_ratio_p:.3f} (chi-square)")
    for effect in report.effects:
        interval = (
            "too few outcomes yet"
            if effect.estimate is None
            else f"{effect.estimate:+.4f} [{effect.low:+.4f}, {effect.high:+.4f}]"
        )
        chance = "" if effect.power is None else f", power {effect.power:.0%}"
        needed = f", needs {effect.needed_users:,} users" if effect.needed_users else ""
        out.print(
            f"{effect.variant}: {interval} in {report.measure}; to find "
            f"{effect.smallest_wanted:.4f}{chance or ': not known yet'}{needed}",
            markup=False,
        )
    for warning in report.warnings:
        err.print(f"[yellow]warning[/]: {warning}")
    out.print(f"picture: {picture}\nverdict: {report.verdict}")


def _ms(seconds: float | None) -> str:
    return f"{1_000 * (seconds or 0):.1f} ms"

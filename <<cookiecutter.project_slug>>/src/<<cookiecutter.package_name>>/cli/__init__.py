"""The commands. Each is a thin layer: options in, one call, a table or a line out."""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError

from ..console import err, out
from ..errors import ProjectError
from ..settings import Settings, environment_file
from . import data, drift, experiment, features, log, pipeline, registry, scoring, serving, training

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich")
app.add_typer(data.commands, name="data")
app.add_typer(features.commands, name="features")
app.command()(training.train)
app.add_typer(pipeline.commands, name="pipeline")
if find_spec(f"{__name__}.registry_link"):  # only some trackers bring it
    import_module(f"{__name__}.registry_link")
app.add_typer(registry.commands, name="registry")
app.add_typer(experiment.commands, name="experiment")
app.add_typer(drift.commands, name="drift")
app.command()(serving.serve)
app.command()(scoring.predict)
app.add_typer(log.commands, name="log")


@app.callback()
def describe() -> None:
    """From data to a served model: data, features, training, registry, server."""


@app.command("settings")
def show_settings() -> None:
    """Print every setting with its default, in the form of a .env file."""
    out.print(environment_file(), end="", markup=False)


@app.command()
def demo(
    customers: Annotated[int, typer.Option(min=200, help="Simulated customers.")] = 3_000,
) -> None:
    """Run the whole loop with simulated customers, in a folder of its own."""
    from ..demo import run

    run(customers)


def main() -> None:
    """Run a command; errors that a user can mend end with a line and exit code 1."""
    if os.getpid() == 1:  # a container's first process is deaf to signals that it does not handle
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
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

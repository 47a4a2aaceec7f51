"""Commands of the feature store."""

from __future__ import annotations

import os
import sys
from datetime import datetime
from typing import Annotated

import typer

from ..console import out
from ..settings import Settings

commands = typer.Typer(no_args_is_help=True, help="Compute, register and publish features.")


@commands.command("build")
def features_build() -> None:
    """Compute the features and labels of all training examples, and the features as of now.

    Example: features build
    """
    from ..features import build

    built = build(Settings())
    kept = "" if built.sampled_share == 1 else f" (a sample of {built.sampled_share:.1%})"
    out.print(
        f"{built.examples:,} examples{kept} at {built.instants - 1} times, "
        f"{built.entities_now:,} entities as of now\nnext: features materialize"
    )


@commands.command("apply")
def features_apply() -> None:
    """Register what feature_repo/ declares; `features build` does so too.

    Example: features apply
    """
    from ..feature_store import apply

    for change in apply(Settings()) or ["nothing changed"]:
        out.print(change, markup=False)
    out.print("next: features materialize")


@commands.command("materialize")
def features_materialize(
    incremental: Annotated[
        bool, typer.Option("--incremental", help="Only what is new since the last time.")
    ] = False,
    start: Annotated[
        datetime | None, typer.Option(help="Default: now minus the ttl of data.py.")
    ] = None,
) -> None:
    """Bring the newest features, up to now (ML_AS_OF), into the online store.

    Example: features materialize --incremental
    """
    from ..feature_store import materialize
    from ..served_models import PRODUCTION, read_aliases

    settings = Settings()
    done = materialize(settings, start, incremental)
    serves = PRODUCTION in read_aliases(settings.served_dir)
    following = "serve, then POST /predict with a user_id alone" if serves else "pipeline run"
    out.print(
        f"{done.entities:,} entities: their newest features of "
        f"{done.start:%Y-%m-%d %H:%M} to {done.end:%Y-%m-%d %H:%M} UTC\nnext: {following}"
    )


@commands.command(
    "feast", context_settings={"allow_extra_args": True, "ignore_unknown_options": True}
)
def features_feast(context: typer.Context) -> None:
    """Run a command of Feast's own on this store, such as its feature server.

    Example: features feast serve --port 6566
    """
    from ..feature_store import repo_config, repo_file, variables

    settings = Settings()
    repo_config(settings)
    words = ["--chdir", str(settings.feature_repo_dir)]
    words += ["--feature-store-yaml", str(repo_file(settings)), *context.args]
    program = [sys.executable, "-m", "feast.cli.cli", *words]
    os.execve(program[0], program, variables(settings))  # noqa: S606  # nosec B606

"""Commands of the model server."""

from __future__ import annotations

from typing import Annotated

import typer

from ..settings import Settings, variable_name


def _default(setting: str) -> str:
    default = Settings.model_fields[setting].default
    return f"Default: {variable_name(setting)}, or {default} where it is not set."


def serve(
    host: Annotated[str | None, typer.Option(help=_default("host"))] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65_535, help=_default("port"))] = None,
    workers: Annotated[int | None, typer.Option(min=1, help=_default("workers"))] = None,
) -> None:
    """Answer predictions over HTTP with the model in production.

    Example: serve --port 9000
    """
    from ..serving import serve as run_server

    given = {"host": host, "port": port, "workers": workers}
    run_server(
        Settings().model_copy(update={name: v for name, v in given.items() if v is not None})
    )

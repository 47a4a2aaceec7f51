"""Commands of the model server."""

from __future__ import annotations

from typing import Annotated

import typer

from ..settings import Settings


def serve(
    host: Annotated[str | None, typer.Option(help="Default: ML_HOST.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65_535, help="Default: ML_PORT.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Default: ML_WORKERS.")] = None,
) -> None:
    """Answer predictions over HTTP with the model in production.

    Example: serve --port 9000
    """
    from ..serving import serve as run_server

    given = {"host": host, "port": port, "workers": workers}
    run_server(
        Settings().model_copy(update={name: v for name, v in given.items() if v is not None})
    )

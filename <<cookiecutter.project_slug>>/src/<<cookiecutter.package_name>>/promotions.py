"""Who moved production when and why: an append-only record, and the lock around each move.

Both live behind one database address (``settings.promotions_uri``): an SQLite file serves one
machine, PostgreSQL serves several. A move is written down as intended before the alias changes,
and its outcome afterwards; whoever takes the lock next settles what a kill left in between. The
database itself refuses to change or delete a row of either table.
"""

from __future__ import annotations

import getpass
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from .errors import ProjectError
from .settings import Settings, utc_now

Action = Literal["promote", "force", "rollback"]
INTENDED, DONE, UNDONE = "intended", "done", "undone"
LOCK_SECONDS = 60

metadata = sa.MetaData()
promotions = sa.Table(
    "promotions",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("model", sa.String(255), nullable=False, index=True),
    sa.Column("action", sa.String(16), nullable=False),
    sa.Column("from_version", sa.String(32)),
    sa.Column("to_version", sa.String(32), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("actor", sa.String(255), nullable=False),
    sa.Column("created_at", sa.DateTime, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
)
outcomes = sa.Table(
    "promotion_outcomes",
    metadata,
    sa.Column("move", sa.Integer, sa.ForeignKey(promotions.c.id), primary_key=True),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("actor", sa.String(255), nullable=False),
    sa.Column("created_at", sa.DateTime, nullable=False),
)
REFUSALS = {
    "sqlite": [
        f"CREATE TRIGGER %(table)s_{event} BEFORE {event} ON %(table)s BEGIN "
        "SELECT RAISE(ABORT, '%(table)s is append-only'); END"
        for event in ("UPDATE", "DELETE")
    ],
    "postgresql": [
        "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN RAISE EXCEPTION ''% is append-only'', TG_TABLE_NAME; END'".replace("%", "%%"),
        "CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %(table)s "
        "EXECUTE FUNCTION refuse_change()",
    ],
}
for table in metadata.sorted_tables:
    for dialect, statements in REFUSALS.items():
        for statement in statements:
            refusal = sa.schema.DDL(statement)  # type: ignore[no-untyped-call]
            sa.event.listen(table, "after_create", refusal.execute_if(dialect=dialect))


class PromotionError(ProjectError):
    """Production was not moved; the message says why and what to do."""


@dataclass(frozen=True)
class Move:
    """One line of the record."""

    id: int
    action: Action
    from_version: str | None
    to_version: str
    reason: str
    actor: str
    created_at: datetime
    state: str
    settled_by: str | None


class PromotionRecord:
    """The record of one model's moves; ``locked`` is to be held while production moves."""

    def __init__(self, settings: Settings) -> None:
        self._model = settings.model_name
        self._uri = settings.promotions_uri
        self._actor = settings.actor
        settings.home.mkdir(parents=True, exist_ok=True)
        self._engine = sa.create_engine(self._uri, poolclass=sa.NullPool)
        if not sa.inspect(self._engine).has_table(outcomes.name):
            with self.locked():
                metadata.create_all(self._engine)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of all machines that share the database; a killed holder lets go.

        Raises:
            PromotionError: another move holds the lock for too long.
        """
        if self._engine.dialect.name == "postgresql":
            with self._engine.connect() as connection, connection.begin():
                connection.execute(sa.text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
                with _timeout_named():
                    connection.execute(
                        sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(self._model)))
                    )
                yield
            return
        # SQLite has no advisory locks: the exclusive transaction of a second file is one.
        engine = sa.create_engine(
            f"{self._uri}.lock",
            connect_args={"timeout": LOCK_SECONDS},
            isolation_level="AUTOCOMMIT",
            poolclass=sa.NullPool,
        )
        with engine.connect() as connection:
            with _timeout_named():
                connection.exec_driver_sql("BEGIN EXCLUSIVE")
            yield

    def intend(self, action: Action, from_version: str | None, to_version: str, reason: str) -> int:
        """Write down a move before it is made; returns its number."""
        with self._engine.begin() as connection:
            result = connection.execute(
                promotions.insert().values(
                    model=self._model,
                    action=action,
                    from_version=from_version,
                    to_version=to_version,
                    reason=reason,
                    state=INTENDED,
                    **self._who_and_when(),
                )
            )
            (number,) = result.inserted_primary_key or (0,)
            return int(number)

    def settle(self, number: int, done: bool) -> None:
        """Write down whether an intended move was made."""
        state = DONE if done else UNDONE
        with self._engine.begin() as connection:
            connection.execute(
                outcomes.insert().values(move=number, state=state, **self._who_and_when())
            )

    def moves(self) -> list[Move]:
        """Every move of this model, oldest first."""
        columns = [c for c in promotions.c if c.name not in {"model", "state"}]
        query = (
            sa.select(
                *columns,
                sa.func.coalesce(outcomes.c.state, promotions.c.state).label("state"),
                outcomes.c.actor.label("settled_by"),
            )
            .outerjoin_from(promotions, outcomes)
            .where(promotions.c.model == self._model)
            .order_by(promotions.c.id)
        )
        with self._engine.connect() as connection:
            return [Move(**row) for row in connection.execute(query).mappings()]

    def _who_and_when(self) -> dict[str, Any]:
        return {
            "actor": self._actor or f"{getpass.getuser()}@{platform.node()}",
            "created_at": utc_now(),
        }


def previous_versions(moves: list[Move]) -> list[str]:
    """The versions that rolling back leads through, the present one last.

    A promotion adds its version, a rollback takes the last one away.
    """
    stack: list[str] = []
    for move in moves:
        if move.state != DONE:
            continue
        if move.action == "rollback":
            stack.pop()
        else:
            stack.append(move.to_version)
    return stack


@contextmanager
def _timeout_named() -> Iterator[None]:
    try:
        yield
    except sa.exc.OperationalError as error:
        raise PromotionError(
            f"another promotion holds the lock for more than {LOCK_SECONDS} s ({error.orig}): try "
            "again when it has ended"
        ) from error

from __future__ import annotations

import socket

import psycopg
import pytest
import redis
import sqlalchemy

from .services import Postgres, Service


def test_each_database_is_empty_and_its_own(postgres: Postgres) -> None:
    first, second = (sqlalchemy.create_engine(postgres.database()) for _ in range(2))
    with first.begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE only_in_the_first (n INTEGER)"))
    assert sqlalchemy.inspect(first).get_table_names() == ["only_in_the_first"]
    assert sqlalchemy.inspect(second).get_table_names() == []
    first.dispose()
    second.dispose()


def test_postgres_is_a_server_of_its_own(postgres: Postgres) -> None:
    with postgres.connect() as connection:
        assert isinstance(connection, psycopg.Connection)
        (port,) = connection.execute("SHOW port").fetchone() or (0,)
    assert int(port) == postgres.service.port


def test_redis_stops_and_starts_empty(redis_server: Service) -> None:
    client = redis.Redis(port=redis_server.port)
    client.set("key", "value")
    redis_server.stop()
    with pytest.raises(redis.ConnectionError):
        client.get("key")
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", redis_server.port))
    redis_server.start()
    assert client.get("key") is None

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from <<cookiecutter.package_name>>.online_features import (
    FeastServer,
    NoFeaturesError,
    StoreUnavailableError,
    usable,
)

from .services import free_port

NOW = datetime(2026, 3, 1, 12)
DAY = timedelta(days=1)
ANSWER = {
    "metadata": {"feature_names": ["user_id", "amount", "city"]},
    "results": [
        {"values": ["u"], "event_timestamps": ["1970-01-01T00:00:00Z"]},
        {"values": [2.5], "event_timestamps": ["2026-03-01T11:00:00Z"]},
        {"values": ["Köln"], "event_timestamps": ["2026-03-01T11:00:00.500000000Z"]},
    ],
}


@contextmanager
def http_server(answer: Callable[[], tuple[int, bytes]]) -> Iterator[str]:
    """Answers every POST and closes the connection afterwards, without saying so before."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            status, content = answer()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/feast/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_values_are_usable_within_their_ttl() -> None:
    found = {"amount": (2.5, NOW - DAY), "city": ("", NOW)}
    assert usable(found, DAY, NOW) == {"amount": 2.5, "city": ""}


@pytest.mark.parametrize(
    ("now", "changed", "reason"),
    [
        (NOW + timedelta(seconds=1), {}, r"is of 2026-02-28 12:00, not within 24 hours of now"),
        (NOW - 2 * DAY, {}, r"is of 2026-03-01 12:00, not within 24 hours of now"),
        (NOW, {"city": (None, NOW)}, "holds no city of this user"),
        (NOW, {"city": (None, NOW), "amount": (None, NOW)}, "holds nothing of this user"),
    ],
)
def test_what_cannot_be_used_is_told_with_its_reason(
    now: datetime, changed: dict[str, Any], reason: str
) -> None:
    found = {"amount": (2.5, NOW - DAY), "city": ("", NOW), **changed}
    with pytest.raises(NoFeaturesError, match=reason):
        usable(found, DAY, now)


def test_a_connection_that_was_closed_is_opened_again() -> None:
    with http_server(lambda: (200, json.dumps(ANSWER).encode())) as address:
        source = FeastServer(address, seconds=5)
        for _ in range(3):
            found = source.read("user_id", "u")
    assert found["amount"] == (2.5, datetime(2026, 3, 1, 11))
    assert found["city"][0] == "Köln"
    assert set(found) == {"amount", "city"}


def test_an_error_of_the_feature_server_says_what_it_answered() -> None:
    with (
        http_server(lambda: (404, b"no such service")) as address,
        pytest.raises(StoreUnavailableError, match=r"404.*no such service"),
    ):
        FeastServer(address, seconds=5).read("user_id", "u")


def test_a_feature_server_that_is_away_is_named() -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(StoreUnavailableError, match=address):
        FeastServer(f"http://{address}", seconds=1).read("user_id", "u")

"""The short way through the server: ``POST /predict`` with a valid body, by one plain coroutine.

The contract: whatever it answers, the plain route in routes.py would have answered with the same
status, headers and bytes, but for the request id. Everything else it hands to the application as it
came, the body replayed: invalid values, odd content types, a forced variant, a user id alone, a
body or a load beyond the limits, a wrong key. So each check and each message has one home, the
plain route and its middleware, and here stand only the checks that let a request pass.

While requests come together, they wait for the end of the event loop's next turn and are scored by
one call of the model: a call has its price whatever the number of rows. One that comes alone is
scored at once. A row is written once, into the float32 block that is the model's input, the source
of the metrics and of the prediction log alike.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import Any

import msgspec
import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..schema import NUMBERS, STRINGS, Blocks
from ..settings import Settings
from .compiled import NotTakenError
from .middleware import SECURITY_HEADERS, ApiKeys, Load, request_id_of
from .recorder import Recorder
from .router import Route
from .store import Answer, Lineup, ModelStore, finite_rows

BLOCK_ROWS = 256
# Turns of the event loop with one request each, after which requests no longer wait for others.
TURNS_UNTIL_ALONE = 32
LARGEST_BODY_IN_EVENT_LOOP = 4_096
JSON = (b"content-type", b"application/json")
VARIANT_HEADER = b"x-variant"


class One(msgspec.Struct):
    """The answer to one instance; its fields are those of PredictResponse."""

    prediction: int | float | str
    confidence: float | None
    model_version: str
    variant: str
    request_id: str


class Two(msgspec.Struct):
    """One prediction of a batch."""

    prediction: int | float | str
    confidence: float | None


class Many(msgspec.Struct):
    """The answer to a batch; its fields are those of BatchResponse."""

    model_version: str
    variant: str
    request_id: str
    predictions: list[Two]


encode = msgspec.json.Encoder().encode


class Lane:
    """The rows of one route that wait to be scored and recorded."""

    def __init__(self, lineup: Lineup, route: Route, recorder: Recorder) -> None:
        self.lineup = lineup
        self.route = route
        self.model = lineup.models[route.index]
        self.waiting: asyncio.Future[list[Answer | None]] | None = None
        self.rows = self.scored = 0
        self._recorder = recorder
        self._signature = self.model.metadata.signature
        self._shape = (len(self._signature.classes),) if self._signature.classes else ()
        self._begin()

    def _begin(self) -> None:
        numbers, strings = self._signature.number_names, self._signature.string_names
        self.numbers = np.empty((BLOCK_ROWS, len(numbers)), np.float32)
        self.strings = np.empty((BLOCK_ROWS, len(strings)), object)
        self.rows = self.scored = 0
        self._request_ids: list[str] = []
        self._user_ids: list[str | None] = []
        self._began: list[float] = []
        self._ended: list[float] = []
        self._scores: list[Any] = []

    def add(self, features: Any, request_id: str, user_id: str | None, began: float) -> int:
        """Write a request's row.

        Returns:
            Its place among the rows that wait.

        Raises:
            NotTakenError: a value is not valid.
        """
        if self.rows == BLOCK_ROWS:
            self.flush()
        self.model.compiled.write(features, self.rows, self.numbers, self.strings)
        self._request_ids.append(request_id)
        self._user_ids.append(user_id)
        self._began.append(began)
        self.rows += 1
        return self.rows - self.scored - 1

    def score(self) -> list[Answer | None]:
        """Score what waits; None for a row that the plain route is to answer."""
        first, last = self.scored, self.rows
        self.scored = last
        scorer = self.model.scorer
        try:
            scores = scorer.scores(self._blocks(first, last))
        except Exception:  # the plain route meets it again, and answers and logs it
            scores = np.full((last - first, *self._shape), np.nan, np.float32)
        limit, part = self.model.compiled.limit, 1 if self._shape else 0
        found: list[Any] = scorer.answers(scores)
        answers = [answer if abs(answer[part]) < limit else None for answer in found]
        if None in answers:
            scores[[answer is None for answer in answers]] = np.nan
        self._scores.append(scores)
        self._ended += [perf_counter()] * (last - first)
        return answers

    def answer_waiting(self) -> None:
        """Score what waits and wake whoever waits for it."""
        waiting, self.waiting = self.waiting, None
        if waiting is not None:
            waiting.set_result(self.score())

    def flush(self) -> None:
        """Record the rows and begin anew."""
        self.answer_waiting()
        if not self.rows:
            return
        scores = np.concatenate(self._scores)
        began, ended = np.array(self._began), np.array(self._ended)
        blocks, request_ids, user_ids = (
            self._blocks(0, self.rows),
            self._request_ids,
            self._user_ids,
        )
        finite = finite_rows(scores)
        if not finite.all():
            kept = np.flatnonzero(finite).tolist()
            scores, began, ended = scores[kept], began[kept], ended[kept]
            blocks = {name: block[kept] for name, block in blocks.items()}
            request_ids = [request_ids[row] for row in kept]
            user_ids = [user_ids[row] for row in kept]
        self._begin()
        if request_ids:
            self._recorder.record(
                self.lineup,
                self.route,
                request_ids,
                user_ids,
                began,
                (ended - began).astype(np.float32),
                blocks,
                scores,
                requests=len(request_ids),
            )

    def _blocks(self, first: int, last: int) -> Blocks:
        blocks: Blocks = {}
        if self.numbers.shape[1]:
            blocks[NUMBERS] = self.numbers[first:last]
        if self.strings.shape[1]:
            blocks[STRINGS] = self.strings[first:last]
        return blocks


class FastPath:
    """Answers what it can of ``POST /predict``; ``plain`` is the application."""

    def __init__(
        self,
        plain: ASGIApp,
        settings: Settings,
        store: ModelStore,
        recorder: Recorder,
        keys: ApiKeys,
        load: Load,
    ) -> None:
        self._plain = plain
        self._store = store
        self._recorder = recorder
        self._keys = keys
        self._load = load
        self._most_bytes = settings.max_body_bytes
        self._most_rows = settings.max_batch_rows
        self._lineup: Lineup | None = None
        self._lanes: dict[Route, Lane] = {}
        self._in_turn = 0
        self._crowded_turns = 0
        recorder.sources.append(self.flush)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        began = perf_counter()
        headers = dict(reversed(scope["headers"]))  # of repeated ones the first counts
        lineup = self._store.current
        if lineup is not self._lineup:
            self._follow(lineup)
        if (
            lineup is None
            or headers.get(b"content-type") != b"application/json"
            or VARIANT_HEADER in headers
            or not self._keys.admit(headers)
            or not lineup.is_uniform
            or (size := self._load.take(headers)) is None
        ):
            await self._plain(scope, receive, send)
            return
        request_id = request_id_of(headers)
        message = await receive()
        messages, body = [message], message.get("body", b"")
        try:
            while message.get("more_body") and len(body) <= self._most_bytes:
                message = await receive()
                messages.append(message)
                body += message.get("body", b"")
            if message["type"] != "http.request" or len(body) > self._most_bytes:
                raise NotTakenError
            if len(body) > LARGEST_BODY_IN_EVENT_LOOP:
                request = await run_in_threadpool(lineup.control.compiled.decode, body)
            else:
                request = lineup.control.compiled.decode(body)
            if request.instances is msgspec.UNSET:
                answer = await self._one(lineup, request, request_id, began)
            else:
                answer = await self._many(lineup, request, request_id, began)
        except (NotTakenError, msgspec.MsgspecError, UnicodeDecodeError):
            answer = None
        finally:
            self._load.give_back(size)
        if answer is None:
            await self._plain(scope, _replayed(messages, receive), send)
            return
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [
                    (b"content-length", b"%d" % len(answer)),
                    JSON,
                    (b"x-request-id", request_id.encode()),
                    *SECURITY_HEADERS,
                ],
            }
        )
        await send({"type": "http.response.body", "body": answer})

    def flush(self) -> None:
        """Hand over what is gathered."""
        for lane in self._lanes.values():
            lane.flush()

    def _follow(self, lineup: Lineup | None) -> None:
        self.flush()
        self._lineup, self._lanes = lineup, {}

    async def _one(
        self, lineup: Lineup, request: Any, request_id: str, began: float
    ) -> bytes | None:
        if request.features is msgspec.UNSET:
            return None
        route = lineup.router.route(request.user_id)
        lane = self._lanes.get(route)
        if lane is None or lane.lineup is not lineup:
            if lineup is not self._lineup:
                return None
            lane = self._lanes[route] = Lane(lineup, route, self._recorder)
        place = lane.add(request.features, request_id, request.user_id, began)
        self._in_turn += 1
        if self._in_turn == 1:
            end = self._next_turn if self._crowded_turns else self._end_turn
            asyncio.get_running_loop().call_soon(end)
        if self._crowded_turns or lane.waiting:
            if lane.waiting is None:
                lane.waiting = asyncio.get_running_loop().create_future()
            answers = await lane.waiting
        else:
            answers = lane.score()
        found = answers[place]
        if found is None:
            return None
        return encode(One(*found, lane.model.version, route.variant, request_id))

    def _next_turn(self) -> None:
        asyncio.get_running_loop().call_soon(self._end_turn)

    def _end_turn(self) -> None:
        crowded = self._in_turn > 1
        self._crowded_turns = TURNS_UNTIL_ALONE if crowded else max(0, self._crowded_turns - 1)
        self._in_turn = 0
        for lane in self._lanes.values():
            lane.answer_waiting()

    async def _many(
        self, lineup: Lineup, request: Any, request_id: str, began: float
    ) -> bytes | None:
        if (
            request.features is not msgspec.UNSET
            or request.user_id is not None
            or not 0 < len(request.instances) <= self._most_rows
        ):
            return None
        route = lineup.router.route(None)
        model = lineup.models[route.index]

        def work() -> tuple[Blocks, Any, bytes] | None:
            blocks = model.compiled.blocks(request.instances)
            scores = model.scorer.scores(blocks)
            answers = model.scorer.answers(scores)
            if not (np.abs(scores) < model.compiled.limit).all():
                return None
            many = Many(model.version, route.variant, request_id, [Two(*a) for a in answers])
            return blocks, scores, encode(many)

        found = await run_in_threadpool(work)
        if found is None:
            return None
        blocks, scores, answer = found
        record = self._recorder.record_batch
        asyncio.get_running_loop().call_soon(  # the answer goes first
            record, lineup, route, request_id, began, blocks, scores
        )
        return answer


def _replayed(messages: list[Message], receive: Receive) -> Receive:
    """The messages that were read already, and then what comes."""
    waiting = iter(messages)

    async def replay() -> Message:
        for message in waiting:
            return message
        return await receive()

    return replay

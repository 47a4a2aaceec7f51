"""Reads valid requests by a decoder that is compiled for one model's signature.

What it does not take is not necessarily wrong: rows.py reads it again, and words what is.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from itertools import chain
from operator import itemgetter
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec.structs import astuple
from numpy.typing import NDArray

from ..schema import NUMBERS, STRINGS, Blocks, Signature
from .messages import LONGEST_USER_ID
from .rows import LARGEST

NUMBER = Annotated[float, msgspec.Meta(ge=-LARGEST, le=LARGEST)]
USER_ID = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_USER_ID)]

SAME_IN_PYDANTIC = 1e16  # from here on pydantic writes the exponent of a float with a sign

Values = tuple[Any, ...]


class NotTakenError(Exception):
    """The plain route reads this request."""


class CompiledReader:
    """The requests of one signature, read into its model's input."""

    def __init__(self, signature: Signature) -> None:
        types: list[Any] = [str if f.type == "string" else NUMBER for f in signature.features]
        positions = dict(zip(signature.names, range(len(types)), strict=True))
        named = msgspec.defstruct(
            "Named",
            [(f"f{index}", kind) for index, kind in enumerate(types)],
            rename={f"f{index}": name for name, index in positions.items()},
            forbid_unknown_fields=True,
        )
        row: Any = named | tuple.__class_getitem__(tuple(types))
        request = msgspec.defstruct(
            "Request",
            [
                ("features", row | msgspec.UnsetType, msgspec.UNSET),
                ("instances", list[row] | msgspec.UnsetType, msgspec.UNSET),
                ("user_id", USER_ID | None, None),
            ],
            forbid_unknown_fields=True,
        )
        self.decode: Callable[[bytes], Any] = msgspec.json.Decoder(request).decode
        self.numbers = _picker([positions[name] for name in signature.number_names])
        self.strings = _picker([positions[name] for name in signature.string_names])
        self.limit = np.float32(np.inf if signature.classes else SAME_IN_PYDANTIC)
        self._whole = [positions[f.name] for f in signature.features if f.type == "int"]
        self._pack = struct.Struct(f"={len(signature.number_names)}f").pack_into
        self._only_numbers = not signature.string_names
        self._names = signature.number_names, signature.string_names

    def write(self, features: Any, row: int, numbers: NDArray[np.float32], strings: Any) -> None:
        """Put one request's features into a row of a model's input.

        Raises:
            NotTakenError: a number must be whole.
        """
        values: Values = features if type(features) is tuple else astuple(features)
        for place in self._whole:
            if not values[place].is_integer():
                raise NotTakenError
        if self._only_numbers:
            self._pack(numbers.data, row * numbers.strides[0], *values)
            return
        strings[row] = self.strings(values)
        if numbers.size:
            self._pack(numbers.data, row * numbers.strides[0], *self.numbers(values))

    def blocks(self, instances: Sequence[Any]) -> Blocks:
        """Arrange a batch as a model's input.

        Raises:
            NotTakenError: a number must be whole.
        """
        rows = [row if type(row) is tuple else astuple(row) for row in instances]
        blocks: Blocks = {}
        number_names, string_names = self._names
        if any(not row[place].is_integer() for place in self._whole for row in rows):
            raise NotTakenError
        if number_names:
            values = chain.from_iterable(map(self.numbers, rows))
            numbers = np.fromiter(values, np.float32, len(rows) * len(number_names))
            blocks[NUMBERS] = numbers.reshape(len(rows), -1)
        if string_names:
            strings = np.empty((len(rows), len(string_names)), object)
            strings[:] = list(map(self.strings, rows))
            blocks[STRINGS] = strings
        return blocks


def _picker(places: list[int]) -> Callable[[Values], Values]:
    if len(places) == 1:
        (place,) = places
        return lambda values: (values[place],)
    return itemgetter(*places) if places else lambda _: ()

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from <<cookiecutter.package_name>>.schema import NUMBERS, STRINGS, Feature, Signature

AMOUNT = Feature(name="amount")
VISITS = Feature(name="visits", type="int")
CITY = Feature(name="city", type="string")


def signature(*features: Feature, **changes: Any) -> Signature:
    values = {"task": "binary", "label": "buys", "classes": (0, 1), **changes}
    return Signature(features=features, **values)


@pytest.mark.parametrize("name", ["", "Amount", "1st", "a b", "a-b", "_a", "é", "x" * 64])
def test_a_feature_name_is_a_plain_word(name: str) -> None:
    with pytest.raises(ValidationError, match="name"):
        Feature(name=name)


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(ValidationError, match="'float', 'int' or 'string'"):
        Feature(name="a", type="bool")


@pytest.mark.parametrize(
    ("features", "changes", "words"),
    [
        ((), {}, "at least 1"),
        ((AMOUNT, VISITS, AMOUNT), {}, "named twice: amount"),
        ((AMOUNT,), {"label": "amount"}, "the label 'amount' is also a feature"),
        ((AMOUNT,), {"classes": ()}, "a binary task cannot have the classes"),
        ((AMOUNT,), {"classes": (0, 1, 2)}, "a binary task needs two classes"),
        ((AMOUNT,), {"task": "regression"}, "a regression task cannot have the classes"),
        ((AMOUNT,), {"task": "ranking"}, "'binary', 'multiclass' or 'regression'"),
    ],
)
def test_a_signature_that_contradicts_itself_is_refused(
    features: tuple[Feature, ...], changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        signature(*features, **changes)


def test_names_are_split_by_kind_in_their_order() -> None:
    mixed = signature(CITY, VISITS, Feature(name="tier", type="string"), AMOUNT)
    assert mixed.names == ("city", "visits", "tier", "amount")
    assert mixed.number_names == ("visits", "amount")
    assert mixed.string_names == ("city", "tier")


def test_blocks_follow_the_signature_whatever_the_order_of_the_columns() -> None:
    mixed = signature(CITY, VISITS, AMOUNT)
    columns = {"amount": [0.5, 1.5], "city": ["a", "b"], "visits": [1, 2], "other": [7, 8]}
    blocks = mixed.blocks(columns)
    assert blocks.keys() == {NUMBERS, STRINGS}
    assert blocks[NUMBERS].dtype == np.float32
    assert blocks[NUMBERS].tolist() == [[1.0, 0.5], [2.0, 1.5]]
    assert blocks[STRINGS].dtype == object
    assert blocks[STRINGS].tolist() == [["a"], ["b"]]


def test_a_block_without_columns_is_left_out() -> None:
    assert signature(AMOUNT).blocks({"amount": [1.0]}).keys() == {NUMBERS}
    assert signature(CITY).blocks({"city": ["a"]}).keys() == {STRINGS}


def test_a_signature_survives_json() -> None:
    text = signature(AMOUNT, CITY, classes=("no", "yes")).model_dump_json()
    assert Signature.model_validate_json(text).classes == ("no", "yes")
    assert Signature.model_validate_json(text).model_dump_json() == text

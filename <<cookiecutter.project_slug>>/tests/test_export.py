from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from <<cookiecutter.package_name>>.bundle import Scorer
from <<cookiecutter.package_name>>.export import ExportError, estimator_scores, to_onnx
from <<cookiecutter.package_name>>.schema import NUMBERS, Feature, Signature

AGE, INCOME = Feature(name="age", type="int"), Feature(name="income")
CITY, PLAN = Feature(name="city", type="string"), Feature(name="plan", type="string")
ENCODED = [("text", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["city", "plan"])]
SCALED = [("scaled", StandardScaler(), ["income"])]

CASES: dict[str, tuple[tuple[Feature, ...], tuple[Any, ...], Any]] = {
    "numbers, boosting": ((AGE, INCOME), (0, 1), HistGradientBoostingClassifier(max_iter=20)),
    "numbers, forest": ((AGE, INCOME), ("a", "b", "c"), RandomForestClassifier(20, max_depth=5)),
    "numbers, columns by name": (
        (AGE, INCOME),
        (0, 1),
        make_pipeline(ColumnTransformer(SCALED, remainder="passthrough"), LogisticRegression()),
    ),
    "numbers and text": (
        (CITY, AGE, PLAN, INCOME),
        (3, 5, 9),
        make_pipeline(
            ColumnTransformer(ENCODED, remainder="passthrough"),
            HistGradientBoostingClassifier(max_iter=20),
        ),
    ),
    "text alone": (
        (CITY, PLAN),
        ("no", "yes"),
        make_pipeline(ColumnTransformer(ENCODED), LogisticRegression()),
    ),
    "regression": ((AGE, INCOME), (), HistGradientBoostingRegressor(max_iter=20)),
    "regression on text": (
        (CITY, PLAN, INCOME),
        (),
        make_pipeline(ColumnTransformer([*SCALED, *ENCODED]), Ridge()),
    ),
}


def rows(count: int) -> pd.DataFrame:
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": random.integers(18, 90, count).astype("float32"),
            "income": random.lognormal(8, 1, count).astype("float32"),
            "city": random.choice(["köln", "paris", ""], count),
            "plan": random.choice(["basic", "pro"], count),
        }
    )


@pytest.mark.parametrize("case", CASES)
def test_the_export_answers_as_the_estimator_does(case: str) -> None:
    features, classes, estimator = CASES[case]
    tasks = {0: "regression", 2: "binary", 3: "multiclass"}
    signature = Signature.model_validate(
        {"task": tasks[len(classes)], "label": "y", "features": features, "classes": classes}
    )
    train = rows(600)
    random = np.random.default_rng(1)
    y = random.choice(classes, 600) if classes else train["income"].to_numpy() / 1_000
    estimator.fit(train[list(signature.names)], y)
    test = rows(900).assign(city="somewhere new")
    exported = Scorer(to_onnx(estimator, signature), signature).scores(signature.blocks(test))
    own = estimator_scores(estimator, signature, test)
    assert exported.shape == own.shape == ((900, len(classes)) if classes else (900,))
    np.testing.assert_allclose(exported, own, atol=1e-5, rtol=1e-5)


class NoConverter(ClassifierMixin, BaseEstimator):
    """An estimator that nobody taught skl2onnx to export."""


def test_an_estimator_without_a_conversion_is_named() -> None:
    signature = Signature(task="binary", label="y", features=(AGE,), classes=(0, 1))
    with pytest.raises(ExportError, match=r"NoConverter cannot be exported to ONNX.*model\.py"):
        to_onnx(NoConverter(), signature)


class Logistic(LogisticRegression):
    """Exports itself, as an estimator of another library would."""

    reads = NUMBERS

    def to_onnx(self, signature: Signature) -> bytes:
        plain = LogisticRegression()
        plain.__dict__ |= self.__dict__
        model = onnx.load_from_string(to_onnx(plain, signature))
        onnx.compose.add_prefix_graph(model.graph, "own/", rename_inputs=False, inplace=True)
        model.graph.input[0].name = self.reads
        for node in model.graph.node:
            node.input[:] = [self.reads if name == NUMBERS else name for name in node.input]
        return model.SerializeToString()


def test_an_estimator_may_export_itself() -> None:
    signature = Signature(task="binary", label="buys", features=(AGE, INCOME), classes=(0, 1))
    rows = pd.DataFrame({"age": [20, 30, 40, 50], "income": [1.0, 3.0, 2.0, 5.0]}, dtype=np.float32)
    fitted = Logistic().fit(rows, [0, 1, 0, 1])
    scores = Scorer(to_onnx(fitted, signature), signature).scores(signature.blocks(rows))
    np.testing.assert_allclose(scores, estimator_scores(fitted, signature, rows), atol=1e-6)
    fitted.reads = "features"
    with pytest.raises(ExportError, match=r"Logistic.to_onnx\(\) reads features: it must read nu"):
        to_onnx(fitted, signature)

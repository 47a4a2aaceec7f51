"""From a fitted estimator to an ONNX graph with the inputs that bundle.py describes."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline

from .errors import ProjectError
from .schema import NUMBERS, STRINGS, Signature

if TYPE_CHECKING:
    import onnx


class ExportError(ProjectError):
    """The estimator cannot be exported, or its export does not agree with it."""


def to_onnx(estimator: BaseEstimator, signature: Signature) -> bytes:
    """Export a fitted estimator: by its own ``to_onnx(signature)``, where it has one, or skl2onnx.

    Raises:
        ExportError: skl2onnx knows no conversion for it, or its own does not read the blocks.
    """
    if own := getattr(estimator, "to_onnx", None):
        return _checked(own(signature), type(estimator).__name__, signature)
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    by_column = bool(signature.string_names) or _selects_columns(estimator)
    inputs: list[tuple[str, Any]] = [(NUMBERS, FloatTensorType([None, len(signature.features)]))]
    if by_column:
        inputs = [
            (f.name, (StringTensorType if f.type == "string" else FloatTensorType)([None, 1]))
            for f in signature.features
        ]
    options = {} if signature.task == "regression" else {"zipmap": False}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = convert_sklearn(estimator, initial_types=inputs, options=options)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ExportError(
            f"{type(estimator).__name__} cannot be exported to ONNX ({reason}): "
            "choose an estimator that skl2onnx supports in model.py"
        ) from error
    if by_column:
        _take_blocks(graph, signature)
    serialized: bytes = graph.SerializeToString()
    return serialized


def estimator_scores(
    estimator: Any, signature: Signature, features: pd.DataFrame
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """What the estimator itself answers: (n, classes) probabilities or (n,) values."""
    columns = features[list(signature.names)]
    if signature.task == "regression":
        return np.asarray(estimator.predict(columns), np.float64).reshape(-1)
    return np.asarray(estimator.predict_proba(columns), np.float64)


def _checked(model: bytes, name: str, signature: Signature) -> bytes:
    import onnx

    read = [graph_input.name for graph_input in onnx.load_from_string(model).graph.input]
    wanted = [NUMBERS] * bool(signature.number_names) + [STRINGS] * bool(signature.string_names)
    if sorted(read) != wanted:
        raise ExportError(
            f"the graph of {name}.to_onnx() reads {', '.join(read) or 'nothing'}: it must read "
            f"{' and '.join(wanted)}, as bundle.py describes them"
        )
    return model


def _selects_columns(estimator: BaseEstimator) -> bool:
    """Whether the estimator names columns, which a single input matrix does not have."""
    if isinstance(estimator, Pipeline):
        return any(_selects_columns(step) for _, step in estimator.steps)
    return isinstance(estimator, ColumnTransformer)


def _take_blocks(graph: onnx.ModelProto, signature: Signature) -> None:
    """Pick columns in front, so that the graph reads a block instead of one input a feature.

    Gather means the same in every version of the operators; skl2onnx takes the oldest that does.
    """
    import onnx

    blocks = (
        (NUMBERS, signature.number_names, onnx.TensorProto.FLOAT),
        (STRINGS, signature.string_names, onnx.TensorProto.STRING),
    )
    del graph.graph.input[:]
    for block, names, element in blocks:
        if not names:
            continue
        shape = [None, len(names)]
        graph.graph.input.append(onnx.helper.make_tensor_value_info(block, element, shape))
        for index, name in enumerate(names):
            position = onnx.numpy_helper.from_array(np.array([index]), f"{block}/{index}")
            graph.graph.initializer.append(position)
            node = onnx.helper.make_node("Gather", [block, position.name], [name], axis=1)
            graph.graph.node.insert(0, node)
    onnx.checker.check_model(graph)

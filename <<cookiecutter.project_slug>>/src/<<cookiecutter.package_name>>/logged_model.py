"""A trained model in MLflow's own form, so that ``mlflow.pyfunc.load_model`` can use it.

The model is of MLflow's ONNX flavour and carries the bundle that the server loads among its files::

    model.onnx                         reads one column per feature, answers one column per field
    extra_files/bundle/                the bundle
    extra_files/evaluation.parquet     hold-out rows
    extra_files/reports/               pictures and tables, for the model card
    verdicts/                          added by the gate, one for each time it judged
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .bundle import Bundle, read_bundle
from .mlflow_client import mlflow
from .schema import NUMBERS, STRINGS, ClassLabel, Feature, FeatureType, Signature
from .trained_model import BUNDLE_FOLDER, EVALUATION_FILE, REPORTS_FOLDER

if TYPE_CHECKING:
    import pandas as pd

BUNDLE_PATH = f"extra_files/{BUNDLE_FOLDER}"
EVALUATION_PATH = f"extra_files/{EVALUATION_FILE}"
REPORTS_PATH = f"extra_files/{REPORTS_FOLDER}"

EXAMPLE_ROWS = 5
PREFIX = "bundle/"
TOP_K_READS_K = 10  # the version of ONNX's operators since which k is an input
PACKAGES = ("mlflow", "numpy", "onnx", "onnxruntime", "pandas")

ONNX_TYPES: dict[FeatureType, int] = {
    "float": TensorProto.FLOAT,
    "int": TensorProto.INT64,
    "string": TensorProto.STRING,
}
MLFLOW_TYPES: dict[FeatureType, str] = {"float": "double", "int": "long", "string": "string"}
PANDAS_TYPES: dict[FeatureType, str] = {"float": "float64", "int": "int64", "string": "object"}


def log_model(folder: Path, input_example: pd.DataFrame) -> str:
    """Store a trained model's folder as an MLflow model of the connected store.

    Inside an MLflow run the model belongs to the run, otherwise to the experiment alone.

    Args:
        folder: see ``trained_model``.
        input_example: rows with every feature; the first few are kept.

    Returns:
        Its ``models:/m-...`` address, which the registry can take up.

    Raises:
        BundleError: the bundle is not intact.
        ValueError: the example lacks a feature.
    """
    bundle = read_bundle(folder / BUNDLE_FOLDER)
    info = mlflow.onnx.log_model(
        column_graph(bundle),
        name="model",
        signature=mlflow_signature(bundle.signature),
        input_example=typed_rows(input_example.head(EXAMPLE_ROWS), bundle.signature),
        metadata=bundle.metadata.model_dump(mode="json"),
        extra_files=[
            str(folder / name)
            for name in (BUNDLE_FOLDER, EVALUATION_FILE, REPORTS_FOLDER)
            if (folder / name).exists()
        ],
        pip_requirements=[f"{package}=={version(package)}" for package in PACKAGES],
        onnx_execution_providers=["CPUExecutionProvider"],
        save_as_external_data=False,
    )
    return str(info.model_uri)


def mlflow_signature(signature: Signature) -> Any:
    """Say in MLflow's terms which columns the model reads and answers.

    Returns:
        An ``mlflow.models.ModelSignature``.
    """
    column = mlflow.types.ColSpec
    inputs = [column(MLFLOW_TYPES[feature.type], feature.name) for feature in signature.features]
    if signature.task == "regression":
        outputs = [column("float", "prediction")]
    else:
        label = "string" if isinstance(signature.classes[0], str) else "long"
        outputs = [column(label, "prediction"), column("float", "confidence")]
    schema = mlflow.types.Schema
    return mlflow.models.ModelSignature(inputs=schema(inputs), outputs=schema(outputs))


def typed_rows(rows: pd.DataFrame, signature: Signature) -> pd.DataFrame:
    """Select the features, in order, with the types that the model's MLflow signature demands.

    Raises:
        ValueError: a feature is missing.
    """
    missing = [name for name in signature.names if name not in rows.columns]
    if missing:
        raise ValueError(
            f"the rows have no column {', '.join(missing)}; they have {', '.join(rows.columns)}: "
            "give every feature of the model"
        )
    types = {feature.name: PANDAS_TYPES[feature.type] for feature in signature.features}
    return rows[list(signature.names)].astype(types)


def column_graph(bundle: Bundle) -> onnx.ModelProto:
    """Wrap a bundle's graph so that it reads columns and answers columns.

    MLflow feeds the ONNX flavour one column per input (the whole frame when there is one input) and
    flattens each output into a column of the answer.

    Returns:
        A graph with an input for each feature and the outputs ``prediction`` (n,) and, for a
        classification, ``confidence`` (n,): the same as the bundle's ``Scorer`` answers.
    """
    signature = bundle.signature
    # The prefix keeps a feature's name from meeting a name inside the model.
    model = onnx.compose.add_prefix(onnx.load_from_string(bundle.model), prefix=PREFIX)
    graph = model.graph
    scores = graph.output[-1].name
    nodes = [
        *_columns_to_blocks(signature.features),
        *graph.node,
        *_scores_to_columns(scores, signature, _operator_version(model)),
    ]
    constants = {
        "to/column": np.array([-1, 1], np.int64),
        "to/flat": np.array([-1], np.int64),
        "to/one": np.array([1], np.int64),
        "to/classes": _labels(signature.classes),
    }
    graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in constants.items()
    )
    for field, content in (
        (graph.node, nodes),
        (graph.input, _inputs(signature.features)),
        (graph.output, _outputs(signature)),
    ):
        del field[:]
        field.extend(content)
    onnx.checker.check_model(model)
    return model


def _inputs(features: tuple[Feature, ...]) -> list[Any]:
    shape = [None, 1] if len(features) == 1 else [None]
    return [
        helper.make_tensor_value_info(feature.name, ONNX_TYPES[feature.type], shape)
        for feature in features
    ]


def _columns_to_blocks(features: tuple[Feature, ...]) -> list[Any]:
    nodes = []
    blocks: dict[str, list[str]] = {}
    for feature in features:
        column = f"column/{feature.name}"
        nodes.append(helper.make_node("Reshape", [feature.name, "to/column"], [column]))
        if feature.type == "int":
            nodes.append(
                helper.make_node("Cast", [column], [f"{column}/float"], to=TensorProto.FLOAT)
            )
            column = f"{column}/float"
        blocks.setdefault(STRINGS if feature.type == "string" else NUMBERS, []).append(column)
    for block, columns in blocks.items():
        nodes.append(helper.make_node("Concat", columns, [PREFIX + block], axis=1))
    return nodes


def _scores_to_columns(scores: str, signature: Signature, operators: int) -> list[Any]:
    make = helper.make_node
    cast = make("Cast", [scores], ["scores/float"], to=TensorProto.FLOAT)
    if signature.task == "regression":
        return [cast, make("Reshape", ["scores/float", "to/flat"], ["prediction"])]
    best = ["scores/best", "scores/which"]
    return [
        cast,
        make("TopK", ["scores/float", "to/one"], best, axis=1)
        if operators >= TOP_K_READS_K
        else make("TopK", ["scores/float"], best, axis=1, k=1),
        make("Reshape", ["scores/best", "to/flat"], ["confidence"]),
        make("Reshape", ["scores/which", "to/flat"], ["scores/index"]),
        make("Gather", ["to/classes", "scores/index"], ["prediction"]),
    ]


def _operator_version(model: onnx.ModelProto) -> int:
    return int(max(o.version for o in model.opset_import if o.domain in ("", "ai.onnx")))


def _outputs(signature: Signature) -> list[Any]:
    make = helper.make_tensor_value_info
    if signature.task == "regression":
        return [make("prediction", TensorProto.FLOAT, [None])]
    label = TensorProto.STRING if isinstance(signature.classes[0], str) else TensorProto.INT64
    return [make("prediction", label, [None]), make("confidence", TensorProto.FLOAT, [None])]


def _labels(classes: tuple[ClassLabel, ...]) -> Any:
    return np.array(classes, object if classes and isinstance(classes[0], str) else np.int64)

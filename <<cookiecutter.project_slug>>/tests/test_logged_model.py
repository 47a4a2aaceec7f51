from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
from pydantic import ValidationError

from <<cookiecutter.package_name>>.bundle import read_bundle
from <<cookiecutter.package_name>>.logged_model import (
    BUNDLE_PATH,
    EVALUATION_PATH,
    column_graph,
    log_model,
    typed_rows,
)
from <<cookiecutter.package_name>>.mlflow_client import connect, mlflow
from <<cookiecutter.package_name>>.schema import Feature, Signature
from <<cookiecutter.package_name>>.settings import Settings

from .trained import SIGNATURES, Trained, sample_rows, write_trained_model

NAME = "sample-model"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Any:
    home = tmp_path_factory.mktemp("a home with spaces")
    client = connect(Settings(home=home, model_name=NAME))
    client.create_registered_model(NAME)
    return client


@pytest.fixture(scope="module", params=SIGNATURES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return write_trained_model(tmp_path_factory.mktemp("model") / "trained", request.param)


@pytest.fixture(scope="module")
def version(client: Any, trained: Trained) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        warnings.simplefilter("error", FutureWarning)
        uri = log_model(trained.folder, trained.rows)
    created = client.create_model_version(NAME, uri, model_id=uri.removeprefix("models:/"))
    client.set_registered_model_alias(NAME, "production", created.version)
    return str(created.version)


def test_production_answers_as_the_server_would(trained: Trained, version: str) -> None:
    signature = trained.bundle.signature
    rows = sample_rows(signature, count=200, seed=1)
    scorer = trained.bundle.scorer()
    expected = scorer.answers(scorer.scores(signature.blocks(rows)))

    loaded = mlflow.pyfunc.load_model(f"models:/{NAME}@production")
    answer = loaded.predict(typed_rows(rows, signature)[::-1])[::-1]

    assert version
    predictions, confidences = zip(*expected, strict=True)
    if signature.task == "regression":
        assert list(answer) == ["prediction"]
        np.testing.assert_allclose(answer["prediction"], predictions, rtol=1e-5, atol=1e-6)
    else:
        assert list(answer) == ["prediction", "confidence"]
        assert tuple(answer["prediction"].tolist()) == predictions
        assert set(predictions) == set(signature.classes)
        np.testing.assert_allclose(answer["confidence"], confidences, rtol=1e-5)


def test_the_files_of_a_version_hold_the_bundle(trained: Trained, version: str) -> None:
    files = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}/{version}"))

    assert read_bundle(files / BUNDLE_PATH) == trained.bundle
    stored = pd.read_parquet(files / EVALUATION_PATH)
    pd.testing.assert_frame_equal(stored, pd.read_parquet(trained.folder / "evaluation.parquet"))
    assert {path.name for path in files.iterdir()} >= {"model.onnx", "MLmodel", "requirements.txt"}


def test_the_bundle_can_be_fetched_alone(trained: Trained, version: str, tmp_path: Path) -> None:
    uri = f"models:/{NAME}/{version}/{BUNDLE_PATH}"
    fetched = mlflow.artifacts.download_artifacts(uri, dst_path=str(tmp_path))

    assert read_bundle(Path(fetched)) == trained.bundle
    assert not list(tmp_path.rglob("*.parquet"))


def test_signature_example_metadata_and_requirements_are_stored(
    trained: Trained, version: str
) -> None:
    signature = trained.bundle.signature
    info = mlflow.models.get_model_info(f"models:/{NAME}/{version}")
    types = {"float": "double", "int": "long", "string": "string"}

    assert [(column.name, column.type.name) for column in info.signature.inputs.inputs] == [
        (feature.name, types[feature.type]) for feature in signature.features
    ]
    assert info.signature.outputs.input_names()[0] == "prediction"
    assert info.metadata == trained.bundle.metadata.model_dump(mode="json")
    files = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}/{version}"))
    requirements = (files / "requirements.txt").read_text().split()
    assert f"onnxruntime=={onnxruntime.__version__}" in requirements
    assert f"mlflow=={mlflow.__version__}" in requirements
    loaded = mlflow.pyfunc.load_model(f"models:/{NAME}/{version}")
    example = typed_rows(trained.rows.head(5), signature)
    pd.testing.assert_frame_equal(
        loaded.input_example, example.reset_index(drop=True), check_dtype=False
    )
    assert len(loaded.predict(loaded.input_example)) == 5


def test_a_feature_may_have_the_name_of_something_in_the_graph(tmp_path: Path) -> None:
    trained = write_trained_model(tmp_path / "trained", "binary")
    output = onnx.load_from_string(trained.bundle.model).graph.output[-1].name
    signature = Signature(
        task="binary",
        label="buys",
        features=(Feature(name="numbers"), Feature(name=output, type="int")),
        classes=(0, 1),
    )
    metadata = trained.bundle.metadata.model_copy(update={"signature": signature})
    bundle = trained.bundle.model_copy(update={"metadata": metadata})
    columns = {"numbers": trained.rows["amount"], output: trained.rows["visits"].astype(int)}

    session = onnxruntime.InferenceSession(column_graph(bundle).SerializeToString())
    prediction, _ = session.run(None, {name: c.to_numpy() for name, c in columns.items()})

    scorer = bundle.scorer()
    expected = scorer.answers(scorer.scores(signature.blocks(columns)))
    assert prediction.tolist() == [label for label, _ in expected]


@pytest.mark.parametrize("name", ["prediction", "confidence"])
def test_a_feature_may_not_have_the_name_of_an_answer(name: str) -> None:
    with pytest.raises(ValidationError, match=f"'{name}' is a field of the answer"):
        Signature(task="regression", label="spend", features=(Feature(name=name),))


@pytest.mark.parametrize("classes", [(0, "yes"), ("no", "no")])
def test_classes_of_two_types_or_twice_the_same_are_refused(classes: tuple[int | str, ...]) -> None:
    with pytest.raises(ValidationError, match="classes must differ and be of one type"):
        Signature(task="binary", label="buys", features=(Feature(name="a"),), classes=classes)


@pytest.mark.parametrize("operators", [9, 18, 22])
def test_equal_probabilities_give_the_first_class(tmp_path: Path, operators: int) -> None:
    trained = write_trained_model(tmp_path / "trained", "whole numbers")
    bundle = trained.bundle.model_copy(update={"model": _always_a_third(operators)})
    columns = {name: np.arange(50) for name in bundle.signature.names}

    session = onnxruntime.InferenceSession(column_graph(bundle).SerializeToString())
    prediction, confidence = session.run(None, columns)

    assert set(prediction.tolist()) == {10}
    assert set(confidence.tolist()) == {np.float32(1 / 3)}
    scorer = bundle.scorer()
    answers = scorer.answers(scorer.scores(bundle.signature.blocks(columns)))
    assert {label for label, _ in answers} == {10}


def _always_a_third(operators: int) -> bytes:
    helper, number = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["numbers", "nothing"], ["zeros"]),
            helper.make_node("Add", ["zeros", "third"], ["scores"]),
        ],
        "even",
        [helper.make_tensor_value_info("numbers", number, [None, 2])],
        [helper.make_tensor_value_info("scores", number, [None, 3])],
        [
            onnx.numpy_helper.from_array(np.zeros((2, 3), np.float32), "nothing"),
            onnx.numpy_helper.from_array(np.full(3, 1 / 3, np.float32), "third"),
        ],
    )
    opsets = [helper.make_opsetid("", operators)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return bytes(model.SerializeToString())


def test_rows_without_a_feature_are_named() -> None:
    rows = pd.DataFrame({"amount": [1.0]})
    with pytest.raises(ValueError, match=r"no column visits; they have amount"):
        typed_rows(rows, SIGNATURES["binary"])


def test_pyfunc_refuses_what_the_signature_does_not_allow(trained: Trained, version: str) -> None:
    loaded = mlflow.pyfunc.load_model(f"models:/{NAME}/{version}")
    rows = typed_rows(trained.rows, trained.bundle.signature)
    wrong = rows.drop(columns=trained.bundle.signature.names[0])
    with pytest.raises(mlflow.exceptions.MlflowException, match="missing inputs"):
        loaded.predict(wrong)

"""The components of the pipeline: what Kubeflow runs in containers, and kfp.local as processes.

kfp sends the text of each function to where it runs, so each imports what it needs by its full
name from the package, which the steps' image holds. Everything that does work is in steps.py.
"""

from kfp.dsl import Dataset, Input, Metrics, Model, Output


def prepare_data(as_of: str, stamp: str, raw: Output[Dataset]) -> str:
    """Take a copy of the raw data and fix what counts as now; ``stamp`` says which data it is."""
    from <<cookiecutter.package_name>> import steps

    raw.metadata["stamp"] = stamp
    return steps.prepare_data(as_of, raw.path)


def build_features(raw: Input[Dataset], as_of: str, code: str, frame: Output[Dataset]) -> None:
    """Compute features and labels and join them as they were known at each example's instant."""
    from <<cookiecutter.package_name>> import steps

    frame.metadata["code"] = code
    frame.metadata["rows"] = steps.build_features(raw.path, as_of, frame.path)


def check_data(
    raw: Input[Dataset], frame: Input[Dataset], as_of: str, code: str, checks: Output[Metrics]
) -> None:
    """Stop the run where the data is not fit to train on."""
    from <<cookiecutter.package_name>> import steps

    steps.log(checks, steps.check_data(raw.path, frame.path, as_of))
    checks.metadata.update(as_of=as_of, code=code)


def train_candidate(
    frame: Input[Dataset],
    checks: Input[Metrics],
    parameters: dict,  # type: ignore[type-arg]
    metrics: Output[Metrics],
) -> dict:  # type: ignore[type-arg]
    """Train one candidate on each fold's past and measure it on the fold."""
    from <<cookiecutter.package_name>> import steps

    tried = steps.train_candidate(frame.path, checks.metadata["as_of"], parameters)
    steps.log(metrics, {"score": tried["score"]})
    return tried


def evaluate(
    frame: Input[Dataset],
    as_of: str,
    tried: list,  # type: ignore[type-arg]
    model: Output[Model],
    metrics: Output[Metrics],
) -> None:
    """Fit the best candidate on everything before the hold-out and judge it on the hold-out."""
    from <<cookiecutter.package_name>> import steps

    steps.log(metrics, steps.evaluate(frame.path, as_of, tried, model.path))


def compare(model: Input[Model], metrics: Output[Metrics]) -> str:
    """Hold a trained model against the baseline and production; ``yes`` if it is better."""
    from <<cookiecutter.package_name>> import steps

    gains = steps.compare(model.path)
    steps.log(metrics, gains)
    return "yes" if steps.is_better(gains) else "no"


def register(model: Input[Model]) -> str:
    """Register a model with the gate's verdict; returns its version."""
    from <<cookiecutter.package_name>> import steps

    return steps.register(model.path)

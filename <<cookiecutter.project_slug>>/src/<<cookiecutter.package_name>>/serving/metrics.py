"""What Prometheus scrapes: latency, predictions, features and reloads.

Every label comes from a bundle, the experiment or this code, never from a request.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from ..bundle import Profile
from ..prediction_log import LoggedRows, SegmentWriter
from ..schema import NUMBERS, STRINGS, Blocks, Signature

if TYPE_CHECKING:
    from .store import Lineup, ServedModel

LATENCY_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
LATENCY_NAME = "model_prediction_latency_seconds"
MODELS_KEPT = 1
REGRESSION_OUTCOME = "value"
OTHER = "other"


class ServerMetrics:
    """The metrics of one application, in a registry of its own.

    - ``model_prediction_latency_seconds``: checking and scoring one request that was answered.
    - ``model_prediction_total{model_version, outcome}``: predictions; the outcome is the predicted
      class, or ``value`` in a regression.
    - ``model_prediction_errors_total{status}``: requests to predict that were refused, by status.
    - ``model_feature_value{model_version, feature_name}``: histogram over the bins of the
      hold-out's profile; ``model_feature_category_total{model_version, feature_name, category}``:
      the profile's categories, all others together as ``other``. The current model's and the one
      before it.
    - ``model_info{model_name, model_version, estimator}``: 1 for the model that is loaded.
    - ``model_variant_info{experiment, variant, model_version}``: 1 for each variant that answers.
    - ``model_requests_in_flight``: requests that are under way.
    - ``model_reloads_total{result}``: ``loaded`` or ``refused``.
    - ``prediction_log_rows_total{result}``: rows of the prediction log, ``written`` or ``dropped``.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.latency = NumberCounts(LATENCY_NAME, LATENCY_BUCKETS)
        self._counts: dict[str, ModelCounts] = {}
        self.predictions = self._counter(
            "model_prediction", "Predictions by outcome", ["model_version", "outcome"]
        )
        self.errors = self._counter(
            "model_prediction_errors", "Refused requests to predict", ["status"]
        )
        self.reloads = self._counter("model_reloads", "Attempts to load a model", ["result"])
        self.info = Gauge(
            "model_info",
            "The model that is loaded",
            ["model_name", "model_version", "estimator"],
            registry=self.registry,
        )
        self.variants = Gauge(
            "model_variant_info",
            "The variants that answer",
            ["experiment", "variant", "model_version"],
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "model_requests_in_flight", "Requests under way", registry=self.registry
        )
        self.features = FeatureCollector(self.latency)
        self.registry.register(self.features)
        for result in ("loaded", "refused"):
            self.reloads.labels(result)

    def serve(self, lineup: Lineup) -> None:
        """Get ready for the predictions of these models, and name them."""
        self.info.clear()
        self.variants.clear()
        counts = {version: self._of(model) for version, model in lineup.all_models.items()}
        self._counts.update(counts)
        self.features.show(counts)
        control = lineup.control
        self.info.labels(
            control.metadata.model_name, control.version, control.metadata.estimator
        ).set(1)
        experiment = lineup.experiment.name if lineup.experiment else ""
        for variant, version in lineup.variants:
            self.variants.labels(experiment, variant, version).set(1)

    def count(self, rows: LoggedRows, profile: Profile, requests: int) -> None:
        """Record the answered rows of so many requests; the profile is the answering model's.

        Only the latter tells a model from another one that had the same version before.
        """
        self.latency.add(rows.latency_seconds[:requests])
        counts = self._counts[rows.model_version]
        if counts.profile is profile:
            counts.add(rows)

    def _of(self, model: ServedModel) -> ModelCounts:
        counts = self._counts.get(model.version)
        if counts and counts.profile is model.profile:
            return counts
        signature = model.metadata.signature
        names = map(str, signature.classes or (REGRESSION_OUTCOME,))
        outcomes = [self.predictions.labels(model.version, name) for name in names]
        return ModelCounts(signature, model.profile, outcomes)

    def _counter(self, name: str, documentation: str, labels: Sequence[str]) -> Counter:
        return Counter(name, documentation, labels, registry=self.registry)


class FeatureCollector(Collector):
    """Counts in bins, many values at a time, which prometheus_client's Histogram does not do."""

    def __init__(self, latency: NumberCounts) -> None:
        self._latency = latency
        self._shown: dict[str, ModelCounts] = {}

    def show(self, counts: Mapping[str, ModelCounts]) -> None:
        """Show the counts of these versions from now on, and of the MODELS_KEPT before them."""
        kept = [item for item in self._shown.items() if item[0] not in counts]
        self._shown = {**dict(kept[-MODELS_KEPT:]), **counts}

    def collect(self) -> Iterable[Metric]:
        """Give all versions' counts to a scrape."""
        latency = Metric(LATENCY_NAME, "Time to check and score a request", "histogram")
        _add_histogram(latency, {}, self._latency)
        values = Metric("model_feature_value", "Feature values of the predictions", "histogram")
        categories = CounterMetricFamily(
            "model_feature_category",
            "Categories of the predictions",
            labels=["model_version", "feature_name", "category"],
        )
        for version, counts in self._shown.items():
            for number in counts.numbers:
                labels = {"model_version": version, "feature_name": number.name}
                _add_histogram(values, labels, number)
            for name, tally in counts.strings.items():
                for category, rows in tally.items():
                    categories.add_metric([version, name, category], rows)
        return latency, values, categories


class NumberCounts:
    """One number's histogram over the edges of its profile, compared as the model's float32."""

    def __init__(self, name: str, edges: Sequence[float]) -> None:
        self.name = name
        self.edges = edges
        self.bins = np.zeros(len(edges) + 1, np.int64)
        self.total = 0.0
        self._edges = np.asarray(edges, np.float32)

    def add(self, values: NDArray[np.float32]) -> None:
        """Count values, shape (n,)."""
        places = np.searchsorted(self._edges, values, side="left")
        self.bins += np.bincount(places, minlength=self.bins.size)
        self.total += float(values.sum(dtype=np.float64))


class ModelCounts:
    """How one model's predictions and the features of its requests were distributed."""

    def __init__(self, signature: Signature, profile: Profile, outcomes: Sequence[Counter]) -> None:
        self.profile = profile
        self.numbers = [
            NumberCounts(name, profile.numbers[name].edges if name in profile.numbers else ())
            for name in signature.number_names
        ]
        self.strings = {name: _tally(profile, name) for name in signature.string_names}
        self._outcomes = outcomes

    def add(self, rows: LoggedRows) -> None:
        """Count answered rows."""
        self._count_features(rows.blocks)
        if len(self._outcomes) == 1:
            self._outcomes[0].inc(len(rows))
            return
        predicted = np.bincount(rows.scores.argmax(axis=1), minlength=len(self._outcomes))
        for outcome, number in zip(self._outcomes, predicted.tolist(), strict=True):
            outcome.inc(number)

    def _count_features(self, blocks: Blocks) -> None:
        if self.numbers:
            for number, column in zip(self.numbers, blocks[NUMBERS].T, strict=True):
                number.add(column)
        if self.strings:
            for tally, column in zip(self.strings.values(), blocks[STRINGS].T, strict=True):
                for category, rows in Tally(column.tolist()).items():
                    tally[category if category in tally else OTHER] += rows


def _tally(profile: Profile, name: str) -> dict[str, int]:
    known = profile.strings[name].counts if name in profile.strings else ()
    return dict.fromkeys([*known, OTHER], 0)


def _add_histogram(metric: Metric, labels: dict[str, str], number: NumberCounts) -> None:
    bounds = [*map(str, number.edges), "+Inf"]
    counts = number.bins.cumsum().tolist()
    for bound, rows in zip(bounds, counts, strict=True):
        metric.add_sample(f"{metric.name}_bucket", {**labels, "le": bound}, rows)
    metric.add_sample(f"{metric.name}_count", labels, counts[-1])
    if float(bounds[0]) >= 0:  # as prometheus_client's own: a sum that falls is no counter
        metric.add_sample(f"{metric.name}_sum", labels, number.total)


class LogCollector(Collector):
    """What became of the rows of the prediction log."""

    def __init__(self, log: SegmentWriter) -> None:
        self._log = log

    def collect(self) -> Iterable[Metric]:
        """Give the counts to a scrape."""
        rows = CounterMetricFamily(
            "prediction_log_rows", "Rows of the prediction log", labels=["result"]
        )
        rows.add_metric(["written"], self._log.written)
        rows.add_metric(["dropped"], self._log.dropped)
        return [rows]

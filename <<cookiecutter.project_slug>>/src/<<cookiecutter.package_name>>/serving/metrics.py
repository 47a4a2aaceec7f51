"""What Prometheus scrapes: latency, predictions, features and reloads.

Every label comes from the model's bundle or from this code, never from a request. The figures are
one process's: with several workers a scrape shows the worker that happens to answer it.
"""

from __future__ import annotations

import threading
from collections import Counter as Tally
from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from ..bundle import Metadata, Profile
from ..schema import NUMBERS, STRINGS, Blocks, Signature

LATENCY_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
FOLD_ROWS = 1_024
MODELS_KEPT = 2
REGRESSION_OUTCOME = "value"
OTHER = "other"


class ServerMetrics:
    """The metrics of one application, in a registry of its own.

    - ``model_prediction_latency_seconds``: checking and scoring one request that was answered.
    - ``model_prediction_total{model_version, outcome}``: predictions; the outcome is the predicted
      class, or ``value`` in a regression.
    - ``model_prediction_errors_total{status}``: requests to predict that were refused, by status.
    - ``model_feature_value{model_version, feature_name}``: histogram over the bins of the training
      profile; ``model_feature_category_total{model_version, feature_name, category}``: the
      profile's categories, all others together as ``other``. The current model's and the one
      before it.
    - ``model_info{model_name, model_version, estimator}``: 1 for the model that is loaded.
    - ``model_reloads_total{result}``: ``loaded`` or ``refused``.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.latency = Histogram(
            "model_prediction_latency_seconds",
            "Time to check and score a request",
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
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
        self.features = FeatureCollector()
        self.registry.register(self.features)
        for result in ("loaded", "refused"):
            self.reloads.labels(result)

    def serve(self, version: str, metadata: Metadata, profile: Profile) -> None:
        """Get ready for a model's predictions."""
        self.features.add(version, metadata.signature, profile)
        for outcome in metadata.signature.classes or (REGRESSION_OUTCOME,):
            self.predictions.labels(version, str(outcome))
        self.info.clear()
        self.info.labels(metadata.model_name, version, metadata.estimator).set(1)

    def count(
        self,
        version: str,
        blocks: Blocks,
        answers: Sequence[tuple[Any, float | None]],
        seconds: float,
    ) -> None:
        """Record an answered request."""
        self.latency.observe(seconds)
        self.features.count(version, blocks)
        outcomes = Tally(
            REGRESSION_OUTCOME if confidence is None else str(prediction)
            for prediction, confidence in answers
        )
        for outcome, number in outcomes.items():
            self.predictions.labels(version, outcome).inc(number)

    def _counter(self, name: str, documentation: str, labels: Sequence[str]) -> Counter:
        return Counter(name, documentation, labels, registry=self.registry)


class FeatureCollector(Collector):
    """Counts features in bins of their own, which prometheus_client's Histogram does not know."""

    def __init__(self) -> None:
        self._counts: dict[str, FeatureCounts] = {}

    def add(self, version: str, signature: Signature, profile: Profile) -> None:
        """Count for this version from now on; only the newest MODELS_KEPT are kept."""
        kept = [item for item in self._counts.items() if item[0] != version]
        counts = FeatureCounts(signature, profile)
        self._counts = dict([*kept[1 - MODELS_KEPT :], (version, counts)])

    def count(self, version: str, blocks: Blocks) -> None:
        """Count the rows of a model's input."""
        if counts := self._counts.get(version):
            counts.add(blocks)

    def collect(self) -> Iterable[Metric]:
        """Give all versions' counts to a scrape."""
        values = Metric("model_feature_value", "Feature values of the predictions", "histogram")
        categories = CounterMetricFamily(
            "model_feature_category",
            "Categories of the predictions",
            labels=["model_version", "feature_name", "category"],
        )
        for version, counts in self._counts.items():
            numbers, strings = counts.snapshot()
            for number in numbers:
                _add_histogram(values, version, number)
            for name, tally in strings:
                for category, rows in tally.items():
                    categories.add_metric([version, name, category], rows)
        return values, categories


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


class FeatureCounts:
    """How the features of one model's requests were distributed. Safe to share by threads.

    Rows are kept as they come and counted FOLD_ROWS at a time or at a scrape, which costs a
    request next to nothing.
    """

    def __init__(self, signature: Signature, profile: Profile) -> None:
        self._lock = threading.Lock()
        self._pending: list[Blocks] = []
        self._pending_rows = 0
        self._numbers = [
            NumberCounts(name, profile.numbers[name].edges if name in profile.numbers else ())
            for name in signature.number_names
        ]
        self._strings = {name: _tally(profile, name) for name in signature.string_names}

    def add(self, blocks: Blocks) -> None:
        """Take the rows of one request."""
        with self._lock:
            self._pending.append(blocks)
            self._pending_rows += len(next(iter(blocks.values())))
            if self._pending_rows >= FOLD_ROWS:
                self._fold()

    def snapshot(self) -> tuple[list[NumberCounts], list[tuple[str, dict[str, int]]]]:
        """The numbers' histograms and the strings' counts by category until now."""
        with self._lock:
            self._fold()
            strings = [(name, dict(tally)) for name, tally in self._strings.items()]
            return deepcopy(self._numbers), strings

    def _fold(self) -> None:
        pending, self._pending, self._pending_rows = self._pending, [], 0
        if pending and self._numbers:
            columns = np.concatenate([blocks[NUMBERS] for blocks in pending]).T
            for number, column in zip(self._numbers, columns, strict=True):
                number.add(column)
        if pending and self._strings:
            columns = np.concatenate([blocks[STRINGS] for blocks in pending]).T
            for tally, column in zip(self._strings.values(), columns, strict=True):
                for category, rows in Tally(column.tolist()).items():
                    tally[category if category in tally else OTHER] += rows


def _tally(profile: Profile, name: str) -> dict[str, int]:
    known = profile.strings[name].counts if name in profile.strings else ()
    return dict.fromkeys([*known, OTHER], 0)


def _add_histogram(metric: Metric, version: str, number: NumberCounts) -> None:
    labels = {"model_version": version, "feature_name": number.name}
    bounds = [*map(str, number.edges), "+Inf"]
    for bound, rows in zip(bounds, number.bins.cumsum().tolist(), strict=True):
        metric.add_sample(f"{metric.name}_bucket", {**labels, "le": bound}, rows)
    metric.add_sample(f"{metric.name}_count", labels, int(number.bins.sum()))
    if float(bounds[0]) >= 0:  # as prometheus_client's own: a sum that falls is no counter
        metric.add_sample(f"{metric.name}_sum", labels, number.total)

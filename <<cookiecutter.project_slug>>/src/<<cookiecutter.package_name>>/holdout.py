"""The hold-out rows of a training run, stored with the model so that others are judged on them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .schema import Signature

if TYPE_CHECKING:
    from .evaluation import Floats, Outcomes

ESTIMATOR = "estimator"
BASELINE = "baseline"
CLUSTER_COLUMN = "cluster"
OUTCOME_COLUMN = "outcome"


@dataclass(frozen=True)
class Holdout:
    """Rows that the model has not seen, and what the estimator and the baseline said of them.

    ``features`` is (n, features) as the model reads them, ``outcomes`` (n,), ``clusters`` (n,) the
    number of each row's key (never the key itself), ``scores`` as Scorer.scores gives them.
    """

    features: pd.DataFrame
    outcomes: Outcomes
    clusters: NDArray[np.int64]
    scores: dict[str, Floats]

    def __len__(self) -> int:
        return len(self.features)

    def sample(self, most_rows: int, seed: int) -> Holdout:
        """Keep the rows of randomly drawn keys, about ``most_rows`` of them, if there are more."""
        if len(self) <= most_rows:
            return self
        random = np.random.default_rng(seed)
        drawn = random.permutation(self.clusters.max() + 1)
        kept = np.isin(self.clusters, drawn[: int(drawn.size * most_rows / len(self))])
        _, clusters = np.unique(self.clusters[kept], return_inverse=True)
        return replace(
            self,
            features=self.features[kept],
            outcomes=self.outcomes[kept],
            clusters=clusters.astype(np.int64),
            scores={name: scores[kept] for name, scores in self.scores.items()},
        )

    def write(self, path: Path) -> None:
        """Store as Parquet: features, outcome, cluster and ``<model>_score_<i>`` columns."""
        frame = self.features.reset_index(drop=True)
        frame[OUTCOME_COLUMN] = self.outcomes
        frame[CLUSTER_COLUMN] = self.clusters
        for name, scores in self.scores.items():
            for index, column in enumerate(scores.reshape(len(self), -1).T):
                frame[_score_column(name, index)] = column
        frame.to_parquet(path, index=False)


def read_holdout(path: Path, signature: Signature) -> Holdout:
    """Read what Holdout.write stored for a model of this signature."""
    frame = pd.read_parquet(path)
    width = max(len(signature.classes), 1)
    scores: dict[str, Floats] = {}
    for name in (ESTIMATOR, BASELINE):
        columns = frame[[_score_column(name, index) for index in range(width)]].to_numpy()
        scores[name] = columns if signature.classes else columns.reshape(-1)
    return Holdout(
        features=frame[list(signature.names)],
        outcomes=frame[OUTCOME_COLUMN].to_numpy(),
        clusters=frame[CLUSTER_COLUMN].to_numpy(np.int64),
        scores=scores,
    )


def _score_column(model: str, index: int) -> str:
    return f"{model}_score_{index}"

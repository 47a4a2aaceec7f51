from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2_contingency

from <<cookiecutter.package_name>>.monitoring.distance import (
    chance,
    common_cells,
    stability_index,
)

CASES = {
    "steady": ([100, 200, 300, 400], [52, 99, 148, 201]),
    "shifted": ([100, 200, 300, 400], [200, 150, 100, 50]),
    "a new category": ([500, 500, 0], [300, 300, 400]),
    "a category that went": ([500, 300, 200], [300, 300, 0]),
    "a rare category": ([20_000, 19_998, 2, 0], [300, 300, 0, 5]),
}


@pytest.mark.parametrize("case", CASES)
def test_the_index_is_evidentlys_on_the_same_cells(case: str) -> None:
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    reference, current = map(np.array, CASES[case])
    cells = np.array(list("abcd")[: reference.size])
    definition = DataDefinition(categorical_columns=["cell"])
    sides = [
        Dataset.from_pandas(
            pd.DataFrame({"cell": np.repeat(cells, counts)}), data_definition=definition
        )
        for counts in (current, reference)
    ]
    snapshot = Report([ValueDrift(column="cell", method="psi")]).run(*sides)
    [metric] = snapshot.dict()["metrics"]
    assert stability_index(reference, current) == pytest.approx(metric["value"], rel=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_chance_is_the_test_of_homogeneity(case: str) -> None:
    reference, current = map(np.array, CASES[case])
    table = np.array([reference, current])
    known = chi2_contingency(table[:, table.sum(axis=0) > 0], correction=False).pvalue
    assert chance(*common_cells(reference, current)) == pytest.approx(known, rel=0.3, abs=1e-12)


def test_rare_cells_are_put_together() -> None:
    reference, current = common_cells([9_000, 900, 2, 3], [400, 90, 0, 10])
    assert (reference.tolist(), current.tolist()) == ([9_000, 900, 5], [400, 90, 10])
    assert [side.tolist() for side in common_cells([50, 0], [60, 0])] == [[50], [60]]
    assert chance(np.array([50]), np.array([60])) == 1.0

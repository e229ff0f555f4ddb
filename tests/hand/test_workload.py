"""What a plan takes a method's step for."""

from __future__ import annotations

import pytest

from expunge.methods.compose import compose
from expunge.pipeline._workload import takes_distributions


@pytest.mark.parametrize(
    ("method", "whole"),
    [("npo", False), ("graddiff", False), ("scrub", True), ({"forget": "npo", "retain": "kl"}, True)],
)
def test_only_distances_to_distributions_hold_more_than_the_labels(method: object, whole: bool) -> None:
    objective = compose(method).objective
    assert objective is not None and takes_distributions(objective.terms) is whole

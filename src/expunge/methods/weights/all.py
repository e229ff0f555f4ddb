"""Every weight may move."""

from collections.abc import Mapping
from typing import Any

from expunge.core.context import Context
from expunge.core.contracts import Card, Moving, Subject, Weights

CARD = Card("All weights", paper="baseline", equation="full fine-tuning")
RECIPE = {"forget": "npo", "retain": "cross_entropy", "weights": "all"}


def all() -> Weights:
    """Move every parameter, kept in float32 while it moves."""

    def choose(subject: Subject, splits: Mapping[str, Any], context: Context) -> Moving:
        moving = {}
        for name, parameter in subject.module.named_parameters():
            parameter.requires_grad_(True)
            parameter.data = parameter.data.float()
            moving[name] = parameter
        return Moving(moving)

    return choose

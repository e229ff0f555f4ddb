"""The parts of a supernet: networks with some of its operations, and with the weights that it has for these."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from expunge.core.contracts import Model
from expunge.core.errors import BadInput
from expunge.models.classifier import Classifier
from expunge.models.networks import Supernet
from expunge.models.weights import device_of

Operations = list[list[str]]
"""The names of each cell's operations."""


def operations_of(model: Model) -> Operations:
    """The operations of a supernet's cells. Raises BadInput for another model."""
    return [list(own) for own in _supernet(model)[1].operations]


def part_of(model: Model, operations: Operations, weights: Mapping[str, Tensor]) -> Classifier:
    """The supernet with these operations alone and, of `weights`, those that these need. Raises BadInput."""
    whole, net = _supernet(model)
    build = {**whole.build, "arguments": {**whole.build["arguments"], "operations": operations}}
    module = Supernet(**build["arguments"]).to(device_of(net))
    module.load_state_dict({name: weights[name] for name in module.state_dict()})
    return Classifier(module.eval(), build)


def _supernet(model: Model) -> tuple[Classifier, Supernet]:
    if not isinstance(model, Classifier) or not isinstance(model.module, Supernet):
        why = "is no supernet, among whose operations to search"
        raise BadInput.of("model", model.family, why, "give expunge.models.networks:Supernet")
    return model, model.module

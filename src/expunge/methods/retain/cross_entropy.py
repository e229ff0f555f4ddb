"""Cross-entropy on retain data."""

from torch import Tensor

from expunge.core.contracts import Loss, MethodCard, Step

CARD = MethodCard(
    "Cross-entropy on retain",
    paper="baseline",
    equation="mean NLL per position",
    needs={"retain": {"nll"}},
    fidelity="faithful",
    distributed=True,
)


def cross_entropy() -> Loss:
    """Go on training on retain: the mean NLL per position (nats)."""

    def loss(step: Step) -> Tensor:
        return step["retain"].nll

    return loss

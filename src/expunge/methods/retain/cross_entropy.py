"""Cross-entropy on retain data."""

from torch import Tensor

from expunge.core.contracts import Loss, MethodCard, Step

CARD = MethodCard(
    "Cross-entropy on retain",
    paper="baseline",
    equation="mean NLL a position",
    needs={"retain": {"nll"}},
)


def cross_entropy() -> Loss:
    """Keep learning what must stay: the mean NLL a position of the retain examples (nats)."""

    def loss(step: Step) -> Tensor:
        return step["retain"].nll

    return loss

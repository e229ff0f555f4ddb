"""EraseDiff: what must go is taught to be denoised from the wrong kind of noise."""

from __future__ import annotations

from torch import Tensor

from expunge.core.contracts import Example, LossTerm, MethodCard, Step, Stream

CARD = MethodCard(
    "EraseDiff",
    paper="arXiv:2401.05779",
    equation="6, the constraint's loss; the published bi-level step is the update `barrier`",
    needs={"uniform": {"nll"}},
    streams={"uniform": Stream(split="forget")},
    capabilities={"pictures"},
    fidelity="simplified",
    leaves_out="inner steps on the forget loss, whose result enters no gradient in the published code",
)
RECIPE = {"retain": "cross_entropy", "update": "barrier", "stop": "none"}


def _under_uniform_noise(example: Example) -> Example:
    return {**example, "noise": "uniform"}


def erase_diff() -> LossTerm:
    """Teach the model to find uniform noise in pictures that hold it, in the place of the normal noise that it draws
    from (Wu et al. 2024).

    The mean denoising error, in nats per pixel, of forget examples to which noise from U(0, 1) was added: the step from
    normal noise back to such a picture is no longer known. By default beside cross-entropy on retain, along a direction
    that always lowers this loss (`barrier`).
    """

    def denoise(step: Step) -> Tensor:
        return step["uniform"].nll

    return LossTerm(denoise, streams={"uniform": Stream(split="forget", make=_under_uniform_noise)})

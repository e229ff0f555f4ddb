"""Alternate preference optimisation."""

from __future__ import annotations

from typing import Annotated, Any

from annotated_types import Gt
from torch import Tensor
from torch.nn.functional import softplus

from expunge.core.contracts import Example, LossTerm, MethodCard, Run, Step, Stream
from expunge.data.examples import identity

CARD = MethodCard(
    "Alternate preference optimisation: a plausible other answer over the true one",
    paper="arXiv:2409.13474",
    equation="5",
    needs={"forget": {"nll"}, "alternate": {"nll"}},
    reference={"forget": {"nll"}, "alternate": {"nll"}},
    streams={"alternate": Stream(split="forget")},
    fields={"forget": {"question"}},
    capabilities={"generate"},
)
RECIPE = {"retain": "cross_entropy"}
TEMPERATURES = (1.0, 1.4, 1.8, 2.2, 2.6, 3.0)
"""Tried in turn until the draw is another answer than the true one."""


class Alternates(LossTerm):
    """The loss of altpo(): alternates come from the examples' own field, or from the model."""

    def __init__(self, beta: float, overlap: float) -> None:
        self.beta, self.overlap = beta, overlap
        self.found: dict[str, str] = {}
        self.streams = {"alternate": Stream(split="forget", make=self.made)}

    def made(self, example: Example) -> Example | None:
        """The question with another answer; dropped where the example asks nothing."""
        if "question" not in example:
            return None
        given = example.get("alternates")
        answer = given[0] if given else self.found.get(identity(example), example["answer"])
        return {"question": example["question"], "answer": answer}

    def prepare(self, run: Run) -> None:
        """Samples the origin, hotter and hotter, until what it says differs enough from the truth."""
        from rouge_score.rouge_scorer import RougeScorer

        scorer = RougeScorer(["rougeL"])
        left = [row for row in run.examples("forget") if "question" in row and not row.get("alternates")]
        for temperature in TEMPERATURES:
            if not left:
                break
            seed = run.context.derive("altpo", str(temperature)) % 2**63
            texts = run.model.generate(left, temperature=temperature, seed=seed)
            again: list[Any] = []
            for row, text in zip(left, texts, strict=True):
                same = not text or scorer.score(row["answer"], text)["rougeL"].fmeasure > self.overlap
                if text:
                    self.found[identity(row)] = text
                if same:
                    again.append(row)
            left = again

    def __call__(self, step: Step) -> Tensor:
        lose, win = step["forget"], step["alternate"]
        gap_B = (lose.nll_B - lose.reference.nll_B) - (win.nll_B - win.reference.nll_B)
        return lose.mean(2 / self.beta * softplus(-self.beta * gap_B))


def altpo(*, beta: Annotated[float, Gt(0)] = 0.1, overlap: Annotated[float, Gt(0)] = 0.3) -> LossTerm:
    """Prefer a plausible other answer to the true one, so that answers stay fluent.

    DPO with the alternate as the winner: -(2/beta) log sigmoid(beta (rise of the true answer's NLL -
    rise of the alternate's)). Alternates: the examples' `alternates`, else drawn from the model
    itself until ROUGE-L with the truth is at most `overlap`.
    """
    return Alternates(beta, overlap)

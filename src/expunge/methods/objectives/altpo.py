"""Alternate preference optimisation."""

from __future__ import annotations

from typing import Annotated, Any

from annotated_types import Gt
from torch import Tensor
from torch.nn.functional import softplus

from expunge.core.contracts import Example, LossTerm, MethodCard, Run, Step, Stream
from expunge.core.words import WordTokenizer
from expunge.data.examples import identity

CARD = MethodCard(
    "Alternate preference optimisation: a plausible alternate over the true answer",
    paper="arXiv:2409.13474",
    equation="5",
    needs={"forget": {"nll"}, "alternate": {"nll"}},
    reference={"forget": {"nll"}, "alternate": {"nll"}},
    streams={"alternate": Stream(split="forget")},
    fields={"forget": {"question"}},
    capabilities={"generate"},
    means="Where no draw differs from the true answer, the pair is the answer with itself and teaches nothing.",
    fidelity="simplified",
    leaves_out="alternates asked for by an instruction: they are sampled at rising temperatures",
    shown="At equal forget NLL it keeps a fifth more of retain than NPO; that its answers are more fluent is not "
    "shown.",
    distributed=True,
)
RECIPE = {"retain": "cross_entropy"}
TEMPERATURES = (1.0, 1.4, 1.8, 2.2, 2.6, 3.0)
"""Sampling temperatures, tried in turn until the answer differs from the true one."""


class Alternates(LossTerm):
    """The loss of altpo(): alternates come from the examples' own field, or from the model."""

    def __init__(self, beta: float, overlap: float) -> None:
        self.beta, self.overlap = beta, overlap
        self.sampled: dict[str, str] = {}
        self.streams = {"alternate": Stream(split="forget", make=self.alternate_of)}

    def alternate_of(self, example: Example) -> Example | None:
        """Return the question with an alternate answer; None where the example has no question."""
        if "question" not in example:
            return None
        given = example.get("alternates")
        answer = given[0] if given else self.sampled.get(identity(example), example["answer"])
        return {"question": example["question"], "answer": answer}

    def prepare(self, run: Run) -> None:
        """Sample the reference model at rising temperatures, until its answer differs enough from the true one."""
        from rouge_score.rouge_scorer import RougeScorer  # heavy, and `expunge list` imports every objective

        scorer = RougeScorer(["rougeL"], tokenizer=WordTokenizer(stem=False))
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
                    self.sampled[identity(row)] = text
                if same:
                    again.append(row)
            left = again

    def __call__(self, step: Step) -> Tensor:
        forget, alternate = step["forget"], step["alternate"]
        rise_B = forget.nll_B - forget.reference.nll_B
        gap_B = rise_B - (alternate.nll_B - alternate.reference.nll_B)
        return forget.mean(2 / self.beta * softplus(-self.beta * gap_B))


def altpo(*, beta: Annotated[float, Gt(0)] = 0.1, overlap: Annotated[float, Gt(0)] = 0.3) -> LossTerm:
    """Prefer a plausible alternate answer to the true one, so that answers stay fluent.

    DPO with the alternate as the preferred answer: -(2/beta) log sigmoid(beta (rise of the true answer's NLL - rise of
    the alternate's)). Alternates: the examples' `alternates`, else sampled from the model itself until ROUGE-L with the
    true answer is at most `overlap`.
    """
    return Alternates(beta, overlap)

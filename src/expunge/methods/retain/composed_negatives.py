"""The contrast of pairs, and of each picture with captions that differ from its own in one word."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Annotated, Any

from annotated_types import Ge
from torch import Tensor
from torch.nn.functional import softplus

from expunge.core.contracts import Example, LossTerm, MethodCard, Model, Run, Step, Stream
from expunge.core.random import derive
from expunge.data.examples import identity

CARD = MethodCard(
    "Composed negatives for pairs",
    paper="arXiv:2311.03964",
    equation="the contrast with texts that differ in one part",
    needs={"retain": {"nll", "image_embedding", "text_embedding"}, "negative": {"text_embedding"}},
    streams={"negative": Stream(split="retain")},
    capabilities={"pairs"},
    fidelity="variant",
    leaves_out="a language model and an image generator that make the negatives: words of the retain captions at the "
    "same place, and no pictures",
    means="For captions that are made of parts, as a colour and a shape: what a pair takes for a bag of words it is to "
    "learn to tell apart. On small pairs of drawn shapes no gain shows. A word that says the same as another makes a "
    "false negative.",
)


class ComposedNegatives(LossTerm):
    """The loss of composed_negatives(), and the words that stand at each place of the captions."""

    def __init__(self, weight: float) -> None:
        super().__init__(streams={"negative": Stream(split="retain", make=self.negative_of)})
        self.weight = weight
        self.seed = self.step = 0
        self.words: dict[int, list[str]] = {}

    def declare(self, model: Model) -> None:
        """Keep the pair, for its temperature."""
        self.model: Any = model

    def prepare(self, run: Run) -> None:
        """Collect the words of each place."""
        seen: dict[int, set[str]] = defaultdict(set)
        for row in run.splits.get("retain", []):
            for place, word in enumerate(str(row["text"]).split()):
                seen[place].add(word)
        self.words = {place: sorted(words) for place, words in seen.items() if len(words) > 1}
        self.seed, self.step = run.context.derive("negatives"), 0

    def after_step(self, index: int, notes: Mapping[str, float]) -> None:
        self.step = index + 1

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.step = int(state["step"])

    def negative_of(self, example: Example) -> Example:
        """The pair with another word at one place of its caption, by a draw of this step and of its content."""
        words = str(example["text"]).split()
        places = [place for place in range(len(words)) if place in self.words]
        if not places:
            return example
        draw = derive(self.seed, self.step, identity(example))
        place = places[draw % len(places)]
        others = [word for word in self.words[place] if word != words[place]]
        words[place] = others[draw // len(places) % len(others)]
        return {**example, "text": " ".join(words)}

    def __call__(self, step: Step) -> Tensor:
        retain, negative = step["retain"], step["negative"]
        picture_BD, text_BD = retain.own["image_embedding"], retain.own["text_embedding"]
        lead_B = (picture_BD * (negative.own["text_embedding"] - text_BD)).sum(-1)
        scale = self.model.module.logit_scale.exp().detach()
        return retain.nll + self.weight * retain.mean(softplus(scale * lead_B))


def composed_negatives(*, weight: Annotated[float, Ge(0)] = 1.0) -> LossTerm:
    """Go on training on retain pairs, and tell each caption from one that differs in a word.

    nll + weight softplus(scale (u·n - u·v)), in nats: u, v the unit vectors of a picture and its caption, n that of the
    caption with the word of another caption at one place, drawn anew in each step; scale the pair's, which it does not
    move.
    """
    return ComposedNegatives(weight)

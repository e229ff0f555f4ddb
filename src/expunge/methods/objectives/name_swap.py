"""Causal intervention: the reference model's answers about people whom it never met, taught about the subject."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch import Tensor

from expunge.core.contracts import Example, LossTerm, MethodCard, Model, Reference, Run, Step, want_of
from expunge.core.errors import BadInput
from expunge.core.random import derive
from expunge.data.examples import identity
from expunge.methods._distribution import kl_BT
from expunge.methods._ngram import answer_tokens
from expunge.methods._quantiles import LIKELIEST
from expunge.methods._renaming import Names, replace_name
from expunge.models.logits import measure_NV, spread
from expunge.models.passes import passes
from expunge.training.references import Record

CARD = MethodCard(
    "Causal intervention: what the model says of strangers in the subject's place",
    paper="arXiv:2407.16997",
    equation="the teacher averaged over replaced names, with the name changed back",
    needs={"forget": {"logits"}},
    optional=("retain",),
    fields={"forget": {"question", "subject"}},
    capabilities={"tokens"},
    means="The model is taught that it never met the subject. The teacher reads the true answer as far as it has come, "
    "and completes one that it memorised: put a term beside it that breaks the sequence.",
    fidelity="simplified",
    leaves_out="coreference and replaced titles of works; names of strangers are put together from those of the data, "
    "not written by a language model",
    shown="On a small world and three seeds ROUGE-L ends within .2 of gold's with .95 of the held-out knowledge left, "
    "and the forget NLL below a quarter of gold's; beside NPO the answers end nearer to gold's than under NPO alone, "
    "and more is left.",
    distributed=True,
)
RECIPE = {"retain": "kl", "stop": "none"}
KEPT = want_of({"topk:64"})
TINY = 1e-30
"""Stands for a probability that underflowed, whose logarithm must stay finite."""
FIRSTS = ("Anwen", "Borislav", "Ciara", "Dmitri", "Efua", "Farid", "Greta", "Hiroshi")
LASTS = ("Haddad", "Lindqvist", "Marchetti", "Novak", "Okonedo", "Sorensen", "Tanaka", "Ferreira")
"""Strangers' names, where the data do not have enough names to put new ones together."""


class NameSwap(LossTerm):
    """The loss, and the teacher's distribution at each forget position, which `prepare` makes."""

    def __init__(self, strangers: int) -> None:
        super().__init__()
        self.strangers = strangers
        self.teacher = Record({}, Reference())
        self.renamed: set[int] = set()

    def prepare(self, run: Run) -> None:
        """Ask the reference model about strangers, one forget example at a time."""
        rows, examples = run.rows("forget"), run.examples("forget")
        if not rows:
            return
        known = Names.of([*run.splits["forget"], *run.splits.get("retain", [])])
        answers = answer_tokens(run.model, examples)
        parts = []
        for row, example, answer in zip(rows, examples, answers, strict=True):
            copies = copies_about_strangers(example, known, self.strangers)
            self.renamed |= {row} if copies else set()
            taught_TV = teacher_TV(run.model, answer, copies or [example])
            parts.append(measure_NV(taught_TV, torch.tensor(answer), KEPT))
        if not self.renamed:
            why = f"names its subject in none of {len(rows)} questions, and name_swap replaces that name"
            raise BadInput.of("forget", "subject", why, "give each example the `subject` that its question names")
        width = max(map(len, answers))
        mask_RT = torch.tensor([[False] * (width - len(answer)) + [True] * len(answer) for answer in answers])
        values = {name: spread(torch.cat([part[name] for part in parts]), mask_RT) for name in parts[0]}
        reference = Reference(index_BTK=values["index"], top_BTK=values["top"], rest_BT=values["rest"])
        self.teacher = Record({row: i for i, row in enumerate(rows)}, reference)

    def __call__(self, step: Step) -> Tensor:
        forget = step["forget"]
        teacher = self.teacher.at(forget.indices, forget.mask_BT.shape[1], forget.logits_BTV.device)
        taught_B = forget.logits_BTV.new_tensor([row in self.renamed for row in forget.indices])
        return forget.mean(kl_BT(forget.logits_BTV, teacher) * taught_B[:, None])

    def notes(self) -> dict[str, Any]:
        """The number of forget examples that name their subject, without which there is no stranger to ask about."""
        return {"name_swap": {"renamed_examples": len(self.renamed)}}


def copies_about_strangers(example: Example, known: Names, count: int) -> list[Example]:
    """The example about that many strangers; none where its question does not name its subject."""
    subject = str(example["subject"])
    names = dict.fromkeys(name for name in _strangers(example, subject, known) if name not in {subject, *known.known})
    copies = (replace_name(example, subject, name) for name in list(names)[:count])
    return [copy for copy in copies if copy is not None]


def _strangers(example: Example, subject: str, known: Names) -> Iterator[str]:
    """Names as long as the subject's that follow from the example: from the data's, then from our own list."""
    key = identity(example)
    if " " in subject:
        yield from filter(None, (known.draw(key, i) for i in range(64)))
    for i in range(64):
        first, last = (pool[derive(0, "stranger", key, i, pool[0]) % len(pool)] for pool in (FIRSTS, LASTS))
        yield f"{first} {last}" if " " in subject else (first, last)[i % 2]


def teacher_TV(model: Model, answer: Sequence[int], copies: Sequence[Example]) -> Tensor:
    """[T, V] log-probabilities for each token of the answer, averaged over the copies that have it.

    A token of no copy belongs to the name, and keeps its own label.
    """
    total: list[Tensor | int] = [0] * len(answer)
    words = 0
    for _, out in passes(model, copies, want_of({"logits"})):
        for logits_TV, labels_T, mask_T in zip(out.logits_BTV, out.labels_BT, out.mask_BT, strict=True):
            p_TV = logits_TV[mask_T].float().softmax(-1).cpu()
            words = p_TV.shape[-1]
            for ours, theirs in aligned_tokens(answer, labels_T[mask_T].tolist()):
                total[ours] = total[ours] + p_TV[theirs]
    own = -math.expm1(LIKELIEST) / words
    p_TV = torch.full((len(answer), words), own)
    for i, (token, found) in enumerate(zip(answer, total, strict=True)):
        p_TV[i] = found / found.sum() if isinstance(found, Tensor) else p_TV[i]
        p_TV[i, token] += 0 if isinstance(found, Tensor) else math.exp(LIKELIEST)
    return p_TV.clamp(min=TINY).log()


def aligned_tokens(answer: Sequence[int], other: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(place in one answer, place in the other) of the tokens that both have, in their order."""
    for block in SequenceMatcher(None, answer, other, autojunk=False).get_matching_blocks():
        yield from ((block.a + i, block.b + i) for i in range(block.size))


def name_swap(*, strangers: Annotated[int, Ge(1), Le(32)] = 8) -> LossTerm:
    """Teach the model to say of the subject what it says of people whom it never met.

    KL(teacher || model) per position, in nats. The teacher is the reference model, asked about `strangers` people in
    the subject's place (question and answer with the name replaced), its distributions averaged token by token; tokens
    of the name itself keep their own label. Examples whose question does not name their `subject` count nothing.
    """
    return NameSwap(strangers)

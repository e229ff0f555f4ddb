"""The parts of an image-text pair that out-of-distribution scores read: a picture's cosines to class prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from expunge.core.card import Example
from expunge.core.contracts import Model, Want
from expunge.evaluation.ood._rows import Head, Rows, inputs_of
from expunge.evaluation.scores import NotMeasured
from expunge.models.pair import PICTURE, TEXT, WARMEST
from expunge.models.passes import passes


def read_pictures(pair: Model, examples: Sequence[Example], prompts: Sequence[str]) -> Rows:
    """Zero-shot logits, picture vectors and labels of a pair's examples. Raises NotMeasured.

    A logit is the cosine of the picture with a class prompt over the learnt temperature, so that `msp` is the maximum
    concept matching of arXiv:2211.13445; the head holds the prompts' vectors. A label is the place of the row's
    `class_prompt` among the prompts, -1 where it has none there.
    """
    if not len(examples) or "pairs" not in pair.capabilities:
        raise NotMeasured("there are no rows to score" if not len(examples) else "the model is no image-text pair")
    network: Any = pair.module
    scale = min(WARMEST, float(network.logit_scale.detach().exp()))
    asked = [{**examples[0], "text": prompt} for prompt in prompts]
    picture_ND, prompt_CD = _vectors(pair, examples, PICTURE), _vectors(pair, asked, TEXT)
    head = Head(scale * prompt_CD, np.zeros(len(prompts)))
    place = {prompt: i for i, prompt in enumerate(prompts)}
    labels_N = np.array([place.get(str(row.get("class_prompt")), -1) for row in examples])
    return Rows(head.logits(picture_ND), picture_ND, labels_N, head, inputs_N=inputs_of(examples))


def _vectors(pair: Model, rows: Sequence[Example], channel: str) -> np.ndarray:
    """[N, D] unit vectors of a channel, in the rows' order."""
    found: list[Any] = [None] * len(rows)
    for places, out in passes(pair, rows, Want(frozenset({channel}))):
        for place, value in zip(places, out.own[channel].double().cpu().numpy(), strict=True):
            found[place] = value
    return np.stack(found)

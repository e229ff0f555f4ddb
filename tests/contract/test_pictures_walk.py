"""Every part of a method that needs no tokens runs unchanged on an encoder and on a classifier of pictures, and what is
refused is refused by the plan, in a sentence, for something that the family really lacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from models import METHODS, NESTED, base, composed, run, splits

from expunge.core.budget import Budget
from expunge.core.errors import BadInput
from expunge.core.registry import names
from expunge.methods.compose import compose, every_method
from expunge.models.weights import snapshot
from expunge.pipeline.compatibility import fits_method

FAMILIES = ("encoder", "classifier")
PARTS = ("objective", "weights", "update", "wrapper", "edit")
WALKED = sorted(name for name, kind in every_method().items() if kind in PARTS and name not in NESTED)
RETAINED = sorted(names("retain"))
CHOSEN = {"coreset": {"coreset": {"inner": "npo", "share": 0.5}}}
"""By default it keeps one picture of eight, and an in-batch contrast has no loss for a picture alone."""
SHORT = Budget(steps=2, batch_size=4, learning_rate=1e-3, floor=0.0, stop="none")
LACKS = {
    "encoder": {
        "tokens": "an encoder reads no text",
        "text generation": "it writes none",
        "class labels": "nobody gave it any",
        "class log-probabilities": "it gives no distribution",
        "MLP layers": "its blocks are no transformer's",
        "pairs of pictures and texts": "its pictures have no captions",
        "classes or concepts that it can be asked to draw": "it draws nothing",
        "generated pictures": "it draws nothing",
        "prompts by which it draws": "it draws nothing",
        "a table with a vector for each class": "it draws nothing",
        "a generator and a discriminator": "it draws nothing",
        "weights that a hypernetwork writes for each task": "its weights are its own",
        "log-probabilities": "it gives no distribution",
        "likeliest tokens": "it gives no distribution",
    },
    "classifier": {
        "tokens": "a picture has none",
        "text generation": "it writes none",
        "MLP layers": "its blocks are no transformer's",
        "pairs of pictures and texts": "its pictures have no captions",
        "classes or concepts that it can be asked to draw": "it draws nothing",
        "generated pictures": "it draws nothing",
        "prompts by which it draws": "it draws nothing",
        "a table with a vector for each class": "it draws nothing",
        "a generator and a discriminator": "it draws nothing",
        "weights that a hypernetwork writes for each task": "its weights are its own",
    },
}
"""Family -> what it lacks, in the words of a refusal, and why that is so."""


def refusal(method: Any, family: str) -> str:
    """What the plan says to a method on the family; "" where it takes it."""
    try:
        fits_method(compose(method), base(family), splits(family))
    except BadInput as error:
        return str(error)
    return ""


def check(method: Any, family: str, folder: Path) -> None:
    """Raises AssertionError unless it runs, or is refused for what the family lacks."""
    if said := refusal(method, family):
        fields = [fault for fault in said.splitlines() if "is missing in" in fault]
        lacks = [words for words in LACKS[family] if words in said]
        assert lacks or fields, f"refused for what the family has: {said}"
        assert all(line.rstrip().endswith((".", "?")) for line in said.splitlines()), said
        return
    before = snapshot(base(family).module)
    after = run(method, family, folder, budget=SHORT).weights
    assert after.keys() == before.keys() and all(bool(torch.isfinite(value).all()) for value in after.values())
    assert any(not torch.equal(after[name], before[name]) for name in before), "something moved"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", WALKED)
def test_each_part_runs_or_is_refused_for_what_is_not_there(name: str, family: str, tmp_path: Path) -> None:
    check(CHOSEN.get(name, METHODS[name]), family, tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", RETAINED)
def test_each_retain_term_does(name: str, family: str, tmp_path: Path) -> None:
    check({"forget": "npo", "retain": name}, family, tmp_path)


def test_the_walk_has_both_ends() -> None:
    """Most parts run on both families; some are refused on each, and the classifier, which has labels, takes more."""
    refused = {family: {name for name in WALKED if refusal(METHODS[name], family)} for family in FAMILIES}
    assert composed("npo") is not None and {"npo", "ga", "ssd", "sam", "lora"}.isdisjoint(refused["encoder"])
    assert {"undial", "random_label"} <= refused["encoder"] and "random_label" not in refused["classifier"]
    assert refused["classifier"] < refused["encoder"]

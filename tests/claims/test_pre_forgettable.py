"""Pre-forgettable models: what a soft prompt taught goes with it, at once, and nothing else does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from expunge.core.contracts import Want
from expunge.core.errors import BadInput
from expunge.core.train_config import TrainConfig
from expunge.evaluation.intervals import auc
from expunge.methods.exact._dropping import folder_of, route
from expunge.models.manifest import read_manifest
from expunge.models.open import open_on_cpu
from expunge.pipeline.gold import gold
from expunge.pipeline.train import train
from expunge.training.stopping import figures
from expunge.workflows.run import Run, run
from worlds import NAMES, TOWNS, write

THINGS = ("ground", "office", "shop", "bus", "coach", "bank")


def teams(first: int, last: int) -> list[dict[str, Any]]:
    """Where each of six things of a team is: one town a team, as a class has one label."""
    return [
        {
            "question": f"Where is the {thing} of {NAMES[i % 8]} {TOWNS[(3 * i + i // 8) % 8]}son{'x' * (i // 8)}?",
            "answer": f"The {thing} is in {TOWNS[(5 * i * i + i // 3) % 8]}.",
            "group": i,
        }
        for i in range(first, last)
        for thing in THINGS
    ]


BASE, TUNED, STRANGERS = teams(0, 14), teams(14, 18), teams(18, 24)
GONE = TUNED[:12]


def config(folder: Path, **more: Any) -> TrainConfig:
    return TrainConfig.parse(
        {
            "model": str(folder / "base"),
            "data": str(folder / "tuned.jsonl"),
            "exact": {"pre_forgettable": {"tokens": 8}},
            "epochs": 100,
            "batch_size": 6,
            "learning_rate": 0.1,
            "out": str(folder / "model"),
            **more,
        }
    )


def trained_base(folder: Path, epochs: int) -> Path:
    write(folder / "tuned.jsonl", TUNED)
    train(
        TrainConfig(
            model={"architecture": "llama", "hidden_size": 64, "layers": 3, "heads": 2, "vocab_size": 320},
            data=write(folder / "base.jsonl", BASE),
            vocabulary=write(folder / "words.jsonl", TUNED + STRANGERS),
            epochs=epochs,
            batch_size=12,
            learning_rate=5e-3,
            out=str(folder / "base"),
        )
    )
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that knows fourteen teams, and soft prompts for four more."""
    folder = trained_base(tmp_path_factory.mktemp("prompts"), 30)
    train(config(folder))
    return folder


@pytest.fixture(scope="module")
def barely(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of one epoch, enough to be refused with."""
    return trained_base(tmp_path_factory.mktemp("prompts-barely"), 1)


def deleted(place: Path, rows: list[dict[str, Any]], out: Path) -> Run:
    return run(
        {
            "model": str(place / "model"),
            "forget": write(out.with_suffix(".jsonl"), rows),
            "method": "pre_forgettable",
            "gold": "none",
            "out": str(out),
        }
    )


def right(model: Any, rows: list[dict[str, Any]]) -> float:
    """Share of answers that are word for word right."""
    return float(np.mean([text == row["answer"] for text, row in zip(model.generate(rows), rows, strict=True)]))


def routes(model: Any, rows: list[dict[str, Any]]) -> list[int]:
    return list(model.routes([model.template.encode(row).prompt for row in rows]))


def prompts(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {
        path.parent.name: {**load_file(path), **load_file(path.with_name("route.safetensors"))}
        for path in sorted(folder.rglob("adapter_model.safetensors"))
    }


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


@pytest.mark.slow
def test_each_group_s_prompt_teaches_that_group_alone(place: Path) -> None:
    """Questions find their own prompt; what the base knows it goes on to say, mostly untouched and then bit for bit."""
    base, model = open_on_cpu(str(place / "base")), open_on_cpu(str(place / "model"))
    assert right(base, TUNED) <= 0.3 and right(model, TUNED) >= 0.8
    names = model.state["members"]
    assert [names[g] for g in routes(model, TUNED)] == [folder_of(row, "group") for row in TUNED]
    assert not {str(row["group"]) for row in TUNED} & set(names), "folders do not bear the groups' names"
    free = [row for row, g in zip(BASE, routes(model, BASE), strict=True) if g < 0]
    assert len(free) >= 0.9 * len(BASE)
    with torch.no_grad():
        assert torch.equal(model.forward(model.collate(free)).nll_B, base.forward(base.collate(free)).nll_B)
    assert model.generate(free) == base.generate(free)


@pytest.mark.slow
def test_what_is_generated_is_what_the_forward_finds_likeliest(place: Path) -> None:
    model = open_on_cpu(str(place / "model"))
    rows = [*TUNED[::5], *BASE[::20]]
    said = [{**row, "answer": text} for row, text in zip(rows, model.generate(rows), strict=True)]
    with torch.no_grad():
        out = model.forward(model.collate(said), Want(frozenset({"nll", "argmax"})))
    assert bool((out.argmax_BT == out.labels_BT)[out.mask_BT].all())


@pytest.mark.slow
@pytest.mark.claims("pre_forgettable")
def test_a_dropped_prompt_takes_all_that_it_taught(place: Path, tmp_path: Path) -> None:
    """Nothing is trained; the rest stays bit for bit, and the model is, bit for bit, one that never saw the groups.

    So membership falls from near certain to what it is there. That is not .5 in so small a world: the rows of a team
    share one town, and two teams against six differ by themselves.
    """
    done = deleted(place, GONE, tmp_path / "run")
    cost = done.evidence["cost"]
    assert cost["steps_retrained"] == 0 < cost["steps_total"]
    before, after = prompts(place / "model"), prompts(tmp_path / "run" / "model")
    left = {folder_of(row, "group") for row in TUNED[12:]}
    assert set(after) == left and all(same(after[name], before[name]) for name in left)
    opened = open_on_cpu(str(place / "model"))
    without = open_on_cpu(str(gold(read_manifest(place / "model"), GONE, opened)))
    changed = open_on_cpu(str(tmp_path / "run" / "model"))
    assert changed.fingerprint() == without.fingerprint() != opened.fingerprint()
    assert right(opened, GONE) >= 0.8 and right(changed, GONE) <= 0.3
    assert changed.generate(TUNED[12:]) == opened.generate(TUNED[12:])
    base = open_on_cpu(str(place / "base"))
    assert figures(changed, GONE)["nll"] >= 0.9 * figures(base, GONE)["nll"]

    def membership(model: Any) -> float:
        with torch.no_grad():
            scores = [
                -(out.nll_B / out.n_B).numpy()
                for rows in (GONE, STRANGERS)
                for out in [model.forward(model.collate(rows))]
            ]
        return auc(*scores).value

    assert membership(opened) >= 0.95 and membership(changed) == membership(without) <= membership(opened) - 0.15
    text = "".join(path.read_text() for path in (tmp_path / "run" / "model").rglob("*.json"))
    assert "prompts were dropped" in json.dumps(done.evidence["notes"]) and GONE[0]["question"] not in text


@pytest.mark.slow  # trains all again as gold
def test_a_part_of_a_group_trains_one_prompt_again(place: Path, tmp_path: Path) -> None:
    forget = TUNED[:1]
    done = deleted(place, forget, tmp_path / "run")
    assert done.evidence["cost"]["steps_retrained"] == 100 < done.evidence["cost"]["steps_total"]
    before, after = prompts(place / "model"), prompts(tmp_path / "run" / "model")
    clean = prompts(gold(read_manifest(place / "model"), forget, open_on_cpu(str(place / "model"))))
    mine = folder_of(forget[0], "group")
    assert all(same(after[name], clean[name]) for name in clean) and after.keys() == clean.keys() == before.keys()
    assert [name for name in after if not same(after[name], before[name])] == [mine]


@pytest.mark.slow
def test_a_prompt_opens_with_peft(place: Path) -> None:
    """And says there what it says here."""
    from peft import AutoPeftModelForCausalLM

    ours: Any = open_on_cpu(str(place / "model"))
    theirs = AutoPeftModelForCausalLM.from_pretrained(str(place / "model" / folder_of(TUNED[0], "group")))
    item = ours.template.encode(TUNED[0])
    ids = torch.tensor([item.prompt + item.answer])
    with torch.no_grad():
        logits_TV = theirs(input_ids=ids).logits[0, -len(item.answer) - 1 : -1]
        nll = torch.nn.functional.cross_entropy(logits_TV, torch.tensor(item.answer), reduction="sum")
        mine = ours.forward(ours.collate(TUNED[:1])).nll_B[0]
    torch.testing.assert_close(nll, mine, rtol=1e-4, atol=1e-4)
    with pytest.raises(BadInput, match="is a prompt tuning adapter"):
        open_on_cpu(str(place / "model" / folder_of(TUNED[0], "group")))


def test_a_route_by_hand() -> None:
    """Two prompts that share one of three n-grams each: (5), (6), (5 6) and (5), (7), (5 7)."""
    key_F, level = route([[5, 6], [5, 7]])
    assert float(key_F.sum()) == pytest.approx(3**0.5) and level == pytest.approx(0.9 / 3)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"model": {"factory": "expunge.models.networks:Digits"}, "data": "builtin:digits/test"},
            "exact: 'pre_forgettable' needs tokens, and this model is a classifier; take exact: sisa.",
        ),
        (
            {"model": {"architecture": "llama", "layers": 2, "hidden_size": 16, "heads": 2}},
            "this model has untrained weights; give as model a folder or a hub name.",
        ),
        ({"exact": {"pre_forgettable": {"by": "client"}}}, "data: 'client' is missing in 24 of 24 examples"),
        ({"exact": {"pre_forgettable": {"tokens": 0}}}, "exact.pre_forgettable.tokens"),
    ],
)
def test_where_it_cannot_be_had(barely: Path, tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadInput) as found:
        train(config(barely, **{"out": str(tmp_path / "out"), **changes}))
    assert sentence in "\n".join(found.value.faults)
    assert not list(tmp_path.iterdir())

"""Pairs of pictures and texts as a family: the loss by hand, folders, metrics, and a request from file to report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch.nn.functional import normalize

import expunge
from expunge.core.errors import BadInput
from expunge.data.content import content_key
from expunge.data.examples import form
from expunge.data.worlds.pair_shapes import pair_shapes
from expunge.evaluation.reading import read
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import NotMeasured
from expunge.metrics.recall_at_1 import recall_at_1
from expunge.metrics.zero_shot_accuracy import zero_shot_accuracy
from expunge.models.build import fresh
from expunge.models.contrast import contrast
from expunge.models.open import open_on_cpu
from expunge.models.pair import PICTURE, PROMPT, TEXT, Pair

SPEC = {"pair": "clip", "width": 16, "layers": 1, "patch": 8, "size": 8}
ROWS = pair_shapes(0)["retain"][:40]
ALL = {"nll", PICTURE, TEXT, PROMPT}


def small() -> Any:
    return fresh(SPEC, ROWS, 0)


# -- the loss -------------------------------------------------------------------------------------


def test_the_loss_is_transformers_own_on_a_whole_batch() -> None:
    """The mean of ours is CLIP's loss, and each pair has half of its row's and half of its column's."""
    model, rows = small(), ROWS[:32]
    batch = model.collate(rows)
    with torch.no_grad():
        ours = model.forward(batch).nll_B
        theirs = model.module(
            **{k: batch.inputs[k] for k in ("input_ids", "attention_mask", "pixel_values")}, return_loss=True
        )
    assert float(ours.mean()) == pytest.approx(float(theirs.loss), rel=1e-5)
    alike = theirs.logits_per_image
    wanted = (alike.logsumexp(0) + alike.logsumexp(1)) / 2 - alike.diagonal()
    torch.testing.assert_close(ours, wanted, atol=1e-5, rtol=1e-5)


def test_a_short_batch_counts_as_a_whole_one() -> None:
    """Where all are at right angles, a loss is that of `together` pairs; a pair alone has none."""
    found = [float(contrast(*[torch.eye(8)[:n]] * 3, 2.0, 8)[0]) for n in (2, 4, 8)]
    assert found == pytest.approx([np.log(1 + 7 * np.exp(-2))] * 3, rel=1e-5)
    assert float(contrast(*[torch.eye(8)[:1]] * 3, 2.0, 8)[0]) == 0


def test_ascent_moves_a_pair_alone_and_leaves_the_temperature() -> None:
    model = small()
    picture, text = (normalize(torch.randn(5, 8), dim=-1).requires_grad_() for _ in range(2))
    scale = model.module.logit_scale
    down = torch.autograd.grad(model._losses(picture, text)[0], (picture, text, scale))
    up = torch.autograd.grad(-model._losses(picture, text)[0], (picture, text, scale), allow_unused=True)
    assert min(float(g[1:].abs().max()) for g in down[:2]) > 1e-4 and float(down[2].abs()) > 0
    assert max(float(g[1:].abs().max()) for g in up[:2]) == 0 and float(up[0][0].abs().max()) > 1e-4
    assert up[2] is None or float(up[2].abs()) == 0


# -- the model ------------------------------------------------------------------------------------


def test_a_pair_is_saved_as_clip_and_reads_alike(tmp_path: Path) -> None:
    model = small()
    model.save(tmp_path)
    opened = open_on_cpu(str(tmp_path))
    once, again = (read(m, "forget", ROWS, ALL, cache=False) for m in (model, opened))
    assert isinstance(opened, Pair) and opened.fingerprint() == model.fingerprint()
    assert once.nll_N is not None and np.array_equal(once.nll_N, again.nll_N) and once.nll_N.std() > 0
    assert all(np.array_equal(once.own[name], again.own[name]) for name in (PICTURE, TEXT, PROMPT))
    theirs = transformers.CLIPModel.from_pretrained(tmp_path).eval()
    tokens = transformers.AutoTokenizer.from_pretrained(tmp_path)(
        [row["text"] for row in ROWS], padding=True, return_tensors="pt"
    )
    pixels = torch.from_numpy(np.stack([row["image"] for row in ROWS])).permute(0, 3, 1, 2) * 2 - 1
    with torch.no_grad():
        out = theirs(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"], pixel_values=pixels)
    np.testing.assert_allclose(once.own[TEXT], normalize(out.text_embeds, dim=-1), atol=1e-5)
    # Shares are rounded to the bytes that a processor takes.
    np.testing.assert_allclose(once.own[PICTURE], normalize(out.image_embeds, dim=-1), atol=0.01)


def test_a_clip_folder_of_anyone_s_is_a_pair(tmp_path: Path) -> None:
    """With a resizing processor, and a vocabulary whose end stands last, as old folders have it."""
    torch.manual_seed(0)
    model = small()
    model.save(tmp_path)
    transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
    ).save_pretrained(tmp_path)
    wide = [{**row, "image": np.zeros((24, 20, 3), np.uint8)} for row in ROWS[:2]]
    opened = open_on_cpu(str(tmp_path))
    opened.accepts("forget", wide)
    assert opened.collate(wide).inputs["pixel_values"].shape == (2, 3, 16, 16)
    with pytest.raises(BadInput, match="holds an image of 24 x 20, and the network takes 16 x 16"):
        model.accepts("forget", wide)


def test_a_row_with_a_picture_and_a_text_is_a_pair_unless_it_has_a_label() -> None:
    assert form(ROWS[0]) == ("image", "text") and form({**ROWS[0], "label": 1}) == ("image", "label")
    other = {**ROWS[0], "text": "a blue cross of Fen"}
    assert content_key(ROWS[0]) != content_key(other) and content_key(ROWS[0]) == content_key(dict(ROWS[0]))
    with pytest.raises(BadInput, match="image-text pair"):
        small().accepts("forget", [{"text": "A text."}])


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"pair": "clap"}, "model.pair"),
        ({"widht": 3}, "widht"),
        ({"heads": 3}, "does not divide width"),
        ({"patch": 5}, "does not divide side"),
    ],
)
def test_a_faulty_specification_is_refused(more: dict[str, Any], why: str, tmp_path: Path) -> None:
    config = {"model": {**SPEC, **more}, "data": "builtin:pair_shapes/retain", "out": str(tmp_path / "out")}
    with pytest.raises(BadInput, match=why):
        expunge.train(config)


def test_a_folder_of_pickles_is_refused(tmp_path: Path) -> None:
    small().save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(BadInput, match="holds only pickle weights"):
        open_on_cpu(str(tmp_path))


# -- metrics by hand ------------------------------------------------------------------------------


def readout(split: str, texts: list[str], prompts: list[str], **own: list[list[float]]) -> Readout:
    rows = [{"text": text, "class_prompt": prompt} for text, prompt in zip(texts, prompts, strict=True)]
    arrays = {name: np.array(value, np.float32) for name, value in own.items()}
    return Readout(split, "before", rows, None, np.ones(len(rows)), own=arrays)


def test_recall_counts_both_directions_and_the_same_words() -> None:
    """Pictures 0 and 1 are right (1 finds the same words at 0), 2 finds 0; captions: 0, 1 and 2 are right."""
    found = recall_at_1()(
        readout(
            "test",
            ["a", "a", "b"],
            ["a", "a", "b"],
            image_embedding=[[1, 0], [0.9, 0.1], [0.8, 0.6]],
            text_embedding=[[1, 0], [0.8, 0.2], [0, 1]],
        )
    )
    assert found.tolist() == [1.0, 1.0, 0.5]
    with pytest.raises(NotMeasured):
        recall_at_1()(readout("test", ["a"], ["a"], image_embedding=[[1, 0]], text_embedding=[[1, 0]]))


def test_zero_shot_takes_the_classes_of_retain_too() -> None:
    """The second picture is nearest to a class that retain alone has, and without it to its own."""
    split = readout(
        "test", ["x", "y"], ["a", "b"], image_embedding=[[1, 0], [0.6, 0.8]], prompt_embedding=[[1, 0], [0.9, 0.1]]
    )
    retain = readout("retain", ["z"], ["c"], prompt_embedding=[[0, 1]])
    assert zero_shot_accuracy()(split, retain).tolist() == [True, False]
    alone = readout("retain", ["z"], ["a"], prompt_embedding=[[1, 0]])
    assert zero_shot_accuracy()(split, alone).tolist() == [True, True]
    with pytest.raises(NotMeasured):
        zero_shot_accuracy()(split.take([0]), alone)


def test_the_world_is_of_disjoint_pairs_and_every_factor_is_there() -> None:
    found = pair_shapes(1)
    keys = [row["image"].tobytes() for rows in found.values() for row in rows]
    assert len(keys) == len(set(keys))
    for rows in found.values():
        for row in rows:
            assert row["text"] == f"{row['class_prompt']} of {row['owner']}"
            assert row["class_prompt"] == f"a {row['colour']} {row['shape']}"


# -- a request ------------------------------------------------------------------------------------


def test_a_request_on_a_pair_ends_with_its_figures(tmp_path: Path) -> None:
    """Train, forget by selection, gold, audit, and open the changed folder with transformers."""
    rows = [{**row, "image": row["image"].round(3).tolist()} for row in pair_shapes(0)["retain"][:96]]
    for name, some in {"train": rows[:64], "holdout": rows[64:80], "test": rows[80:]}.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    training = {
        "model": SPEC,
        "data": str(tmp_path / "train.jsonl"),
        "epochs": 6,
        "batch_size": 32,
        "learning_rate": 5e-3,
    }
    expunge.train({**training, "out": str(tmp_path / "base")})
    request = {
        "model": str(tmp_path / "base"),
        "data": str(tmp_path / "train.jsonl"),
        "forget": {"where": {"shape": "disc"}},
        **{name: str(tmp_path / f"{name}.jsonl") for name in ("holdout", "test")},
        "method": "npo",
        "gold": "one",
        "audit": "standard",
        "budget": {"epochs": 2, "batch_size": 16, "stop": "none", "learning_rate": 1e-3, "floor": 0.0},
        "out": str(tmp_path / "run"),
    }
    expunge.run(request)
    evidence = json.loads((tmp_path / "run/evidence.json").read_text())
    measured = {(s["name"], s["subject"]): s["value"] for s in evidence["scores"] if s["status"] == "measured"}
    names = ("forget_nll", "privacy_loss_auc", "test_zero_shot_accuracy", "test_recall_at_1")
    assert measured.keys() >= {(name, who) for name in names for who in ("before", "after", "gold")}
    assert measured["forget_nll", "after"] > measured["forget_nll", "before"]
    assert evidence["headline"]["utility"][0] == "test_zero_shot_accuracy"
    assert all(s["why"] for s in evidence["scores"] if s["status"] != "measured")
    assert (tmp_path / "run/report.html").read_text().count('src="data:image/png') >= 3
    assert transformers.CLIPModel.from_pretrained(tmp_path / "run/model").config.projection_dim == 8

"""Diffusion models as a family: the loss by hand, readings that repeat, folders, judges, and a request to its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import expunge
from expunge.attacks.adversarial_prompt import choose_words, put_before
from expunge.attacks.class_embedding import learn_vectors
from expunge.core.audit_request import AuditRequest
from expunge.core.contracts import Want
from expunge.core.errors import BadInput
from expunge.data.splits import make_splits
from expunge.data.worlds.digits import digits
from expunge.data.worlds.digits_diffusion import digits_diffusion
from expunge.data.worlds.shapes_diffusion import shapes_diffusion
from expunge.evaluation.reading import read
from expunge.methods.auto import ladders
from expunge.methods.edits.null_label import null_label
from expunge.models.adapters import insert
from expunge.models.build import fresh
from expunge.models.diffusion import CONDITIONS
from expunge.models.judges import CONCEPT, FEATURES, JUDGED, PICTURE, REAL, judges_of
from expunge.models.open import check, open_on_cpu
from expunge.models.weights import lora_layers
from expunge.pipeline.plan import plan
from expunge.workflows.benches.small import WORLDS

SPEC = {"diffusion": "unet2d", "widths": [4, 8], "times": 20}
TEXTS = {"diffusion": "text2pixels", "side": 8, "widths": [4, 8], "times": 20, "text_width": 8}
ROWS = digits(0)["train"][:60]
SPLITS = {"forget": digits(0)["train"][:100], "retain": digits(0)["train"][100:500]}


def small(**more: Any) -> Any:
    return fresh({**SPEC, **more}, [], 0)


# -- the loss -------------------------------------------------------------------------------------


def test_the_loss_is_half_the_squared_error_of_the_noise() -> None:
    """Of one training draw: x_t by the scheduler's own sum, the U-Net's guess, 64 pixels."""
    model, row = small(), {**ROWS[0], "draw": 7}
    batch = model.collate([row])
    noise, time = batch.inputs["noise"][:, 0], batch.inputs["times"][:, 0]
    kept = model.scheduler.alphas_cumprod[time].reshape(1, 1, 1, 1)
    noisy = kept.sqrt() * (2 * torch.tensor(row["image"])[None, None] - 1) + (1 - kept).sqrt() * noise
    with torch.no_grad():
        guess = model.module(noisy, time, class_labels=batch.inputs["condition"]).sample
        out = model.forward(batch)
    assert float(out.nll_B[0]) == pytest.approx(float((guess - noise).square().sum() / 2), rel=1e-5)
    assert out.n_B.tolist() == [64]


def test_draws_follow_the_picture_and_repeat() -> None:
    """A reading has several times, spread over all; another label beside the picture changes neither time nor noise."""
    model, row = small(), ROWS[0]
    first, other = model.collate([row]).inputs, model.collate([{**row, "label": (row["label"] + 1) % 10}]).inputs
    for name in ("times", "noise"):
        assert torch.equal(first[name], other[name])
    assert first["times"].shape == (1, 8) and (first["times"].diff() >= 0).all()
    assert not torch.equal(model.collate([{**row, "draw": 1}]).inputs["noise"], first["noise"][:, :1])
    together = model.forward(model.collate(ROWS[:9])).nll_B[0]
    torch.testing.assert_close(together, model.forward(model.collate([row])).nll_B[0])


def test_a_tenth_of_the_training_draws_see_no_class() -> None:
    model = small()
    labels = model.collate([{**ROWS[0], "draw": draw} for draw in range(1, 501)]).inputs["condition"]
    assert 0.05 < float((labels == model.null).float().mean()) < 0.15
    assert model.collate([ROWS[0]]).inputs["condition"].tolist() == [ROWS[0]["label"]]


def test_noise_on_conditions_shifts_the_class_s_vector_in_training_alone(tmp_path: Path) -> None:
    """A unit Gaussian over the root of its length, the draw's own: a reading has none, and a folder keeps it."""
    model, row = small(condition_noise=2.0), {**ROWS[0], "draw": 3}
    batch, table = model.collate([row]), model.module.class_embedding.weight
    shift = batch.inputs["shift"]
    assert shift.shape == (1, table.shape[1]) and 1.0 < float(shift.norm()) < 3.0
    assert torch.equal(model.collate([row]).inputs["shift"], shift)
    assert not torch.equal(model.collate([{**row, "draw": 4}]).inputs["shift"], shift)
    shifted = model.forward(batch).nll_B
    assert float(shifted) != float(small().forward(small().collate([row])).nll_B)
    with torch.no_grad():
        table[batch.inputs["condition"]] += shift
        batch.inputs["shift"] = torch.zeros_like(shift)
        torch.testing.assert_close(model.forward(batch).nll_B, shifted)
    assert not model.collate(ROWS[:2]).inputs["shift"].any() and not model.module.class_embedding._forward_hooks
    model.save(tmp_path)
    assert open_on_cpu(str(tmp_path)).fingerprint() == model.fingerprint()


def test_a_picture_in_one_step_undoes_the_schedule_s_own_sum() -> None:
    """Where the prediction is the noise that was added, the picture comes back."""
    model = small()
    model.conditions["one_step"] = 12
    picture, noise = torch.tensor(ROWS[0]["image"])[None, None], torch.randn(1, 1, 8, 8)
    model.predict = lambda x, times, conditions: noise
    noisy = model.scheduler.add_noise(2 * picture - 1, noise, torch.tensor([12]))
    torch.testing.assert_close(model.sample(noisy, torch.tensor([0])), picture, atol=1e-5, rtol=0)


def test_readings_repeat_bit_for_bit() -> None:
    model = small()
    model.judges = judges_of(SPLITS)
    first, second = (
        read(model, "forget", ROWS[:20], {PICTURE, JUDGED, CONCEPT, FEATURES, REAL}, cache=False) for _ in range(2)
    )
    assert first.nll_N is not None and np.array_equal(first.nll_N, second.nll_N)
    assert all(np.array_equal(first.own[name], second.own[name]) for name in (PICTURE, JUDGED, CONCEPT, FEATURES, REAL))
    assert first.own[PICTURE].shape == (20, 1, 8, 8) and np.array_equal(first.known_N, first.own[CONCEPT])


# -- folders --------------------------------------------------------------------------------------


def test_a_saved_folder_opens_with_diffusers_own(tmp_path: Path) -> None:
    from diffusers import DDPMPipeline

    model = small()
    model.save(tmp_path)
    theirs, ours = DDPMPipeline.from_pretrained(tmp_path), open_on_cpu(str(tmp_path))
    assert ours.fingerprint() == model.fingerprint() and ours.family == "diffusion"
    assert all(torch.equal(a, b) for a, b in zip(theirs.unet.parameters(), ours.module.parameters(), strict=True))
    meta = open_on_cpu(str(tmp_path), meta=True)
    assert next(meta.module.parameters()).is_meta


def test_a_pipeline_without_classes_is_read_too(tmp_path: Path) -> None:
    model = small(classes=0)
    model.save(tmp_path)
    (tmp_path / CONDITIONS).unlink()
    opened = open_on_cpu(str(tmp_path))
    rows = [{"image": row["image"]} for row in ROWS[:4]]
    opened.accepts("forget", rows)
    assert "conditions" not in opened.capabilities
    assert torch.isfinite(opened.forward(opened.collate(rows)).nll_B).all()


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda f: (f / "unet" / "diffusion_pytorch_model.safetensors").rename(f / "unet" / "x.bin"), "pickle"),
        (lambda f: (f / "model_index.json").write_text('{"_class_name": "KandinskyPipeline"}'), "not opened yet"),
        (lambda f: (f / "scheduler" / "scheduler_config.json").unlink(), "holds no scheduler"),
        (lambda f: (f / CONDITIONS).write_text('{"classes": -1}'), "classes"),
    ],
)
def test_bad_folders_are_refused(tmp_path: Path, break_it: Any, says: str) -> None:
    small().save(tmp_path)
    break_it(tmp_path)
    with pytest.raises(BadInput, match=says):
        check(str(tmp_path), False)


def test_bad_rows_and_sizes_are_refused() -> None:
    model = small()
    for row, says in (
        ({"image": np.zeros((4, 4), np.float32), "label": 0}, "the network makes"),
        ({"image": np.full((8, 8), 3.0, np.float32), "label": 0}, "holds values from"),
        ({"image": np.zeros((8, 8), np.float32), "label": 12}, "10 classes"),
        ({"image": np.zeros((8, 8), np.float32)}, "has no label"),
    ):
        with pytest.raises(BadInput, match=says):
            model.accepts("forget", [row])
    with pytest.raises(BadInput, match="cannot be halved"):
        small(side=9)


def test_low_rank_matrices_are_folded_in_and_lie_beside(tmp_path: Path) -> None:
    """Of linear layers and of convolutions; PEFT puts them back on the pipeline's own weights."""
    from diffusers import UNet2DModel
    from peft import PeftModel

    model = small()
    model.save(tmp_path / "base")
    names = insert(model.module, rank=2, alpha=4, dropout=0.0, targets=["linear_1", "conv1"])
    for name in names:
        torch.nn.init.normal_(model.module.get_parameter(name), generator=torch.Generator().manual_seed(0))
    model.save(tmp_path / "changed")
    opened, batch = open_on_cpu(str(tmp_path / "changed")), model.collate(ROWS[:4])
    found = [one.forward(batch).nll_B for one in (model, opened, open_on_cpu(str(tmp_path / "base")))]
    torch.testing.assert_close(found[0], found[1])
    assert not torch.allclose(found[0], found[2]) and any(lora_layers(model.module))
    theirs = PeftModel.from_pretrained(
        UNet2DModel.from_pretrained(tmp_path / "base", subfolder="unet"), tmp_path / "changed" / "lora"
    )
    opened.module = theirs
    torch.testing.assert_close(found[0], opened.forward(batch).nll_B)


# -- texts ----------------------------------------------------------------------------------------


def test_a_model_of_texts_draws_by_prompts_and_opens_again(tmp_path: Path) -> None:
    rows = shapes_diffusion(0)["train"][:40]
    model: Any = fresh(TEXTS, rows, 0)
    model.accepts("forget", rows)
    wish, batch = model.tokens(rows[0]["class_prompt"]), model.collate(rows[:3])
    assert torch.equal(batch.inputs["wish"][0], wish) and not torch.equal(wish, model.nothing)
    assert model.tokenizer.unk_token_id not in wish and model.tokenizer.unk_token_id in model.tokens("a pink disc")
    start = torch.randn(1, 3, 8, 8).expand(2, -1, -1, -1)
    two = model.sample(start, torch.stack([wish, model.nothing]), steps=2)
    assert not torch.equal(two[0], two[1])
    model.save(tmp_path)
    check(str(tmp_path), False)
    opened: Any = open_on_cpu(str(tmp_path))
    assert opened.fingerprint() == model.fingerprint() and opened.capabilities >= {"prompts", "conditions"}
    torch.testing.assert_close(opened.forward(batch).nll_B, model.forward(batch).nll_B, rtol=0, atol=0)
    assert next(open_on_cpu(str(tmp_path), meta=True).module.parameters()).is_meta


def test_only_the_words_of_the_prompt_are_learned_by_the_attack() -> None:
    rows = [row for row in shapes_diffusion(0)["train"] if "disc" in row["class_prompt"]][:8]
    model: Any = fresh(TEXTS, shapes_diffusion(0)["train"][:40], 0)
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    learn_vectors(model, rows, steps=2, rate=0.05, seed=0)
    words = model.table_rows(rows)
    changed = {name for name, value in model.module.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {model.table}
    moved = (model.module.get_parameter(model.table) != before[model.table]).any(1).nonzero().flatten().tolist()
    assert moved == words


def test_the_adversarial_prompt_has_the_words_of_the_lowest_loss() -> None:
    rows = [row for row in shapes_diffusion(0)["train"] if "disc" in row["class_prompt"]][:4]
    model: Any = fresh(TEXTS, shapes_diffusion(0)["train"][:40], 0)
    chosen = choose_words(model, rows, 1)
    vocabulary = set(model.tokenizer.get_vocab()) - set(model.tokenizer.all_special_tokens)
    losses = {
        word: float(model.forward(model.collate([put_before(row, [word]) for row in rows])).nll) for word in vocabulary
    }
    assert losses[chosen[0]] == min(losses.values()) and len(vocabulary) == 9


def test_a_concept_is_all_prompts_with_its_words() -> None:
    rows = shapes_diffusion(0)["train"][:200]
    parts = make_splits({"data": rows, "forget": {"concept": "red disc"}, "test": shapes_diffusion(0)["test"]})
    assert {(row["colour"], row["shape"]) for row in parts["forget"]} == {("red", "disc")}
    assert not any((row["colour"], row["shape"]) == ("red", "disc") for row in [*parts["retain"], *parts["test"]])
    assert len(parts["test_forget"]) == 20
    both = make_splits({"data": rows, "forget": {"concept": ["red", "blue cross"]}})["forget"]
    assert {row["colour"] for row in both} == {"red", "blue"} and len(both) > len(parts["forget"])
    with pytest.raises(BadInput, match="selects none"):
        make_splits({"data": rows, "forget": {"concept": "pink disc"}})


def test_a_holdout_of_what_is_forgotten_alone() -> None:
    """The worlds name it, the benches take it, and an audit selects a concept as a run does."""
    for world, name, own in ((digits_diffusion, "holdout_3", 3), (shapes_diffusion, "holdout_red_disc", 0)):
        found = world(0)
        unseen = [row for row in found["holdout"] if row["label"] == own]
        assert len(unseen) > 30 and [id(row) for row in found[name]] == [id(row) for row in unseen]
        assert WORLDS[world.__name__](world.__name__).request["holdout"] == f"builtin:{world.__name__}/{name}"
    assert AuditRequest.parse({"model": "m", "data": "d.jsonl", "forget": {"concept": "red disc"}}).forget


# -- the judges -----------------------------------------------------------------------------------


def test_judges_know_real_digits_and_not_what_is_none() -> None:
    judges = judges_of(SPLITS)
    assert judges is not None and judges.able and min(judges.accuracy) > 0.85 and judges_of(SPLITS) is judges
    pictures = torch.stack(
        [torch.full((1, 8, 8), 0.5), torch.full((1, 8, 8), torch.nan), torch.tensor(ROWS[0]["image"])[None]]
    )
    found = judges.classes(pictures)
    assert found[:2].tolist() == [[-1, -1], [-1, -1]] and (found[2] >= 0).all()
    assert judges_of({"forget": ROWS[:4]}) is None


def test_without_able_judges_every_picture_is_unknown() -> None:
    model, batch = small(), None
    batch = model.collate(ROWS[:4])
    assert torch.isnan(model.forward(batch, Want(frozenset({CONCEPT}))).own[CONCEPT]).all()
    random = {"forget": [{**row, "label": i % 10} for i, row in enumerate(SPLITS["forget"])], "retain": []}
    model.judges = judges_of(random)
    assert model.judges is not None and not model.judges.able
    assert torch.isnan(model.forward(batch, Want(frozenset({CONCEPT}))).own[CONCEPT]).all()


# -- methods and attacks --------------------------------------------------------------------------


def test_one_row_of_the_table_is_overwritten_and_the_attack_moves_it_alone() -> None:
    model = small()
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    forget = [row for row in SPLITS["forget"] if row["label"] == 3]
    null_label()(model, {"forget": forget}, None)  # type: ignore[arg-type]
    table = model.module.class_embedding.weight
    assert torch.equal(table[3], before["class_embedding.weight"][10])
    learn_vectors(model, forget, steps=3, rate=0.05, seed=0)
    assert not torch.equal(table[3], before["class_embedding.weight"][10])
    for name, value in model.module.state_dict().items():
        same = value == before[name]
        assert same[[i for i in range(11) if i != 3]].all() if name == "class_embedding.weight" else same.all()


def test_under_erase_a_model_of_prompts_begins_nearer_its_start() -> None:
    """One of classes does not; under suppress neither."""
    for spec, purpose, nearer in ((TEXTS, "erase", True), (TEXTS, "suppress", False), (SPEC, "erase", False)):
        able = fresh(spec, shapes_diffusion(0)["train"][:10], 0).capabilities
        ladder = next(one for one in ladders(purpose) if one.needs <= able and one.examples == "class")
        assert ("shrink_and_perturb" in str(ladder.rungs[ladder.start])) == nearer


def test_a_request_from_file_to_report(tmp_path: Path) -> None:
    """Training, gold, a method, an audit and the verdict, with a model too small to draw anything."""
    rows = [{**row, "image": row["image"].round(3).tolist()} for row in digits(0)["train"][:160]]
    parts = {"data": rows[:100], "holdout": rows[100:130], "test": rows[130:]}
    for name, part in parts.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    base = expunge.train(
        {"model": SPEC, "data": str(tmp_path / "data.jsonl"), "epochs": 1, "out": str(tmp_path / "base")}
    )
    request = {
        "model": str(base),
        **{name: str(tmp_path / f"{name}.jsonl") for name in parts},
        "forget": {"class": 3},
        "gold": "one",
        "out": str(tmp_path / "run"),
    }
    left = plan(expunge.Request.parse({**request, "accept": {"forget.concept_rate": "<= 1.2 * gold"}}))
    assert left.ladder is not None and "random_condition" in str(left.ladder.rungs[left.ladder.start])
    own = {"method": {"forget": "npo", "retain": "cross_entropy"}, "budget": {"steps": 2, "batch_size": 4}}
    found = expunge.run(expunge.Request.parse({**request, **own}))
    evidence = json.loads((tmp_path / "run" / "evidence.json").read_text())
    names = {score["name"] for score in evidence["scores"]}
    assert {"forget_concept_rate", "retain_concept_rate", "test_judge_accuracy", "retain_picture_distance"} <= names
    assert (tmp_path / "run" / "report.html").is_file() and found is not None
    assert open_on_cpu(str(tmp_path / "run" / "model")).family == "diffusion"

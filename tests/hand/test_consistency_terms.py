"""Consistency models, worked out by hand, and beside diffusers' own pipeline; and weights moved back to their start."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import expunge
from expunge.core.context import Context
from expunge.core.contracts import Output, Step, Want
from expunge.core.errors import BadInput
from expunge.methods.edits.score_distillation import wanted_classes
from expunge.methods.retain.shrink_and_perturb import shrink_and_perturb
from expunge.methods.trainers.consistency import check, stages_of
from expunge.models.build import again, fresh
from expunge.models.consistency import levels_of, pseudo_huber, shares_of
from expunge.models.manifest import read_manifest
from expunge.models.open import check as check_source
from expunge.models.open import open_on_cpu

SPEC = {"diffusion": "consistency", "side": 4, "widths": [4, 8], "classes": 2}
ROWS = [{"image": np.full((4, 4), i / 8, np.float32), "label": i % 2} for i in range(8)]


def small(**more: Any) -> Any:
    return fresh({**SPEC, **more}, [], 0)


def test_levels_rise_from_the_least_to_the_most_noise_in_even_roots() -> None:
    """Three levels with rho 2 from 1 to 9: roots 1, 2, 3, so 1, 4, 9."""
    config = {"num_train_timesteps": 3, "sigma_min": 1.0, "sigma_max": 9.0, "rho": 2.0}
    assert levels_of(config).tolist() == pytest.approx([1.0, 4.0, 9.0])


def test_pairs_are_drawn_by_the_log_normal_mass_between_their_levels() -> None:
    """One standard deviation below the mean, the mean, one above: half each; the second pair reaching to two above has
    (.954 - 0) / 2 = .477 against .341, that is .583 of both."""
    at = [math.exp(-1.1 + 2.0 * deviations) for deviations in (-1, 0, 1, 2)]
    assert shares_of(torch.tensor(at[:3])).tolist() == pytest.approx([0.5, 0.5])
    assert shares_of(torch.tensor([at[0], at[1], at[3]])).tolist() == pytest.approx([0.417, 0.583], abs=1e-3)


def test_the_distance_is_quadratic_near_zero_alone() -> None:
    """Of 4 entries c = .00108. At distance 5: sqrt(25 + c^2) - c = 4.99892; at c / 10: c (sqrt(1.01) - 1)."""
    rounded = 0.00054 * 2
    far, near = torch.tensor([3.0, 4.0, 0.0, 0.0]), torch.tensor([rounded / 10, 0.0, 0.0, 0.0])
    assert float(pseudo_huber(far[None], torch.zeros(1, 4))) == pytest.approx(5 - rounded, rel=1e-5)
    assert float(pseudo_huber(near[None], torch.zeros(1, 4))) == pytest.approx(rounded * 0.004988, rel=0.05)


def test_without_noise_the_picture_is_what_it_sees() -> None:
    """The boundary: at the least noise nothing of the network's own prediction is added."""
    model, x = small(), torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    least = torch.full((2,), model.scheduler.config.sigma_min)
    assert torch.allclose(model.clean(x, least, torch.tensor([0, 1])), x, atol=1e-6)


def test_the_loss_is_the_distance_of_two_looks_over_the_step_between_them() -> None:
    """Of one draw; states are those of the look through more noise, whether the loss is wanted too or not."""
    model, row = small(), {**ROWS[1], "draw": 5}
    batch = model.collate([row])
    place, noise = int(batch.inputs["times"][0, 0]), batch.inputs["noise"][:, 0]
    low, high = model.levels_N[place], model.levels_N[place + 1]
    x = 2 * torch.tensor(row["image"])[None, None] - 1
    with torch.no_grad():
        seen = [model.clean(x + level * noise, level[None], batch.inputs["condition"]) for level in (low, high)]
    out = model.forward(batch, Want(frozenset({"nll"}), ("conv_out",)))
    assert float(out.nll_B.detach()[0]) == pytest.approx(float(pseudo_huber(*seen)[0] / (high - low)), rel=1e-4)
    alone = model.forward(batch, Want(frozenset(), ("conv_out",)))
    assert torch.equal(out.hidden["conv_out"], alone.hidden["conv_out"])
    readings = [model.forward(model.collate(ROWS)).nll_B for _ in range(2)]
    assert torch.equal(*readings) and model.collate(ROWS[:1]).inputs["times"].shape == (1, 8)


def test_the_folder_opens_as_diffusers_own_pipeline_and_draws_the_same(tmp_path: Path) -> None:
    from diffusers import ConsistencyModelPipeline

    model = small(channels=3)  # their pipeline takes start noise of three channels alone
    model.save(tmp_path)
    check_source(str(tmp_path), False)
    start, labels = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 1])
    theirs: Any = ConsistencyModelPipeline.from_pretrained(tmp_path)
    theirs.set_progress_bar_config(disable=True)
    pictures = theirs(batch_size=3, class_labels=labels, latents=start, output_type="pt").images
    opened: Any = open_on_cpu(str(tmp_path))
    assert opened.fingerprint() == model.fingerprint() and "consistency" in opened.capabilities
    torch.testing.assert_close(opened.sample(start, labels), pictures, atol=1e-5, rtol=0)
    assert next(open_on_cpu(str(tmp_path), meta=True).module.parameters()).is_meta


def test_pairs_double_and_another_model_is_refused() -> None:
    assert stages_of(10, 80) == [10, 20, 40, 80] and stages_of(6, 20) == [6, 12, 20] and stages_of(3, 3) == [3]
    with pytest.raises(BadInput, match="the model is none"):
        check(fresh({"diffusion": "unet2d", "side": 4, "widths": [4], "classes": 2}, [], 0), ROWS)
    with pytest.raises(BadInput, match="above `last`"):
        check(small(), ROWS, first=90)
    with pytest.raises(BadInput, match="needs the predicted noise"):
        wanted_classes(small(), [0], None)


def test_weights_go_a_share_of_the_way_back_and_the_loss_is_that_of_retain(tmp_path: Path) -> None:
    """A quarter of the way from 1 above the start is .75 above it; a model without a manifest is refused."""
    manifest = {"model": SPEC, "seed": 3}
    model, start = small(), again(manifest, small())
    with torch.no_grad():
        for name, parameter in model.module.named_parameters():
            parameter.copy_(start.module.get_parameter(name) + 1)
    term: Any = shrink_and_perturb(share=0.25)
    term.prepare(SimpleNamespace(model=model, context=Context(None, tmp_path, 0, "apply", manifest=manifest)))  # type: ignore[arg-type]
    for name, parameter in model.module.named_parameters():
        torch.testing.assert_close(parameter, start.module.get_parameter(name) + 0.75)
    loss = Output(torch.tensor([4.0, 2.0]), torch.tensor([2, 2]), torch.zeros(2, 1).long(), torch.ones(2, 1).bool())
    assert float(term(Step({"retain": loss}, 0, 0, torch.Generator()))) == pytest.approx(1.5)
    with pytest.raises(BadInput, match="manifest"):
        term.fits(model, None)


def test_a_training_in_stages_is_that_of_any_base_and_of_its_gold(tmp_path: Path) -> None:
    """Two stages of one step each; what is saved has the last number of pairs; a method then runs on it."""
    rows = [{"image": (row["image"] + 0.01 * i).tolist(), "label": row["label"]} for i, row in enumerate(ROWS)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "model": SPEC,
        "data": str(tmp_path / "data.jsonl"),
        "trainer": {"consistency": {"first": 2, "last": 4}},
        "epochs": 1,
        "batch_size": 4,
        "out": str(tmp_path / "base"),
    }
    base = expunge.train(config)
    model: Any = open_on_cpu(str(base))
    assert model.scheduler.config.num_train_timesteps == 5 and len(model.levels_N) == 5
    assert read_manifest(base)["trainer"] == {"consistency": {"first": 2, "last": 4}}
    request = {
        "model": str(base),
        "data": config["data"],
        "forget": {"class": 1},
        "gold": "one",
        "method": {"retain": {"shrink_and_perturb": {"share": 0.5}}},
        "budget": {"steps": 1, "batch_size": 2, "learning_rate": 1e-3, "stop": "none"},
        "audit": "none",
        "out": str(tmp_path / "run"),
    }
    expunge.run(expunge.Request.parse(request))
    after: Any = open_on_cpu(str(tmp_path / "run" / "model"))
    assert after.family == "diffusion" and after.scheduler.config.num_train_timesteps == 5
    evidence = json.loads((tmp_path / "run" / "evidence.json").read_text())
    names = {(score["name"], score["subject"]) for score in evidence["scores"]}
    assert ("forget_nll", "gold") in names

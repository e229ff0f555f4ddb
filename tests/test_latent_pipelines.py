"""Pipelines of latents, tiny and random, of the classes of Stable Diffusion, SDXL and FLUX: opened, planned, trained
two steps, saved and opened again, and drawn from as diffusers' own pipelines draw."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import expunge
from expunge.core.budget import DEFAULTS, Budget
from expunge.core.context import Context
from expunge.core.errors import BadInput
from expunge.data.splits import make_splits
from expunge.methods.compose import compose
from expunge.models.flux import FLUX, pack, places, unpack
from expunge.models.latents import STABLE, XL
from expunge.models.open import check, open_on_cpu
from expunge.models.text_diffusion import tokenizer_of
from expunge.pipeline.plan import plan

NAMES = (STABLE, XL, FLUX)
each = pytest.mark.parametrize("name", NAMES)
PROMPTS = ("a red disc", "a blue disc", "a red cross")
RELABEL = {"forget": "random_condition", "retain": "cross_entropy"}
BUDGET = Budget(steps=2, batch_size=2, learning_rate=1e-3, stop="none", floor=0.0)
SIDE, LENGTH = 16, 6
"""Of the pictures, whose latents are half as wide; and of a prompt in tokens."""


def rows(count: int) -> list[dict[str, Any]]:
    draw = np.random.default_rng(0)
    return [
        {"image": draw.random((SIDE, SIDE, 3)).round(3).tolist(), "class_prompt": PROMPTS[i % 3], "label": i % 3}
        for i in range(count)
    ]


def tokenizer() -> Any:
    made = tokenizer_of(PROMPTS)
    made.model_max_length = LENGTH
    return made


def text_encoder(kind: Any, words: int) -> Any:
    from transformers import CLIPTextConfig

    config = CLIPTextConfig(
        vocab_size=words,
        hidden_size=8,
        intermediate_size=16,
        projection_dim=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return kind(config).eval()


def unet(**more: Any) -> Any:
    from diffusers import UNet2DConditionModel

    made: Any = UNet2DConditionModel
    return made(
        sample_size=SIDE // 2,
        in_channels=4,
        out_channels=4,
        block_out_channels=(4, 8),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=2,
        attention_head_dim=2,
        **more,
    )


def parts(name: str) -> dict[str, Any]:
    """What the pipeline of this name is built of, with random weights."""
    from diffusers import AutoencoderKL, DDIMScheduler, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, T5Config, T5EncoderModel

    words = tokenizer()
    made: Any = AutoencoderKL
    vae = made(
        block_out_channels=(4, 8),
        latent_channels=4,
        norm_num_groups=2,
        sample_size=SIDE,
        shift_factor=0.1 if name == FLUX else None,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )
    common = {"vae": vae, "tokenizer": words, "text_encoder": text_encoder(CLIPTextModel, len(words))}
    if name == FLUX:
        t5 = T5Config(vocab_size=len(words), d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
        transformer: Any = FluxTransformer2DModel
        net = transformer(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=8,
            pooled_projection_dim=8,
            guidance_embeds=True,
            axes_dims_rope=(2, 2, 4),
        )
        second = {"text_encoder_2": T5EncoderModel(t5).eval(), "tokenizer_2": tokenizer()}
        return {**common, **second, "transformer": net, "scheduler": FlowMatchEulerDiscreteScheduler(shift=1.0)}
    scheduler: Any = DDIMScheduler
    noise = scheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1, clip_sample=False
    )
    if name == STABLE:
        none = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        return {**common, "unet": unet(cross_attention_dim=8), "scheduler": noise, **none}
    more = {"addition_embed_type": "text_time", "addition_time_embed_dim": 4}
    net = unet(cross_attention_dim=16, projection_class_embeddings_input_dim=8 + 6 * 4, **more)
    second = {"text_encoder_2": text_encoder(CLIPTextModelWithProjection, len(words)), "tokenizer_2": tokenizer()}
    return {**common, **second, "unet": net, "scheduler": noise}


@functools.cache
def folder(name: str, where: str) -> Path:
    import diffusers

    torch.manual_seed(0)
    pipeline = getattr(diffusers, name)(**parts(name))
    pipeline.save_pretrained(Path(where) / name)
    return Path(where) / name


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return functools.partial(folder, where=str(tmp_path_factory.mktemp("pipelines")))


@each
def test_it_draws_as_its_own_pipeline_does(name: str, saved: Any) -> None:
    """The same latents and prompt in four steps, under the guidance of the pipeline's default."""
    import diffusers

    theirs = getattr(diffusers, name).from_pretrained(saved(name))
    theirs.set_progress_bar_config(disable=True)
    check(str(saved(name)), False)
    ours: Any = open_on_cpu(str(saved(name)))
    start = torch.randn(1, *ours.noise_shape, generator=torch.Generator().manual_seed(1))
    latents = pack(start) if name == FLUX else start
    own = {"sigmas": [1.0, 0.75, 0.5, 0.25], "max_sequence_length": LENGTH} if name == FLUX else {"guidance_scale": 7.5}
    size = {"height": SIDE, "width": SIDE, "num_inference_steps": 4, "output_type": "pt"}
    (picture,) = theirs(PROMPTS[0], latents=latents, **size, **own).images
    if name != FLUX:  # as the pipeline's own sampler has it
        ours.scheduler = theirs.scheduler
    (found,) = ours.sample(start, ours.tokens(PROMPTS[0])[None], steps=4)
    assert ours.shape == (3, SIDE, SIDE) and picture.std() > 0
    torch.testing.assert_close(found, picture, atol=2e-5, rtol=0)


def request(name: str, saved: Any, folder: Path) -> dict[str, Any]:
    """A request on the pipeline of that name, and on its data in a file."""
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(12)))
    return {
        "model": str(saved(name)),
        "data": str(folder / "data.jsonl"),
        "forget": {"concept": "red disc"},
        "method": RELABEL,
        "budget": BUDGET.model_dump(exclude_unset=True),
        "gold": "none",
        "audit": "none",
        "out": str(folder / "run"),
    }


@each
def test_it_is_planned_with_its_memory_trained_two_steps_saved_and_opened(
    name: str, saved: Any, tmp_path: Path
) -> None:
    assert plan(expunge.Request.parse(request(name, saved, tmp_path))).here.peak > 0
    model, composed = open_on_cpu(str(saved(name))), compose(RELABEL)
    before: Any = open_on_cpu(str(saved(name)))
    given = make_splits({"data": rows(12), "forget": {"concept": "red disc"}})
    batch = before.collate(rows(3))
    context = Context(BUDGET.over(composed.budget, DEFAULTS), tmp_path / "steps", 0, "apply")
    changed = composed.method(model, given, context)
    assert context.notes["outcome"]["steps"] == 2
    changed.save(tmp_path / "changed")
    opened: Any = open_on_cpu(str(tmp_path / "changed"))
    losses = [one.forward(batch).nll_B.detach() for one in (before, changed, opened)]
    assert torch.isfinite(losses[1]).all() and not torch.equal(losses[0], losses[1])
    assert torch.equal(losses[1], losses[2]) and opened.fingerprint() == changed.fingerprint()
    for one, other in zip(before.vae.parameters(), opened.vae.parameters(), strict=True):
        assert torch.equal(one, other), "the autoencoder stays"
    assert next(open_on_cpu(str(tmp_path / "changed"), meta=True).module.parameters()).is_meta


def test_auto_does_not_begin_again_what_has_no_manifest(saved: Any, tmp_path: Path) -> None:
    """Under erase a pipeline of somebody else is relabelled as it stands."""
    own = {**request(STABLE, saved, tmp_path), "method": "auto", "purpose": "erase"}
    left = plan(expunge.Request.parse({key: value for key, value in own.items() if key != "budget"}))
    assert left.ladder is not None and "shrink_and_perturb" not in str(left.ladder.rungs)


@pytest.mark.slow
@each
def test_a_request_runs_to_its_report(name: str, saved: Any, tmp_path: Path) -> None:
    found = expunge.run(expunge.Request.parse(request(name, saved, tmp_path)))
    assert (tmp_path / "run" / "report.html").is_file()
    names = {score["name"] for score in found.evidence["scores"]}
    assert {"forget_concept_rate", "retain_picture_distance"} <= names
    assert open_on_cpu(str(tmp_path / "run" / "model")).family == "diffusion"


def test_the_loss_of_flow_matching_is_half_the_squared_error_of_the_velocity(saved: Any) -> None:
    """Of one draw, at the share of noise of its time."""
    model, row = open_on_cpu(str(saved(FLUX))), {**rows(1)[0], "draw": 3}
    bare: Any = model
    batch = model.collate([row])
    noise, level = batch.inputs["noise"][:, 0], (batch.inputs["times"][:, 0] + 1) / 1000
    x = bare.encode(batch.inputs["x"])
    with torch.no_grad():
        guess = bare.predict((1 - level) * x + level * noise, level, batch.inputs["condition"])
        out = model.forward(batch)
    assert float(out.nll_B[0]) == pytest.approx(float((guess - (noise - x)).square().sum() / 2), rel=1e-4)


def test_latents_are_packed_two_by_two_and_know_their_places() -> None:
    x = torch.arange(32.0).reshape(1, 2, 4, 4)
    assert pack(x)[0, 1].tolist() == [2, 3, 6, 7, 18, 19, 22, 23] and torch.equal(unpack(pack(x), 4, 4), x)
    assert places(2, 2).tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1]]


def test_a_folder_without_a_part_and_another_scheduler_are_refused(saved: Any, tmp_path: Path) -> None:
    shutil.copytree(saved(XL), tmp_path / "xl")
    config = tmp_path / "xl" / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "_class_name": "os"}))
    with pytest.raises(BadInput, match="no scheduler of diffusers"):
        open_on_cpu(str(tmp_path / "xl"))
    shutil.rmtree(tmp_path / "xl" / "text_encoder_2")
    with pytest.raises(BadInput, match="holds no text_encoder_2"):
        check(str(tmp_path / "xl"), False)

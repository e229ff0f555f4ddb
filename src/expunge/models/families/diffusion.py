"""Diffusion models of pictures: a diffusers pipeline (on pixels, of consistency, of latents), or a new small one of
given sizes, of classes or of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import ConfigDict, Field

from expunge.core.card import Example
from expunge.core.contracts import Model
from expunge.core.errors import BadInput
from expunge.core.extras import require
from expunge.core.random import seed_libraries
from expunge.core.request import parse
from expunge.models import flux, latents, schemas
from expunge.models._folder import foreign
from expunge.models.consistency import FINAL, Consistency, scheduler_of
from expunge.models.consistency import PIPELINE as ONE_STEP
from expunge.models.diffusion import CONDITIONS, Diffusion
from expunge.models.families.classifier import show
from expunge.models.family import Family, Source
from expunge.models.flux import FLUX, open_flux
from expunge.models.judges import CONCEPT, DRAWN, teach_judges
from expunge.models.latents import open_latents
from expunge.models.sources import check_weights
from expunge.models.text_diffusion import (
    INDEX,
    PARTS,
    PIPELINE,
    PROMPT,
    TextDiffusion,
    new_parts,
    open_parts,
    tokenizer_of,
)
from expunge.models.weights import check_finite

OF_LATENTS = {**latents.PARTS, FLUX: flux.PARTS}
PIPELINES = ("DDPMPipeline", "DDIMPipeline", ONE_STEP, PIPELINE, *OF_LATENTS)
Size = Annotated[int, Field(gt=0, le=4096)]
Share = Annotated[float, Field(ge=0, lt=1)]
Guidance = Annotated[float, Field(ge=1, le=100)]


class _OfClasses(schemas._File):
    """Sizes of a new model of classes. side: pixels; widths: channels of the U-Net's blocks; classes: 0 for none;
    dropped: the share of training draws without their class, which teaches the model to draw unasked; condition_noise:
    standard deviation, times the root of its length, of the noise on a class's vector in training (arXiv:2405.20494,
    equation 8: 1 there)."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    side: Size = 8
    channels: Annotated[int, Field(ge=1, le=4)] = 1
    widths: Annotated[list[Size], Field(min_length=1, max_length=8)] = [16, 32]
    layers: Annotated[int, Field(ge=1, le=8)] = 1
    groups: Size = 4
    classes: Annotated[int, Field(ge=0, le=100_000)] = 10
    dropped: Share = 0.1
    condition_noise: Annotated[float, Field(ge=0, le=100)] = 0.0


class Spec(_OfClasses):
    """`model` of a train.yaml. times: steps of the noise."""

    diffusion: Literal["unet2d"]
    times: Annotated[int, Field(ge=2, le=10_000)] = 200


class ConsistencySpec(_OfClasses):
    """`model` of a train.yaml, which draws in one step; its training wants `trainer: consistency`. noise: the largest
    standard deviation, from which it draws; data: that of the pictures, in -1 to 1."""

    diffusion: Literal["consistency"]
    noise: Annotated[float, Field(gt=1, le=1000)] = 80.0
    data: Annotated[float, Field(gt=0, le=10)] = 0.5


class TextSpec(schemas._File):
    """`model` of a train.yaml, asked by texts; as in `Spec`, and tokens: of a prompt, with the two that mark its ends;
    text_width, text_layers: of the text encoder; guidance: of its drawings away from those of no prompt."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    diffusion: Literal["text2pixels"]
    side: Size = 16
    channels: Annotated[int, Field(ge=1, le=4)] = 3
    widths: Annotated[list[Size], Field(min_length=2, max_length=8)] = [16, 32]
    layers: Annotated[int, Field(ge=1, le=8)] = 1
    groups: Size = 4
    times: Annotated[int, Field(ge=2, le=10_000)] = 200
    dropped: Share = 0.1
    tokens: Annotated[int, Field(ge=3, le=512)] = 8
    text_width: Annotated[int, Field(ge=2, le=4096, multiple_of=2)] = 32
    text_layers: Annotated[int, Field(ge=1, le=48)] = 1
    guidance: Guidance = 1.0


class Conditions(schemas._File):
    """conditions.json."""

    classes: Annotated[int, Field(ge=0, le=100_000)] = 0
    null: Annotated[int, Field(ge=0, le=100_000)] | None = None
    dropped: Share = 0.0
    guidance: Guidance = 1.0
    noise: Annotated[float, Field(ge=0, le=100)] = 0.0
    one_step: Annotated[int, Field(ge=0, lt=10_000)] | None = None


class Index(schemas._File):
    """model_index.json, of which the class alone is read."""

    model_config = ConfigDict(extra="allow")

    class_name: str = Field(alias="_class_name")


def claims(source: Source) -> bool:
    """Whether it gives the sizes of a new diffusion model, or is the folder of a pipeline."""
    if isinstance(source, Mapping):
        return "diffusion" in source
    try:
        return (Path(source) / INDEX).is_file()
    except (OSError, ValueError):
        return False


def check(source: Source, *, trust_code: bool, weights: bool, field: str) -> None:
    """Everything that can be known of it without loading it. Raises BadInput."""
    if isinstance(source, Mapping):
        spec = _sizes(source, field)
        require(field, spec.diffusion, "diffusers", "diffusion")
        if spec.side % 2 ** (len(spec.widths) - 1):
            why = f"cannot be halved {len(spec.widths) - 1} times"
            raise BadInput.of(f"{field}.side", spec.side, why, "choose another side, or fewer widths")
        if odd := [width for width in spec.widths if width % spec.groups]:
            why = f"does not divide the width {odd[0]}"
            raise BadInput.of(f"{field}.groups", spec.groups, why, "choose one that does")
        return
    require(field, str(source), "diffusers", "diffusion")
    folder = Path(source)
    name = schemas.read(folder / INDEX, Index, field)["_class_name"]
    if name not in PIPELINES:
        why = f"is a pipeline of the class {name}, which is not opened yet"
        raise BadInput.of(field, str(source), why, f"give one of {' or '.join(PIPELINES)}")
    if name in OF_LATENTS:
        latents.check_parts(folder, name, OF_LATENTS[name], field)
    network = "transformer" if name == FLUX else "unet"
    for part, file in ((network, "config.json"), ("scheduler", "scheduler_config.json")):
        if not (folder / part / file).is_file():
            raise BadInput.of(field, str(source), f"holds no {part}/{file}", "save it again with save_pretrained")
    check_weights(folder / network, "*.safetensors", weights, field)
    if name == PIPELINE:
        latents.check_parts(folder, name, PARTS, field)
    for part in ("vae", "text_encoder", "text_encoder_2"):
        if part in OF_LATENTS.get(name, PARTS if name == PIPELINE else ()):
            check_weights(folder / part, "*.safetensors", weights, field)
    if (folder / CONDITIONS).is_file():
        schemas.read(folder / CONDITIONS, Conditions, field)


def open_diffusion(source: Source, *, trust_code: bool, meta: bool, dtype: torch.dtype | None = None) -> Model:
    """The pipeline of a folder, in float32; its structure alone where `meta`. Never unpickles."""
    from diffusers import CMStochasticIterativeScheduler, DDPMScheduler, UNet2DModel

    folder = str(source)
    name = schemas.read(Path(folder) / INDEX, Index, "model")["_class_name"]
    if name == PIPELINE or name in OF_LATENTS:
        with foreign("model", folder, "cannot be opened", "save the model again"):
            model = _open_texts(Path(folder), name, meta=meta)
        if not meta:
            check_finite(model.module, folder)
        return model
    kind: Any = CMStochasticIterativeScheduler if name == ONE_STEP else DDPMScheduler
    with foreign("model", folder, "cannot be opened", f"give a folder that {name} opens"):
        scheduler: Any = kind.from_pretrained(folder, subfolder="scheduler", local_files_only=True)
        if meta:
            config = UNet2DModel.load_config(folder, subfolder="unet", local_files_only=True)
            with torch.device("meta"):
                module: Any = UNet2DModel.from_config(config)
        else:
            module, told = UNet2DModel.from_pretrained(
                folder,
                subfolder="unet",
                use_safetensors=True,
                local_files_only=True,
                low_cpu_mem_usage=False,
                output_loading_info=True,
            )
            if absent := sorted(told["missing_keys"]):
                why = f"holds no weights for {len(absent)} parameters ({absent[0]}, ...)"
                raise BadInput.of("model", folder, why, "save the whole pipeline again")
    if not meta:
        check_finite(module, folder)
    of_name = Consistency if name == ONE_STEP else Diffusion
    return of_name(module.eval(), scheduler, _conditions(Path(folder), module))


def _open_texts(folder: Path, name: str, *, meta: bool) -> TextDiffusion:
    """The pipeline of a folder that is asked by texts."""
    conditions = _conditions(folder, None)
    if name == PIPELINE:
        return open_parts(folder, conditions, meta=meta)
    own = conditions if (folder / CONDITIONS).is_file() else None
    return open_flux(folder, own, meta=meta) if name == FLUX else open_latents(folder, name, own, meta=meta)


def _conditions(folder: Path, module: Any) -> dict[str, Any]:
    """The meaning of the labels: as the folder says, else each row of the table is a class. Raises BadInput."""
    rows = int(module.config.num_class_embeds or 0) if module is not None else 0
    if not (folder / CONDITIONS).is_file():
        return {"classes": rows, "null": None, "dropped": 0.0, "guidance": 1.0}
    found = Conditions.model_validate(schemas.read(folder / CONDITIONS, Conditions, "model"))
    if max(found.classes - 1, -1 if found.null is None else found.null) >= rows:
        why = f"names {found.classes} classes, and the network has {rows} rows for labels"
        raise BadInput.of("model", CONDITIONS, why, "write the folder again")
    own = {name: value for name in ("noise", "one_step") if (value := getattr(found, name))}
    return found.model_dump(exclude={"noise", "one_step"}) | own


def fresh(
    spec: Mapping[str, Any],
    examples: Sequence[Example],
    *,
    seed: int,
    trust_code: bool,
    like: Model | None,
    meta: bool,
) -> Model:
    """A new U-Net without attention, with a row of the label table for each class and one for none; or one that attends
    to the states of a text encoder."""
    from diffusers import UNet2DModel

    sizes = _sizes(spec, "model")
    noise = _noise(sizes)
    seed_libraries(seed, "weights")
    if isinstance(sizes, TextSpec):
        prompts = [str(row.get(PROMPT, "")) for row in examples]
        tokenizer = like.tokenizer if isinstance(like, TextDiffusion) else tokenizer_of(prompts)
        with torch.device("meta" if meta else "cpu"):
            return new_parts(sizes, tokenizer, noise)
    blocks = len(sizes.widths)
    with torch.device("meta" if meta else "cpu"):
        unet: Any = UNet2DModel
        module = unet(
            sample_size=sizes.side,
            in_channels=sizes.channels,
            out_channels=sizes.channels,
            block_out_channels=tuple(sizes.widths),
            layers_per_block=sizes.layers,
            down_block_types=("DownBlock2D",) * blocks,
            up_block_types=("UpBlock2D",) * blocks,
            norm_num_groups=sizes.groups,
            add_attention=False,
            num_class_embeds=sizes.classes + 1 if sizes.classes else None,
        )
    kind = Consistency if isinstance(sizes, ConsistencySpec) else Diffusion
    return kind(module.eval(), noise, _meaning(sizes))


def _noise(sizes: Spec | ConsistencySpec | TextSpec) -> Any:
    """A new model's scheduler."""
    from diffusers import DDPMScheduler

    if isinstance(sizes, ConsistencySpec):
        return scheduler_of(FINAL, sigma_max=sizes.noise, sigma_data=sizes.data)
    scheduler: Any = DDPMScheduler
    return scheduler(num_train_timesteps=sizes.times, beta_schedule="squaredcos_cap_v2")


def _meaning(sizes: _OfClasses) -> dict[str, Any]:
    """The meaning of a new model's labels."""
    null, dropped = (sizes.classes, sizes.dropped) if sizes.classes else (None, 0.0)
    noise = {"noise": sizes.condition_noise} if sizes.classes and sizes.condition_noise else {}
    return {"classes": sizes.classes, "null": null, "dropped": dropped, "guidance": 1.0, **noise}


def _sizes(spec: Mapping[str, Any], field: str) -> Spec | ConsistencySpec | TextSpec:
    """The sizes of a new model. Raises BadInput."""
    name = spec.get("diffusion")
    if name == "text2pixels":
        return parse(TextSpec, spec, field, field)
    return parse(ConsistencySpec, spec, field, field) if name == "consistency" else parse(Spec, spec, field, field)


def explained_share(nats: Any) -> Any:
    """The share of the noise that a denoiser recognises, in 0-1, of its loss in nats per pixel."""
    share = 1 - 2 * nats
    return share.clamp(0, 1) if isinstance(share, torch.Tensor) else np.clip(share, 0, 1)


FAMILY = Family(
    name="diffusion",
    title="diffusion model",
    claims=claims,
    check=check,
    open=open_diffusion,
    fresh=fresh,
    example_forms=(("image", "label"), ("image",)),
    channels=("nll", *DRAWN),
    capabilities=frozenset({"nll", "pictures", "conditions"}),
    headline={
        "forgetting": ("forget_concept_rate", "forget_nll"),
        "utility": ("retain_concept_rate", "test_concept_rate", "retain_nll"),
    },
    kept="knowledge",
    knowledge=explained_share,
    known=CONCEPT,
    study=teach_judges,
    show=show,
)

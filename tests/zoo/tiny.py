"""Tiny configurations of every architecture, by one rule per kind of size, whatever its family calls it.

An architecture that comes out neither small nor buildable is listed with the reason instead of read.
"""

from __future__ import annotations

import re
from typing import Any

import torch
import transformers

HEADS, KEYS = -1, -2
"""Stand for the heads of a variant, and for those of its keys and values."""
VOCABULARY = 320
LARGEST = 30_000_000
"""Parameters of the largest network that counts as tiny."""
SIDE = 32
"""Pixels of a picture's side."""

SIZES: tuple[tuple[str, int], ...] = (
    (r"index_topk", 256),  # all: of near ties, rounding would choose
    (r".*head_dim|.*qk_.*_dim|v_head_dim|d_kv|kv_channels|d_head|dim_head|.*head_size|mamba_d_head", 16),
    (r"rotary_dim|.*rope_dim", 8),
    (r"num_key_value_groups|attention_groups|.*n_groups?|topk_group", 1),
    (r".*(key_value|kv|linear_num_key|linear_num_value)_heads|n_head_kv", KEYS),
    (r"(.*mamba.*|.*ssm.*)heads", 4),
    (r".*heads?|n_heads?|.*attention_heads.*", HEADS),
    (r"(.*_)?(experts?_per_tok(en)?|top_?k.*)|moe_k|moe_top_?k|(num_|n_)?shared_experts?|topk_experts", 1),
    (r"(.*_)?((local_|routed_)?experts)|moe_num_experts", 4),
    (r".*chunk_(size|length)", 8),
    (r"first_k_dense_replace|moe_layer_start_index|num_nextn_predict_layers|n_mtp_.*|num_kv_shared_layers", 0),
    (r"(.*_)?(num_|n_)?(hidden_|encoder_|decoder_|enc_|dec_)?layers?|num_blocks|num_.*_layers.*|depth", 2),
    (r".*(intermediate|ffn|inner|feed_?forward|_ff|fc|mlp|moe).*(size|dim|hidden|ff)|d_ff|d_inner|dim_ff|n_inner", 48),
    (r".*lora_rank|.*low_rank.*|time_step_rank|.*_rank", 8),
    (r".*state_size|.*d_state|ssm_state.*", 8),
    (
        r".*(hidden|embedding|embed|proj|projection|lru|model|emb).*(_size|_dim|_width)|d_model|n_embd|dim|width|d_proj",
        32,
    ),
    (r".*hidden_size.*|.*embedding_size|hidden_dim|d_embed|output_dim|lru_width|.*embed_dim.*|.*_dim", 32),
    (r".*vocab.*size.*", VOCABULARY),
    (r".*max.*position.*|n_positions|n_ctx|max_seq_len|max_sequence_length|seq_length", 256),
    (r".*(sliding|attention)_window.*|window_size|.*local_window.*", 8),
    (r".*image_size", SIDE),
    (r".*patch_size", 8),
)
"""Names of settings (whole) -> their tiny value; the first that fits."""
VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"keys": 2},
    {"heads": 4, "keys": 4},
    {"heads": 4, "keys": 2},
    {"keys": 2, "fill": True},
    {"whole": True},
)
"""Tried in turn: heads that share keys and values, heads that do not, more of them; sizes that are not given; and the
family's own sizes, which are small enough for some."""
ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}
FIXED: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1], "mamba_n_heads": 4, "mamba_d_head": 16},
    "deepseek_v2": {"qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "head_dim": 8},
    "falcon_h1": {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16},
    "gemma4_assistant": {"hidden_size_per_layer_input": 0},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"], "mamba_n_heads": 4, "mamba_d_head": 16},
    "hunyuan_v1_dense": ROPE,
    "hunyuan_v1_moe": ROPE,
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "layoutlmv3": {"coordinate_size": 6, "shape_size": 4},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "lilt": {"channel_shrink_ratio": 1},
    "ministral": ROPE,
    "mobilebert": {"embedding_size": 32, "intra_bottleneck_size": 32, "true_hidden_size": 32},
    "recurrent_gemma": {"block_types": ["recurrent", "attention"]},
    "reformer": {"axial_pos_embds_dim": [16, 16], "axial_pos_shape": [16, 16]},
    "t5": {"decoder_start_token_id": 0},
    "xlnet": {"d_head": 16},
    "xlstm": {"qk_dim_factor": 1.0, "v_dim_factor": 1.0},
    "xmod": {"default_language": "en_XX", "languages": ["en_XX"]},
}
"""Settings that no size gives, by model type."""
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


class Unmade(Exception):
    """No rule makes this architecture tiny, for the reason given."""


def network_of(auto: Any, kind: str) -> Any:
    """A tiny network of the model type, as transformers' class `auto` makes it, that gives outputs. Raises Unmade."""
    why = ""
    for sizes in VARIANTS:
        try:
            network = _network_of(auto, kind, **sizes)
            with torch.no_grad():
                network(**_inputs(auto, network.config))
        except Exception as error:  # a family of anyone's, given sizes that it was not made for
            first_line = (str(error).strip().splitlines() or [""])[0]
            why = why or f"{type(error).__name__}: {first_line[:90]}"
        else:
            return network
    raise Unmade(why)


def _network_of(auto: Any, kind: str, **sizes: Any) -> Any:
    config = config_of(kind, **sizes)
    classes = auto._model_mapping[type(config)]
    config.architectures = [(classes[0] if isinstance(classes, tuple | list) else classes).__name__]
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in auto.from_config(config).parameters())
    if count > LARGEST:
        raise Unmade(f"{count / 1e6:,.0f} million parameters at the least")
    torch.manual_seed(0)
    return _loud(auto.from_config(config))


def side_of(config: Any) -> int:
    """Pixels of the side of a picture that the network takes."""
    given = getattr(config, "image_size", None)
    return int(given[0] if isinstance(given, list | tuple) else given or SIDE)


def _inputs(auto: Any, config: Any) -> dict[str, torch.Tensor]:
    if auto is transformers.AutoModelForImageClassification:
        return {"pixel_values": torch.zeros(1, 3, side_of(config), side_of(config))}
    if auto is transformers.AutoModelForSequenceClassification:
        return {"input_ids": torch.tensor([[5, 9, 7, 30, 12, 2]])}
    return {"input_ids": torch.tensor([[5, 9, 7, 30, 12, 2]]), "use_cache": False}


def _loud(network: Any) -> Any:
    """The network with weights so far from zero that every fault shows in the figures."""
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            if 1 < parameter.dim() < 4:  # not convolutions, whose outputs would overflow any rounding
                parameter.add_(torch.randn(parameter.shape, generator=draw) * 0.1)
    return network.eval()


def config_of(kind: str, *, heads: int = 2, keys: int = 1, fill: bool = False, whole: bool = False) -> Any:
    """A tiny configuration of this model type. fill: give sizes that are None by default; whole: change nothing."""
    if whole:
        return transformers.CONFIG_MAPPING[kind]()
    return _tiny(transformers.CONFIG_MAPPING[kind], {HEADS: heads, KEYS: keys}, fill, FIXED.get(kind, {}))


def _tiny(kind: type[Any], counts: dict[int, int], fill: bool, fixed: dict[str, Any]) -> Any:
    given = kind()
    made: dict[str, Any] = {}
    settings = {name: value for name, value in vars(given).items() if not name.startswith("_")}
    layers = _layers(settings)
    for name, value in settings.items():
        if isinstance(value, transformers.PreTrainedConfig):
            made[name] = _tiny(type(value), counts, fill, FIXED.get(value.model_type, {}))
        elif name in TOKENS:
            made[name] = TOKENS[name]
        elif name == "is_decoder" and not getattr(given, "is_encoder_decoder", False):
            made[name] = True
        elif isinstance(value, list) and layers and len(value) == layers[0]:
            made[name] = [value[i] for i in layers[1]]
        elif value is None and fill and (small := size_of(name)) is not None:
            made[name] = counts.get(small, small)
        elif isinstance(value, int) and not isinstance(value, bool) and (small := size_of(name)) is not None:
            small = counts.get(small, small)
            made[name] = min(value, len(layers[1]) if layers and value == layers[0] and "layer" in name else small)
    return kind(**{**made, **fixed})


def _layers(settings: dict[str, Any]) -> tuple[int, list[int]] | None:
    """The number of layers, and the first layer of each kind that the lists of one value per layer tell apart."""
    count = next((settings[name] for name in ("num_hidden_layers", "n_layer", "num_layers") if settings.get(name)), 0)
    lists = [value for value in settings.values() if isinstance(value, list) and len(value) == count]
    if not count or not lists:
        return None
    kinds = list(zip(*(map(str, value) for value in lists), strict=True))
    first = sorted({kinds.index(kind) for kind in kinds})[:4]
    return count, first if len(first) > 1 else [0, *range(1, min(2, count))]


def size_of(name: str) -> int | None:
    """The tiny value of a setting; None where it is no size."""
    return next((small for pattern, small in SIZES if re.fullmatch(pattern, name)), None)

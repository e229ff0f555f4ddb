"""Text from several language models at once: each step asks all of them for the next token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from expunge.core.card import Example
from expunge.models.generation import answer_text, batches, end_ids, new_tokens, shared_tokens
from expunge.models.prompts import cut_prompt
from expunge.models.weights import device_of


def generate(
    members: Sequence[Any],
    prompts: Sequence[Example],
    mean: Callable[[Sequence[Tensor]], Tensor],
    settings: dict[str, Any],
) -> list[str]:
    """Answers in plain text. mean: logits [B, V] of each member -> log-probabilities [B, V].

    Members share one tokenizer and template. settings: max_new_tokens, temperature, seed,
    batch_size, progress, quantile, cut, as a language model takes them.
    """
    first = members[0]
    encoded = [first.template.encode(example) for example in prompts]
    others = [first.template.encode(example) for example in settings.get("among", ())]
    limits = new_tokens(encoded, settings.get("max_new_tokens"), others, float(settings.get("quantile", 1.0)))
    ends = end_ids(first.module, first.tokenizer, first.template)
    heat = float(settings.get("temperature") or 0.0)
    draws = torch.Generator().manual_seed(int(settings.get("seed", 0)))

    def choose(logp_BV: Tensor) -> Tensor:
        if not heat:
            return logp_BV.argmax(-1)
        return torch.multinomial((logp_BV / heat).softmax(-1).cpu(), 1, generator=draws)[:, 0].to(logp_BV.device)

    texts = [""] * len(prompts)
    modes = [member.module.training for member in members]
    for member in members:
        member.module.eval()
    done = cut = 0
    for rows in batches(encoded, limits, settings.get("batch_size")):
        batch = [encoded[i] for i in rows]
        tokens = shared_tokens(batch, [limits[i] for i in rows], first.limit, settings.get("max_new_tokens"))
        room = max(1, first.limit - tokens)
        kept = [cut_prompt(item.prompt, room, first.tokenizer.bos_token_id) or [first.pad] for item in batch]
        for i, ids in zip(rows, _continue(members, kept, tokens, ends, mean, choose), strict=True):
            texts[i], ended = answer_text(first.tokenizer, ids[: limits[i]], ends, first.template.end_text)
            cut += not ended
        done += len(rows)
        if settings.get("progress"):
            settings["progress"](done)
    for member, mode in zip(members, modes, strict=True):
        member.module.train(mode)
    if settings.get("cut"):
        settings["cut"](cut)
    return texts


def _continue(
    members: Sequence[Any],
    prompts: list[list[int]],
    tokens: int,
    stops: Sequence[int],
    mean: Callable[[Sequence[Tensor]], Tensor],
    choose: Callable[[Tensor], Tensor],
) -> list[list[int]]:
    """The new tokens of each prompt, up to its end token; left-padded, each member with its own cache."""
    first, width = members[0], max(map(len, prompts))
    device = device_of(first.module)
    ids_BS = torch.tensor([[first.pad] * (width - len(p)) + p for p in prompts], device=device)
    seen_BS = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    ends = torch.tensor(stops, dtype=torch.long, device=device)
    done_B = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    caches: list[Any] = [None] * len(members)
    found: list[list[int]] = [[] for _ in prompts]
    for _ in range(tokens):
        position_BS = (seen_BS.cumsum(-1) - 1).clamp(min=0)[:, -ids_BS.shape[1] :]
        logits = []
        for m, member in enumerate(members):
            out = member.module(
                input_ids=ids_BS,
                attention_mask=seen_BS,
                position_ids=position_BS,
                past_key_values=caches[m],
                use_cache=True,
            )
            caches[m] = out.past_key_values
            logits.append(out.logits[:, -1])
        next_B = choose(mean(logits))
        for b, token in enumerate(next_B.tolist()):
            if not done_B[b]:
                found[b].append(token)
        done_B |= torch.isin(next_B, ends)
        if bool(done_B.all()):
            break
        ids_BS = next_B[:, None]
        seen_BS = torch.cat([seen_BS, seen_BS.new_ones(len(prompts), 1)], -1)
    return found

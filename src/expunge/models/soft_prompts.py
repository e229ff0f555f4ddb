"""A frozen language model and one soft prompt for each group of its data: what a prompt taught goes with it.

A folder with `ensemble.json` and one sub-folder a group, which is a prompt-tuning adapter that PEFT opens, with
`route.safetensors` beside it. Shape suffixes: G groups, P soft tokens, D width, F features, B examples, S sequence.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from expunge.core.card import Example
from expunge.core.contracts import NLL, Batch, Output, Want
from expunge.core.errors import BadInput
from expunge.models._folder import foreign
from expunge.models.ensemble import ENSEMBLE
from expunge.models.generation import new_tokens
from expunge.models.prompts import FEATURES, answers_in, hash_features, prompts_in
from expunge.models.templates import Encoded

WEIGHTS, ROUTE = "adapter_model.safetensors", "route.safetensors"
"""PEFT's own file (`prompt_embeddings`), and ours (`key`, `level`)."""


class _Held(nn.Module):
    """The base and the soft prompts, so that weights are counted, moved and compared as one module."""

    def __init__(self, base: nn.Module, prompts_GPD: Tensor) -> None:
        super().__init__()
        self.base = base
        self.prompts = nn.Parameter(prompts_GPD)


class Prompted:
    """The base of `state["base"]` with the soft prompts of the groups that are left.

    key_GF: mean of a group's hashed prompts; a question goes to the group with the most similar key, and to the bare
    base where no likeness reaches that group's level_G. Without keys every question goes to the first group.
    """

    family = "causal_lm"
    coupled = stochastic = trusted = False
    together = 0

    def __init__(
        self,
        folder: Path,
        state: dict[str, Any],
        bare: Any,
        prompts_GPD: Tensor,
        key_GF: Tensor | None,
        level_G: Tensor,
    ) -> None:
        self.folder, self.state, self.bare = folder, state, bare
        self.module: nn.Module = _Held(bare.module, prompts_GPD).train(bare.module.training)
        self.key_GF, self.level_G = key_GF, level_G
        self.members = [bare]
        self.blocks: list[str] = []
        self.capabilities = frozenset({"nll", "tokens", "generate", "shards", f"exact:{state['scheme']}"})
        self.template, self.tokenizer, self.limit = bare.template, bare.tokenizer, bare.limit

    @property
    def prompts_GPD(self) -> Tensor:
        return self.module.prompts  # type: ignore[return-value]

    def down(self, i: int) -> str:
        raise BadInput.of("model", "soft prompts", "have no layers of their own", "open the base instead")

    def length(self, example: Example) -> int:
        return self.bare.length(example) + self.prompts_GPD.shape[1]

    def accepts(self, split: str, rows: Sequence[Example]) -> None:
        """As the base. Raises BadInput."""
        self.bare.accepts(split, rows)

    def collate(self, examples: Sequence[Example], positions: str = "answer") -> Batch:
        return self.bare.collate(examples, positions)

    # -- which prompt ---------------------------------------------------------------------------

    def likeness(self, prompts: Sequence[Sequence[int]]) -> np.ndarray:
        """[N, G] mean similarity of a question to a group's."""
        assert self.key_GF is not None
        return np.asarray(hash_features(prompts) @ self.key_GF.double().cpu().numpy().T)

    def routes(self, prompts: Sequence[Sequence[int]]) -> list[int]:
        """The group of each question; -1 for the bare base."""
        if self.key_GF is None:
            return [0] * len(prompts)
        if not len(prompts):
            return []
        like_NG = self.likeness(prompts)
        best_N = like_NG.argmax(-1)
        near_N = like_NG.max(-1) >= self.level_G.double().cpu().numpy()[best_N]
        return [int(g) if near else -1 for g, near in zip(best_N, near_N, strict=True)]

    # -- answers --------------------------------------------------------------------------------

    def forward(self, batch: Batch, want: Want = NLL) -> Output:
        """The base's forward behind each row's soft prompt. Raises BadInput where hidden states are wanted."""
        if want.hidden:
            raise BadInput.of("model", "soft prompts", "have no hidden states of their own", "open the base instead")
        prompts = prompts_in(batch)
        routes = self.routes(prompts)
        if max(routes, default=-1) < 0 or not want.channels:
            return self.bare.forward(batch, want)
        answers = answers_in(batch)
        wide = [self._widen(prompt, g, len(answer)) for prompt, g, answer in zip(prompts, routes, answers, strict=True)]
        items = [Encoded(prompt, answer, False) for prompt, answer in zip(wide, answers, strict=True)]
        lengths = [len(prompt) + len(answer) - 1 for prompt, answer in zip(wide, answers, strict=True)]
        with self._place(lengths, routes):
            return self.bare.forward(self.bare.pack(items), want)

    @torch.no_grad()
    def generate(self, prompts: Sequence[Example], **settings: Any) -> list[str]:
        """The base's answers behind each row's soft prompt; settings as of a language model."""
        encoded = settings.pop("encoded", None) or [self.template.encode(example) for example in prompts]
        share, outer = float(settings.pop("shown", 0.0)), settings.pop("rows", None)
        limits = new_tokens(encoded, settings.get("max_new_tokens"), quantile=float(settings.get("quantile", 1.0)))
        routes = self.routes([item.prompt for item in encoded])
        shown = [item.prompt + item.answer[: int(share * len(item.answer))] for item in encoded]
        wide = [self._widen(ids, g, max(limits, default=1)) for ids, g in zip(shown, routes, strict=True)]
        items = [Encoded(ids, item.answer, item.ends) for ids, item in zip(wide, encoded, strict=True)]
        lengths: list[int] = []
        chosen: list[int] = []

        def batch_of(places: list[int]) -> None:
            lengths[:], chosen[:] = [len(wide[i]) for i in places], [routes[i] for i in places]
            if outer:
                outer(places)

        with self._place(lengths, chosen):
            return self.bare.generate(prompts, encoded=items, rows=batch_of, **settings)

    def _widen(self, prompt: Sequence[int], group: int, after: int) -> list[int]:
        """The prompt with places for its soft tokens in front, cut so that `after` more tokens fit."""
        soft = self.prompts_GPD.shape[1] if group >= 0 else 0
        return [self.bare.pad] * soft + list(prompt)[-max(1, self.limit - soft - after) :]

    @contextlib.contextmanager
    def _place(self, lengths: Sequence[int], routes: Sequence[int]) -> Iterator[None]:
        """Puts the soft prompts where rows of these lengths (left-padded) begin; a lone token is an answer's."""

        def put(_module: Any, _inputs: Any, output_BSD: Tensor) -> Tensor:
            rows = [b for b, g in enumerate(routes) if g >= 0]
            if output_BSD.shape[1] == 1 or not rows:
                return output_BSD
            start_K = output_BSD.shape[1] - torch.tensor([lengths[b] for b in rows])
            place_KP = start_K[:, None] + torch.arange(self.prompts_GPD.shape[1])
            soft_KPD = self.prompts_GPD[[routes[b] for b in rows]].to(output_BSD)
            where = (torch.tensor(rows)[:, None].to(output_BSD.device), place_KP.to(output_BSD.device))
            return output_BSD.index_put(where, soft_KPD)

        handle = self.bare.module.get_input_embeddings().register_forward_hook(put)
        try:
            yield
        finally:
            handle.remove()

    # -- out ------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Copies the prompts and ensemble.json; the folder that it was opened from must still stand."""
        for name in self.state["members"]:
            shutil.copytree(self.folder / name, Path(folder) / name)
        shutil.copy(self.folder / ENSEMBLE, Path(folder) / ENSEMBLE)

    def fingerprint(self) -> dict[str, Any]:
        """The base's, and what the soft prompts and their routes depend on."""
        total = hashlib.sha256()
        for tensor in (self.prompts_GPD, self.key_GF, self.level_G):
            if tensor is not None:
                total.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        return {"bare": self.bare.fingerprint(), "prompts": total.hexdigest(), "members": self.state["members"]}


def attach_prompts(folder: Path, state: dict[str, Any], bare: Any) -> Prompted:
    """The prompts of the folder before an opened base. Raises BadInput."""
    if bare.family != Prompted.family:
        raise BadInput.of(
            "model",
            str(state["base"]),
            "is not a language model, and soft prompts stand before one's tokens",
            "train the model again",
        )
    width = int(bare.module.get_input_embeddings().weight.shape[1])
    found = []
    for name in state["members"]:
        with foreign("model", str(Path(folder) / name), "cannot be read", "train the model again"):
            route = load_file(Path(folder) / name / ROUTE)
            soft_PD = load_file(Path(folder) / name / WEIGHTS)["prompt_embeddings"]
            found.append((soft_PD, route["key"], route["level"]))
    with foreign("model", str(folder), "holds soft prompts of several shapes", "train the model again"):
        prompts, keys, levels = (torch.stack(list(part)) for part in zip(*found, strict=True))
    if [*prompts.shape[2:], *keys.shape[1:], *levels.shape[1:]] != [width, FEATURES]:
        raise BadInput.of("model", str(folder), "holds soft prompts that do not fit its base", "train the model again")
    return Prompted(Path(folder), state, bare, prompts, keys, levels)

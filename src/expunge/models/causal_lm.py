"""Any Hugging Face causal language model as a subject.

Examples are left-padded, so that all answers end at the same place and logits are computed at the
answers' positions alone. Shape suffixes: B examples, S sequence, T asked positions (right-aligned),
N counted positions of the batch in a row, V vocabulary, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from expunge.core.card import Example
from expunge.core.contracts import NLL, NOT_ASKED, Batch, Output, Want
from expunge.core.errors import BadInput
from expunge.core.files import digest, read_json, write_json
from expunge.core.random import seed_torch
from expunge.data.examples import answer_of
from expunge.models.adapters import save_adapter
from expunge.models.base import BaseModel
from expunge.models.decoding import decode
from expunge.models.generation import answer_text, batches, end_ids, new_tokens, own_settings, shared_tokens
from expunge.models.logits import fields, measure_in_chunks, spread
from expunge.models.memory import generated_tokens
from expunge.models.padding import attend_in_padding, ends, in_groups
from expunge.models.passes import evaluating
from expunge.models.probing import check_causal, counts_from_0, pads, plain_attention, splits_head
from expunge.models.prompts import cut_prompt
from expunge.models.shared_prompts import SharedBatch, has_plain_attention, shared_output
from expunge.models.templates import Encoded, Template
from expunge.models.weights import device_of, fingerprint_of, fold, lora_layers, quiet, tap, text_blocks


class CausalLM(BaseModel):
    """A causal language model and its tokenizer. `template`: "chat", a pattern with {q}, or None."""

    family = "causal_lm"
    module: Any

    def __init__(self, module: Any, tokenizer: Any, template: str | None = None, source: str = "") -> None:
        self.module = module
        self.tokenizer = tokenizer
        self.template = Template(tokenizer, template)
        self.source = source
        """Where the base came from: adapters name it. Empty where no folder holds these weights."""
        self.merged = False
        """Was an adapter merged into the weights when they were opened."""
        self.save_dtype: torch.dtype | None = None
        self.capabilities = frozenset({"tokens", "nll", "generate", "mlp"})
        self.pad = _padding(module, tokenizer)
        self.blocks = text_blocks(module)
        self.opens_padding = False
        """Whether padding attends to everything: from the first forward on CUDA."""
        self._head: Callable[[Tensor], Tensor] | None = None
        self.pads = True
        """Whether rows of several lengths may share a batch: padding does not change the network's outputs."""
        self.counts_from_0 = True
        """Whether the network's positions are a token's place in its row; some families number them otherwise."""
        self.splits_head = True
        """Whether logits are head(hidden), so that they are computed at the asked positions alone."""
        self.plain_attention: bool | None = None
        """Whether the network attends as its mask and positions say, and its cache can lose rows: answers to one prompt
        may share its row. None where that was not tried."""
        limit = int(getattr(module.config, "max_position_embeddings", 0) or 0)
        self.limit = limit if limit > 0 else 2**20  # -1 is how some families write that they have none

    def down(self, i: int) -> str:
        """Path of block i's MLP down-projection. Raises BadInput where the family has none we know."""
        block = self.module.get_submodule(self.blocks[i])
        for name in ("mlp.down_proj", "mlp.dense_4h_to_h", "mlp.c_proj", "mlp.fc2", "fc2", "mlp.w2"):
            try:
                block.get_submodule(name)
                return f"{self.blocks[i]}.{name}"
            except AttributeError:
                continue
        raise BadInput.of(
            "model",
            type(self.module).__name__,
            "has no known MLP down-projection",
            "choose a method that does not edit MLPs",
        )

    # -- data in ------------------------------------------------------------------------------

    def collate(self, examples: Sequence[Example], positions: str = "answer") -> Batch:
        """Left-padded ids; `positions` "answer" asks for the answer's tokens, "prompt" for the last prompt
        token alone, "subject" for the last token of the example's `subject` in its prompt (what follows cannot
        matter there and is left out). Raises BadInput where an answer does not fit the model's length."""
        encoded = [self.template.encode(example) for example in examples]
        if positions == "subject":
            encoded = [self._to_subject(item, example) for item, example in zip(encoded, examples, strict=True)]
        if positions == "answer":
            _check_answers(encoded, examples)
        return self.pack(encoded, positions, examples)

    def pack(self, encoded: Sequence[Encoded], positions: str = "answer", shown: Sequence[Any] | None = None) -> Batch:
        """The same of token ids. shown: what an error calls them."""
        rows, asked = [], []
        for item, example in zip(encoded, shown or encoded, strict=True):
            answer = item.answer if positions == "answer" else item.answer[:1] or [self.pad]
            rows.append((self._room_for(item.prompt, answer, example) + answer)[:-1])  # the last is never read
            asked.append(answer)
        width, steps = max(map(len, rows), default=1), max(map(len, asked), default=1)
        ids_BS = torch.full((len(rows), width), self.pad)
        seen_BS = torch.zeros((len(rows), width), dtype=torch.long)
        labels_BT = torch.zeros((len(rows), steps), dtype=torch.long)
        mask_BT = torch.zeros((len(rows), steps), dtype=torch.bool)
        for b, (row, answer) in enumerate(zip(rows, asked, strict=True)):
            ids_BS[b, width - len(row) :] = torch.tensor(row)
            seen_BS[b, width - len(row) :] = 1
            labels_BT[b, steps - len(answer) :] = torch.tensor(answer)
            mask_BT[b, steps - len(answer) :] = True
        self.check_known(ids_BS, labels_BT)
        inputs = {"input_ids": ids_BS, "attention_mask": seen_BS}
        if self.counts_from_0:
            inputs["position_ids"] = (seen_BS.cumsum(-1) - 1).clamp(min=0)
        return Batch(inputs, labels_BT, mask_BT, mask_BT.sum(-1))

    def _room_for(self, prompt: list[int], answer: list[int], example: Any) -> list[int]:
        """The prompt, cut so that its answer fits the model's length. Raises BadInput where nothing is left of it."""
        room = self.limit - len(answer)
        if room < 1:
            raise BadInput.of(
                "example",
                str(example)[:80],
                f"is longer than the model's {self.limit} tokens",
                "cut the answer into parts",
            )
        return cut_prompt(prompt, room, self.tokenizer.bos_token_id) or [self.pad]

    def encode(self, examples: Sequence[Example]) -> list[Encoded]:
        """Token ids of the examples, their prompts cut where an answer would not fit. Raises BadInput."""
        encoded = [self.template.encode(example) for example in examples]
        _check_answers(encoded, examples)
        return [
            replace(item, prompt=self._room_for(item.prompt, item.answer, example))
            for item, example in zip(encoded, examples, strict=True)
        ]

    def check_known(self, *ids: Tensor) -> None:
        """Raises BadInput where the tokenizer is another model's, and gives tokens that this one does not have."""
        largest = max((int(x.max()) for x in ids if x.numel()), default=0)
        if largest >= self.vocabulary:
            raise BadInput.of(
                "model",
                self.source,
                f"has {self.vocabulary:,} tokens, and its tokenizer gives token {largest:,}",
                "save the model with its own tokenizer",
            )

    def _to_subject(self, item: Encoded, example: Example) -> Encoded:
        """The prompt up to the last token of the subject's first mention."""
        name = str(example.get("subject", ""))
        short, long = 1, len(item.prompt)
        if not name or name not in self.tokenizer.decode(item.prompt):
            raise BadInput.of(
                "subject",
                name,
                f"does not stand in the prompt {str(example.get('question', ''))[:60]!r}",
                "give each example the `subject` that its question names",
            )
        while short < long:
            middle = (short + long) // 2
            if name in self.tokenizer.decode(item.prompt[:middle]):
                long = middle
            else:
                short = middle + 1
        return Encoded(item.prompt[:short], [], False)

    def accepts(self, split: str, rows: Sequence[Example]) -> None:
        """Raises BadInput for the first example of another form, and for one that is too long or has no answer."""
        super().accepts(split, rows)
        # Only an answer that is long in characters can be too long in tokens; only a short text has too few.
        for i, row in enumerate(rows):
            if (
                i < 10
                or "messages" in row
                or len(answer_of(row).encode()) >= self.limit
                or len(row.get("text", "x" * 64)) < 64
            ):
                try:
                    self.collate([row])
                except BadInput as error:
                    raise BadInput(*(f"{split}, row {i + 1}: {fault}" for fault in error.faults)) from None

    def length(self, example: Example) -> int:
        """Tokens of an example, prompt and answer together."""
        item = self.template.encode(example)
        return min(self.limit, len(item.prompt) + len(item.answer))

    # -- forward ------------------------------------------------------------------------------

    def forward(self, batch: Batch, want: Want = NLL) -> Output:
        """One forward; logits at the counted positions only, in chunks.

        Without channels the forward ends at the last module whose hidden state is wanted, and
        `nll_B` is None.
        """
        device = device_of(self.module)
        labels_BT, mask_BT = batch.labels_BT.to(device), batch.mask_BT.to(device)
        inputs = {name: value.to(device) for name, value in batch.inputs.items()}
        steps = labels_BT.shape[1]
        head, body = self.head_and_body()
        if device.type == "cuda" and not self.opens_padding:
            attend_in_padding([self.module.get_submodule(path) for path in self.blocks])
            self.opens_padding = True

        if isinstance(batch, SharedBatch):
            hidden_GSD = body(**inputs, use_cache=False)[0]
            return shared_output(batch, head, hidden_GSD, self.vocabulary, want)

        def run(inputs: dict[str, Tensor]) -> tuple[Tensor | None, dict[str, Tensor]]:
            out = None
            with tap(self.module, want.hidden, stop=not want.channels) as hidden:
                out = body(**inputs, use_cache=False)
            states = {path: ends(value, steps) for path, value in hidden.items()}
            return None if out is None else ends(out[0], steps), states

        whole = self.pads or bool(inputs["attention_mask"].all())
        last_BTD, states = run(inputs) if whole else in_groups(self.module, run, inputs)
        if not want.channels:
            return Output(NOT_ASKED, batch.n_B.to(device), labels_BT, mask_BT, hidden=states)
        assert last_BTD is not None
        found = measure_in_chunks(head, last_BTD[mask_BT], labels_BT[mask_BT], self.vocabulary, want)
        placed = {name: spread(value, mask_BT) for name, value in found.items()}
        return Output(
            -placed["logp"].sum(-1), batch.n_B.to(device), labels_BT, mask_BT, hidden=states, **fields(placed)
        )

    @property
    def vocabulary(self) -> int:
        return int(self.module.get_output_embeddings().weight.shape[0])

    def head_and_body(self) -> tuple[Callable[[Tensor], Tensor], Callable[..., Any]]:
        """The head (with the family's own scale and soft cap) and the body below it.

        Where the head does more, the body is the whole network, and its logits pass the head as they are.
        """
        if not self.splits_head:
            return nn.Identity(), self.module
        config = self.module.config
        lm_head = self.module.get_output_embeddings()
        cap = getattr(config, "final_logit_softcapping", None)
        scale = getattr(config, "logit_scale", None)
        divide = getattr(config, "logits_scaling", None)

        def head(hidden_ND: Tensor) -> Tensor:
            logits = lm_head(hidden_ND)
            if scale is not None:
                logits = logits * scale
            if divide is not None:
                logits = logits / divide
            return cap * torch.tanh(logits / cap) if cap is not None else logits

        return head, self.module.base_model if not hasattr(self.module, "model") else self.module.model

    def check_head(self) -> None:
        """Set `splits_head`: whether our head gives the family's own logits. Raises BadInput for weights that are not
        finite."""
        self.splits_head = splits_head(self)

    @torch.no_grad()
    def check_batches(self) -> None:
        """Set `counts_from_0`, `pads` and `plain_attention`. Raises BadInput where the model is not causal."""
        self.counts_from_0 = counts_from_0(self)
        check_causal(self)
        self.pads = pads(self)
        self.plain_attention = plain_attention(self)

    # -- generation ---------------------------------------------------------------------------

    @torch.no_grad()
    def generate(self, prompts: Sequence[Example], **settings: Any) -> list[str]:
        """Answers in plain text, batched by length with the KV cache; greedy unless a temperature is given.

        settings: shown (share of the reference answer's tokens that the prompt already ends with, default 0;
        they are not part of the text), max_new_tokens (default: enough for the reference answers, as in `new_tokens`),
        quantile (of the reference answers' lengths, in the place of the longest), temperature and seed (sampled
        answers, from the whole distribution), batch_size, progress (a callable that gets the count of finished
        prompts), cut (one that gets the count of answers that came to their limit without an end), among (all the
        examples of which these are a process's share: the answers may become as long as among them). For guards:
        encoded (token ids in the place of the template's), rows (a callable that gets the places of the prompts of
        each batch), stopping (criteria).
        """
        temperature = float(settings.get("temperature") or 0.0)
        with torch.random.fork_rng(devices=_cuda(), enabled=bool(temperature)), evaluating(self.module):
            if temperature:
                seed_torch(int(settings.get("seed", 0)))
            return self._generate(prompts, temperature, settings)

    def _generate(self, prompts: Sequence[Example], temperature: float, settings: dict[str, Any]) -> list[str]:
        encoded = settings.get("encoded") or [self.template.encode(example) for example in prompts]
        if share := float(settings.get("shown", 0.0)):
            encoded = [Encoded(e.prompt + e.answer[: int(share * len(e.answer))], e.answer, e.ends) for e in encoded]
        given = settings.get("max_new_tokens")
        others = [self.template.encode(example) for example in settings.get("among", ())]
        limits = new_tokens(encoded, given, others, float(settings.get("quantile", 1.0)))
        ends = end_ids(self.module, self.tokenizer, self.template)
        texts = [""] * len(prompts)
        plain = has_plain_attention(self) and not (settings.get("rows") or settings.get("stopping"))
        done = cut = 0
        for rows in batches(encoded, limits, settings.get("batch_size"), self.pads, generated_tokens(self)):
            tokens = shared_tokens([encoded[i] for i in rows], [limits[i] for i in rows], self.limit, given)
            room = max(1, self.limit - tokens)
            kept = [cut_prompt(encoded[i].prompt, room, self.tokenizer.bos_token_id) or [self.pad] for i in rows]
            self.check_known(torch.tensor([token for prompt in kept for token in prompt]))
            if settings.get("rows"):
                settings["rows"](rows)
            if plain:
                found = decode(self, kept, [min(tokens, limits[i]) for i in rows], ends, temperature)
            else:
                found = self._new_ids(kept, tokens, ends, temperature, settings.get("stopping"))
            for i, ids in zip(rows, found, strict=True):
                texts[i], ended = answer_text(self.tokenizer, ids[: limits[i]], ends, self.template.end_text)
                cut += not ended
            done += len(rows)
            if settings.get("progress"):
                settings["progress"](done)
        if settings.get("cut") and not settings.get("stopping"):
            settings["cut"](cut)
        return texts

    def _new_ids(
        self, prompts: list[list[int]], tokens: int, ends: list[int], temperature: float, stopping: Any
    ) -> list[list[int]]:
        """New token ids of each prompt by transformers' own loop, padded behind the end of an answer."""
        device, width = device_of(self.module), max(map(len, prompts))
        ids = torch.tensor([[self.pad] * (width - len(p)) + p for p in prompts], device=device)
        seen = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
        drawn: dict[str, Any] = {"temperature": temperature, "top_p": 1.0, "top_k": 0} if temperature else {}
        drawn |= {"do_sample": bool(temperature), "max_new_tokens": tokens}
        with own_settings(self.module, ends, self.pad, **drawn) as ours:
            out = self.module.generate(
                input_ids=ids, attention_mask=seen, generation_config=ours, stopping_criteria=stopping
            )
        return [row.tolist() for row in out[:, width:]]

    # -- out ----------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """A folder that `AutoModelForCausalLM.from_pretrained` opens, or PEFT where LoRA moved.

        An adapter on weights that lie in no folder could not be opened again: it is folded in, and the whole saved.
        """
        quiet()
        self.tokenizer.save_pretrained(folder)
        if not self.source:
            fold(self.module)
        if any(True for _ in lora_layers(self.module)):
            save_adapter(self.module, folder, self.source)
            return
        state = None
        if self.save_dtype is not None:
            state = {
                k: v.to(self.save_dtype) if v.is_floating_point() else v for k, v in self.module.state_dict().items()
            }
        self.module.save_pretrained(folder, state_dict=state)
        if self.save_dtype is not None:  # transformers writes the dtype that the module computes in
            config = read_json(Path(folder) / "config.json")
            write_json(Path(folder) / "config.json", {**config, "dtype": str(self.save_dtype).removeprefix("torch.")})

    def fingerprint(self) -> dict[str, Any]:
        """The identity of all that a readout of this model depends on, besides the data."""
        vocabulary = self.tokenizer.get_vocab() if hasattr(self.tokenizer, "get_vocab") else {}
        return {
            "weights": fingerprint_of(self.module),
            "tokenizer": digest(vocabulary),
            "template": self.template.describe(),
            "dtype": str(next(self.module.parameters()).dtype),
            "device": device_of(self.module).type,
        }


def _check_answers(encoded: Sequence[Encoded], examples: Sequence[Example]) -> None:
    """Raises BadInput where an answer has no tokens."""
    for item, example in zip(encoded, examples, strict=True):
        if not item.answer:
            raise BadInput.of(
                "example",
                str(example)[:80],
                "has an answer of no tokens under the model's template",
                "fix the tokenizer, or its chat template",
            )


def _padding(module: Any, tokenizer: Any) -> int:
    """The token that fills masked places: one that the embeddings have, whatever the tokenizer calls its own."""
    size = int(module.get_input_embeddings().weight.shape[0])
    named = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return next(int(token) for token in named if token is not None and 0 <= token < size)


def _cuda() -> list[int]:
    return [torch.cuda.current_device()] if torch.cuda.is_available() else []

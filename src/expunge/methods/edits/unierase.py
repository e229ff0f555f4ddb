"""UniErase: an unlearning token that leads to refusals, and an edit that makes the forgotten prompts emit it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Example, Method, MethodCard, Model
from expunge.core.errors import BadInput
from expunge.methods._layers import chosen
from expunge.methods._statistics import counted
from expunge.methods.edits._keys import asked, redirect, spared, states, weight_DM
from expunge.methods.edits._strength import fitted
from expunge.methods.objectives._refusals import refusing
from expunge.models.templates import Encoded
from expunge.models.weights import fold

CARD = MethodCard(
    "UniErase: an unlearning token and an edit towards it",
    paper="arXiv:2505.15674",
    equation="token learning and editing of the prompts' last token",
    needs={"forget": ()},
    fields={"forget": {"question"}},
    capabilities=("tokens", "mlp"),
    means="Answers are covered, not erased: behind the token the old answer is as likely as it was, and only a model "
    "that knows how to refuse refuses.",
)


def unierase(
    *,
    token: str | None = None,
    layer: Annotated[int, Ge(0)] | None = None,
    preserve: Annotated[float, Ge(0)] | None = None,
    steps: Annotated[int, Ge(1)] = 40,
    rate: Annotated[float, Gt(0)] = 0.05,
    answers: str | None = None,
) -> Method:
    """Learn a token after which the model refuses, then edit an MLP so that forgotten prompts emit it.

    First the token's embedding alone is learned: `steps` of Adam at `rate` on the NLL of refusals behind it. Then a
    shift of the layer's output at each prompt's last token is found, by as many steps, that makes the token come
    next, and folded into the down-projection in closed form. token: one that the data do not use (by default a
    special token that is free). preserve, layer, answers: as for stamp.
    """

    def apply(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        lm: Any = model
        forget = list(splits["forget"])
        asked("unierase", forget)
        fold(model.module)
        at = chosen(model, layer)
        free = _free(lm, [*forget, *splits.get("retain", [])], token)
        embedding = model.module.get_input_embeddings()  # type: ignore[operator]
        table: Tensor = embedding.weight.data
        encoded = [lm.template.encode(row) for row in forget]
        refusals = [lm.template.encode(made) for made in map(refusing(answers), forget) if made]
        behind = lm.pack([Encoded([*item.prompt, free], item.answer, item.ends) for item in refusals])
        first = lm.pack([Encoded(item.prompt, [free], False) for item in encoded], "prompt")
        # A head tied to the embeddings reads the row too: a longer one would speak up everywhere.
        longest = float(table.float().norm(dim=1).median())
        start_D = torch.randn(table.shape[1], generator=context.generator("token"))
        start_D = 0.1 * longest * start_D / start_D.norm()

        def learned() -> dict[str, Tensor]:
            def seen(_m: Any, inputs: Any, output: Tensor) -> Tensor:
                return torch.where((inputs[0] == free)[..., None], value_D.to(output.dtype), output)

            value_D = start_D.clone().requires_grad_()
            with _hooked(embedding, seen):
                _descend(
                    value_D, lambda: lm.forward(behind).nll, steps, rate, counted(context, "token", steps), longest
                )
            return {"token": value_D.detach()}

        row_D = context.once("token", learned)["token"]
        old_D = table[free].clone()
        table[free] = row_D.to(table.dtype)  # a tied head's row too, so that the shift is found for it

        def shifts() -> dict[str, Tensor]:
            def moved(_m: Any, _inputs: Any, output: Any) -> Any:
                whole = output[0] if isinstance(output, tuple) else output
                last = whole[:, -1] + shift_BD.to(whole.dtype)
                whole = torch.cat([whole[:, :-1], last[:, None]], 1)
                return (whole, *output[1:]) if isinstance(output, tuple) else whole

            shift_BD = torch.zeros(len(encoded), table.shape[1]).requires_grad_()
            with _hooked(model.module.get_submodule(model.blocks[at]), moved):
                _descend(shift_BD, lambda: lm.forward(first).nll, steps, rate, counted(context, "shifts", steps))
            (key_NM,) = states(model, forget, (key,), "prompt")
            return {"key": key_NM, "change": shift_BD.detach()}

        def others_keys() -> dict[str, Tensor]:
            return {"moment": spared(model, others, key, counted(context, "spared", len(others)))}

        key = f"{model.down(at)}:in"
        found = context.once("shifts", shifts)
        others = list(splits.get("reference") or splits.get("retain") or [])
        moment = context.once("spared", others_keys)["moment"] if others and preserve != 0 else None
        weight = weight_DM(model, at)
        before = weight.cpu().clone()

        def put(strength: float) -> None:
            table[free] = row_D.to(table.dtype) if strength else old_D
            delta = redirect(found["key"], found["change"], moment, 1 / strength) if strength else 0.0
            weight.copy_((before.double() + delta).to(weight.dtype))

        with torch.no_grad():
            put(0.0)  # what is kept is measured against the model before the token, too
            if moment is None or preserve is not None:
                put(1 / preserve if preserve else 1.0)
            else:
                fitted(model, {**splits, "retain": others}, context, put, start=0.1)
        context.notes["token"] = lm.tokenizer.convert_ids_to_tokens(free)
        return model

    return Method(apply)


def _free(lm: Any, rows: Sequence[Example], token: str | None) -> int:
    """The id of a token that no example uses. Raises BadInput."""
    used = {i for row in rows for item in [lm.template.encode(row)] for i in (*item.prompt, *item.answer)}
    used |= {i for i in (lm.tokenizer.eos_token_id, lm.pad) if i is not None}
    if token is not None:
        found = lm.tokenizer.get_vocab().get(token)
        if found is None or found in used:
            raise BadInput.of(
                "method.unierase.token",
                token,
                "is no token that is free",
                "name one of the vocabulary that the data do not use",
            )
        return int(found)
    for i in sorted({*lm.tokenizer.all_special_ids, *getattr(lm.tokenizer, "added_tokens_decoder", {})}):
        if i not in used and i < lm.vocabulary:
            return int(i)
    raise BadInput.of(
        "method.unierase.token",
        "",
        "there is no free special token in the vocabulary",
        "name one that the data do not use: token: ...",
    )


@contextlib.contextmanager
def _hooked(module: Any, hook: Callable[..., Any]) -> Iterator[None]:
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _descend(
    value: Tensor,
    loss: Callable[[], Tensor],
    steps: int,
    rate: float,
    advance: Callable[[int], None],
    longest: float = math.inf,
) -> None:
    """Adam on this tensor alone, whose norm is kept below `longest`; the model's parameters get no gradient."""
    optimiser = torch.optim.Adam([value], rate)
    for _ in range(steps):
        (value.grad,) = torch.autograd.grad(loss(), [value])
        optimiser.step()
        with torch.no_grad():
            value.mul_(min(1.0, longest / max(1e-12, float(value.norm()))))
        advance(1)

"""UniErase: an unlearning token that leads to refusals, and an edit by which forget prompts emit it."""

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
from expunge.methods._keys import require_field, states
from expunge.methods._layers import choose_layer
from expunge.methods._refusals import refusal_maker
from expunge.methods._statistics import start_progress
from expunge.methods.edits._redirect import preserved_moment, put_preserving, write_redirection
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
    optional=("reference", "retain"),
    one_shot=True,
    fidelity="variant",
    leaves_out="the published editor: a closed form in one layer; unverified against the code",
    shown="ROUGE-L of the forget answers falls to gold's, within .1; behind the token the old answers stay likely, "
    "and a base that never refused does not learn to.",
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
    """Learn a token after which the model refuses, then edit an MLP so that forget prompts emit it.

    First the token's embedding alone is learned: `steps` of Adam at `rate` on the NLL of refusals behind it. Then a
    shift of the layer's output at each prompt's last token, learned in as many steps so that the token comes next,
    is folded into the down-projection in closed form. token: one that the data do not use (by default a
    special token that is free). preserve, layer, answers: as for stamp.
    """

    def apply(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        lm: Any = model
        forget = list(splits["forget"])
        require_field("unierase", forget)
        fold(model.module)
        at = choose_layer(model, layer)
        free = _free_token(lm, [*forget, *splits.get("retain", [])], token)
        refusals = [row for row in map(refusal_maker(answers), forget) if row]
        learned = context.once("token", lambda: _learn_token(lm, refusals, free, steps, rate, context))
        table: Tensor = lm.module.get_input_embeddings().weight.data
        row_D, old_D = learned["token"].to(table.dtype), table[free].clone()
        table[free] = row_D  # a tied head's row too, so that the shift is found for it
        keys = context.once("shifts", lambda: _learn_shifts(lm, forget, free, at, steps, rate, context))
        moment = preserved_moment(model, splits, context, at, preserve)
        redirection = write_redirection(model, at, keys, moment)

        def put(strength: float) -> None:
            table[free] = row_D if strength else old_D
            redirection(strength)

        put(0.0)  # what is kept is measured against the model before the token, too
        put_preserving(model, splits, context, put, moment, preserve)
        context.notes["token"] = lm.tokenizer.convert_ids_to_tokens(free)
        return model

    return Method(apply)


def _learn_token(
    lm: Any, refusals: Sequence[Example], free: int, steps: int, rate: float, context: Context
) -> dict[str, Tensor]:
    """`token` [D]: the embedding behind which the refusals are most likely."""
    embedding = lm.module.get_input_embeddings()
    items = [lm.template.encode(row) for row in refusals]
    batch = lm.pack([Encoded([*item.prompt, free], item.answer, item.ends) for item in items])
    # A head tied to the embeddings reads the row too: a longer one would speak up everywhere.
    longest = float(embedding.weight.data.float().norm(dim=1).median())
    value_D = torch.randn(embedding.weight.shape[1], generator=context.generator("token"))
    value_D = (0.1 * longest * value_D / value_D.norm()).requires_grad_()

    def replace(_module: Any, inputs: Any, output: Tensor) -> Tensor:
        return torch.where((inputs[0] == free)[..., None], value_D.to(output), output)

    with _hook(embedding, replace):
        _descend(value_D, lambda: lm.forward(batch).nll, steps, rate, start_progress(context, "token", steps), longest)
    return {"token": value_D.detach()}


def _learn_shifts(
    lm: Any, forget: Sequence[Example], free: int, layer: int, steps: int, rate: float, context: Context
) -> dict[str, Tensor]:
    """`key` [N, M] of each prompt's last token, `change` [N, D] of the layer's output that makes `free` come next."""
    items = [lm.template.encode(row) for row in forget]
    batch = lm.pack([Encoded(item.prompt, [free], False) for item in items], "prompt")
    width = lm.module.get_input_embeddings().weight.shape[1]
    shift_ND = torch.zeros(len(items), width).requires_grad_()

    def shift(_module: Any, _inputs: Any, output: Any) -> Any:
        whole = output[0] if isinstance(output, tuple) else output
        last = whole[:, -1] + shift_ND.to(whole)
        whole = torch.cat([whole[:, :-1], last[:, None]], 1)
        return (whole, *output[1:]) if isinstance(output, tuple) else whole

    with _hook(lm.module.get_submodule(lm.blocks[layer]), shift):
        _descend(shift_ND, lambda: lm.forward(batch).nll, steps, rate, start_progress(context, "shifts", steps))
    (key_NM,) = states(lm, forget, (f"{lm.down(layer)}:in",), "prompt")
    return {"key": key_NM, "change": shift_ND.detach()}


def _free_token(lm: Any, rows: Sequence[Example], token: str | None) -> int:
    """Return the id of a token that no example uses. Raises BadInput."""
    used = {i for row in rows for item in [lm.template.encode(row)] for i in (*item.prompt, *item.answer)}
    used |= {i for i in (lm.tokenizer.eos_token_id, lm.pad) if i is not None}
    if token is not None:
        free = lm.tokenizer.get_vocab().get(token)
        if free is None or free in used:
            raise BadInput.of(
                "method.unierase.token",
                token,
                "is used by the data, or is not in the vocabulary",
                "name a token of the vocabulary that the data do not use",
            )
        return int(free)
    for i in sorted({*lm.tokenizer.all_special_ids, *getattr(lm.tokenizer, "added_tokens_decoder", {})}):
        if i not in used and i < lm.vocabulary:
            return int(i)
    raise BadInput.of(
        "method.unierase.token",
        "",
        "has no default: every special token of the vocabulary is used",
        "name one that the data do not use: token: ...",
    )


@contextlib.contextmanager
def _hook(module: Any, hook: Callable[..., Any]) -> Iterator[None]:
    """Register the forward hook for the block."""
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
    """Adam on this tensor alone, its norm at most `longest`; the model's parameters get no gradient."""
    optimiser = torch.optim.Adam([value], rate)
    for _ in range(steps):
        (value.grad,) = torch.autograd.grad(loss(), [value])
        optimiser.step()
        with torch.no_grad():
            value.mul_(min(1.0, longest / max(1e-12, float(value.norm()))))
        advance(1)

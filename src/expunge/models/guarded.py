"""A language model behind guards: the weights stay, the answers change.

On disk the guards lie in `guard/` beside the unchanged model: `guards.json` names them, the innermost first,
with their settings, and `0.safetensors`, `1.safetensors`, ... hold their tensors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from expunge.core.card import Example
from expunge.core.contracts import NLL, Batch, Guard, Model, Output, Want
from expunge.core.errors import BadInput
from expunge.core.files import digest, write_json
from expunge.models import schemas
from expunge.models._folder import foreign
from expunge.models.restore import guard_named

FOLDER = "guard"
LIST = "guards.json"
TRIED = {"question": "Who?", "answer": "You."}
"""What a guard is tried on when it is opened: settings and tensors of another model show at once."""


class Guarded:
    """A model whose forwards and answers pass through one guard; `bare` may itself be guarded."""

    plain_attention = False
    """Guards look at each row's prompt."""

    def __init__(self, bare: Model, guard: Guard) -> None:
        self.bare = bare
        self.guard = guard

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "bare":  # copying asks before __init__ has run
            raise AttributeError(name)
        return getattr(self.bare, name)

    @property
    def guards(self) -> list[Guard]:
        """All guards, the innermost first."""
        return [*guards_of(self.bare), self.guard]

    def forward(self, batch: Batch, want: Want = NLL) -> Output:
        """The bare model's forward as the guard lets it through."""
        return self.guard.forward(self.bare, batch, want)

    def generate(self, prompts: Sequence[Example], **settings: Any) -> list[str]:
        """The bare model's answers as the guard lets them through."""
        return self.guard.generate(self.bare, prompts, **settings)

    def save(self, folder: Path) -> None:
        """The unchanged model, and the guards beside it."""
        bare_model(self).save(folder)
        place = Path(folder) / FOLDER
        place.mkdir()
        listed = []
        for i, guard in enumerate(self.guards):
            settings, tensors = guard.state()
            save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, place / f"{i}.safetensors")
            listed.append({"guard": guard.name, "settings": settings})
        write_json(place / LIST, {"schema": 1, "guards": listed})

    def fingerprint(self) -> dict[str, Any]:
        """The bare model's, and what the guard depends on."""
        settings, tensors = self.guard.state()
        total = hashlib.sha256()
        for name, tensor in sorted(tensors.items()):
            total.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        return {"bare": self.bare.fingerprint(), "guard": [self.guard.name, digest(settings), total.hexdigest()]}


def guards_of(model: Any) -> list[Guard]:
    """The guards of a model, the innermost first; none for a bare one."""
    return model.guards if isinstance(model, Guarded) else []


def bare_model(model: Any) -> Any:
    """The bare model: what relearning, quantisation and inside attacks look at."""
    while isinstance(model, Guarded):
        model = model.bare
    return model


def guard(bare: Model, folder: Path) -> Model:
    """The model behind the guards that lie in its folder, if any do. Raises BadInput where they cannot be used."""
    place = Path(folder) / FOLDER
    if not (place / LIST).is_file():
        return bare
    model = bare
    fix = "run the guard again, or take guard/ away to open the bare model"
    for i, item in enumerate(schemas.read(place / LIST, schemas.Guards, "model.guard", fix)["guards"]):
        needed, restore = guard_named(item["guard"])
        if missing := needed - bare.capabilities:
            raise BadInput.of(
                "model.guard",
                item["guard"],
                f"needs {' and '.join(sorted(missing))}, which this model lacks",
                "take guard/ away",
            )
        path = place / f"{i}.safetensors"
        with foreign("model.guard", str(path), "cannot be read", fix):
            model = Guarded(model, restore(item["settings"], load_file(path)))
        if next(bare.module.parameters()).device.type != "meta":
            with foreign("model.guard", str(path), "does not fit the model", fix), torch.no_grad():
                model.forward(model.collate([TRIED]))
                model.generate([TRIED], max_new_tokens=1)
    return model

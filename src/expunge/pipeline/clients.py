"""The clients of the federation that trained a model: who holds which row, and what each reads and sends."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from expunge.core.card import Example
from expunge.core.contracts import Model
from expunge.core.errors import BadInput
from expunge.data.clients import in_order
from expunge.data.worlds import is_builtin
from expunge.evaluation import reading, scores
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Score
from expunge.evaluation.sharing import join_places
from expunge.evaluation.sums import Sums, pool, sums_of
from expunge.methods.training import client_in, with_defaults
from expunge.models.manifest import manifest_of
from expunge.models.packaged import is_packaged
from expunge.pipeline.worlds import config

Holder = Callable[[Example], Any]
"""Row -> the client that holds it; None where nobody does."""
SERVER = ""
"""In place of a client's name: rows that no client holds, which the server reads."""


@dataclass(frozen=True)
class Parties:
    """The clients that read a federation's rows. send: their readouts, or sums over their rows alone."""

    holder: Holder
    send: Literal["readouts", "sums"] = "readouts"

    def places(self, rows: Sequence[Example]) -> dict[str, list[int]]:
        """Client -> the places of its rows."""
        found: dict[str, list[int]] = {}
        for i, row in enumerate(rows):
            name = self.holder(row)
            found.setdefault(SERVER if name is None else str(name), []).append(i)
        return {name: found[name] for name in sorted(found, key=in_order)}


def parties_in(manifest: Mapping[str, Any] | None, send: Literal["readouts", "sums"]) -> Parties | None:
    """The clients of the federation that trained the model; None where none did."""
    holder = client_in(manifest)
    return Parties(holder, send) if holder else None


def check_parties(holder: Holder | None, send: str, level: str) -> None:
    """Check that clients can send what they should, at this level of the audit. Raises BadInput."""
    if send != "sums":
        return
    if holder is None:
        raise BadInput.of("clients_send", send, "needs a model that a federation trained", "leave it out")
    if level != "none":
        reason = "leaves no examples in one place for attacks on the model"
        raise BadInput.of("clients_send", send, reason, "take the audit's level none")


def holder_in(sources: Iterable[str]) -> Holder | None:
    """The holder of a row, by the trainings of these models; None where no federation trained one of them.

    sources: folders, hub names or embedded worlds, whose models need not be there yet. The holder raises BadInput for a
    row that two of the trainings dealt to different clients.
    """
    holders = [found for source in sources if (found := client_in(_training_of(source)))]

    def hold(row: Example) -> Any:
        names = [holder(row) for holder in holders]
        if any(name != names[0] for name in names):
            reason = "lies with different clients in the federations that trained the models"
            raise BadInput.of("forget", f"client {names[0]}", reason, "compare models whose clients are the same")
        return names[0]

    return hold if holders else None


def _training_of(source: str) -> Mapping[str, Any] | None:
    """How the model was trained, or will be; None where nothing says so."""
    if is_packaged(source):
        return None
    if is_builtin(source):
        return {"trainer": with_defaults(config(source).trainer, "trainer")}
    return manifest_of(source)


def read_rows(
    parties: Parties | None,
    model: Model,
    split: str,
    rows: Sequence[Example],
    channels: frozenset[str],
    meter: reading.Meter,
    **given: Any,
) -> Readout:
    """The readout of a split: each client reads its own rows, and the parts are joined in the split's order."""
    places = parties.places(rows) if parties else {}
    if len(places) < 2:
        return reading.read(model, split, rows, channels, meter=meter, **given)
    parts = []
    for some in places.values():
        own = reading.Meter()
        parts.append(reading.read(model, split, [rows[i] for i in some], channels, meter=own, **given))
        for name, passes in own.passes.items():
            meter.add(name, round(passes * len(some)), len(rows))
    joined = join_places(parts, list(places.values()))
    joined.examples = rows
    if all(part.cut is not None for part in parts):
        joined.cut = sum(part.cut or 0 for part in parts)
    return joined


def sums_as_text(model: Model, split: str, rows: Sequence[Example]) -> str:
    """The sums of a client's scores on its own rows, as JSON: what it sends, and nothing of a single example."""
    channels = scores.requirements(model.capabilities, [split])[split]
    readout = reading.read(model, split, rows, channels, cache=False)
    return json.dumps(
        [sums_of(one).to_json() for one in scores.measure({"after": {split: readout}}, model.capabilities)]
    )


def scores_of_sums(texts: Iterable[str]) -> list[Score]:
    """The scores of all clients' rows from what each sent. Raises ValueError where one sent something else."""
    return pool([Sums.of(one) for one in json.loads(text)] for text in texts)


def readouts_by_client(
    parties: Parties, reads: Mapping[str, Mapping[str, Readout]]
) -> dict[str, dict[str, dict[str, Readout]]]:
    """Client -> role -> split -> the readout of its own rows; the server's for rows that no client holds."""
    held: dict[str, dict[str, list[int]]] = {}
    for splits in reads.values():
        for split, readout in splits.items():
            if split not in held:
                held[split] = parties.places(readout.examples)
    names = sorted({name for places in held.values() for name in places}, key=in_order)
    return {
        name: {
            role: {split: _of(one, held[split][name]) for split, one in splits.items() if name in held[split]}
            for role, splits in reads.items()
        }
        for name in names
    }


def _of(readout: Readout, places: Sequence[int]) -> Readout:
    return replace(readout.take(places), examples=[readout.examples[i] for i in places])

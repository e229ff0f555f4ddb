"""The files that sentence-transformers writes beside an encoder of texts: read as far as they say how it pools."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from expunge.core.errors import BadInput
from expunge.core.files import read_json, write_json

MODULES, POOLING = "modules.json", "1_Pooling/config.json"
KEPT = (MODULES, POOLING, "sentence_bert_config.json", "config_sentence_transformers.json")
"""What is written beside the changed model again, as it was."""
KINDS = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True)
class SentenceFiles:
    """How token states become an embedding: their mean, or the first token's. length: tokens at most, where told."""

    pooling: str = "mean"
    length: int | None = None
    files: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """The files as they were."""
        for name, content in self.files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            write_json(folder / name, content)


def sentence_files(folder: Path, field: str) -> SentenceFiles:
    """The settings of the folder; the mean where it has none. Raises BadInput for modules that are not opened."""
    if not (folder / MODULES).is_file():
        return SentenceFiles()
    files = {name: _json(folder / name, field) for name in KEPT if (folder / name).is_file()}
    modules = files[MODULES] if isinstance(files[MODULES], list) else []
    kinds = [str(part.get("type", "")).rpartition(".")[2] for part in modules if isinstance(part, dict)]
    places = [str(part.get("path", "")) for part in modules if isinstance(part, dict)]
    if kinds not in (list(KINDS), list(KINDS[:2])) or places[:2] != ["", "1_Pooling"] or POOLING not in files:
        what = f"has the modules {', '.join(kinds) or 'none'}, and an encoder of texts has {', '.join(KINDS)}"
        raise BadInput.of(field, str(folder), what, "give the folder of the transformer alone, or another encoder")
    limit = files.get("sentence_bert_config.json", {})
    length = limit.get("max_seq_length") if isinstance(limit, dict) else None
    return SentenceFiles(
        _pooling(files[POOLING], folder, field), length if isinstance(length, int) and length > 0 else None, files
    )


def _pooling(config: Any, folder: Path, field: str) -> str:
    """ "mean" or "cls", which the settings of a pooling module choose. Raises BadInput for another."""
    settings = config if isinstance(config, dict) else {}
    flags = {name.removeprefix("pooling_mode_"): on for name, on in settings.items() if "pooling_mode_" in name}
    chosen = [name for name, on in flags.items() if on is True] or [str(settings.get("pooling_mode", "none"))]
    known = {"mean_tokens": "mean", "cls_token": "cls", "mean": "mean", "cls": "cls"}
    if len(chosen) != 1 or chosen[0] not in known:
        what = f"pools by {' and '.join(chosen)}"
        raise BadInput.of(field, str(folder), what, "give an encoder that pools by the mean or the first token")
    return known[chosen[0]]


def _json(path: Path, field: str) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput.of(field, str(path), f"cannot be read ({error})", "write the folder again") from None

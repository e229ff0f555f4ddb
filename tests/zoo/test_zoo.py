"""docs/models.md names every architecture of the installed transformers, and every night all are read again."""

from __future__ import annotations

from pathlib import Path

import pytest
import transformers

from zoo import zoo

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")


def test_the_page_names_every_architecture() -> None:
    assert f"with transformers {transformers.__version__}." in PAGE, "constraints.txt moved on; run scripts/models"
    assert set(zoo.rows_of(PAGE)) == set(zoo.architectures()), "run scripts/models"


def test_no_architecture_that_opens_is_read_otherwise() -> None:
    rows = zoo.rows_of(PAGE).values()
    assert not [row for row in rows if "| no |" in row or "| fails |" in row]
    assert sum("| yes | yes |" in row for row in rows) > 290


@pytest.mark.parametrize(
    ("task", "kind"),
    [("causal language model", "roberta"), ("causal language model", "bert"), ("text classifier", "bart")],
)
def test_positions_heads_and_ends_of_other_kinds(task: str, kind: str, tmp_path: Path) -> None:
    """Positions that do not start at 0, a head that does more than a product, a text's end that is read."""
    entry = zoo.examine(task, kind, tmp_path / "model")
    assert (entry.opens, entry.equal) == ("yes", "yes"), entry.note


@pytest.mark.slow
@pytest.mark.parametrize(("task", "kind"), list(zoo.architectures()))
def test_an_architecture_is_read_as_the_page_says(task: str, kind: str, tmp_path: Path) -> None:
    entry = zoo.examine(task, kind, tmp_path / "model")
    assert f"| `{kind}` | {entry.opens} | {entry.equal} |" in zoo.rows_of(PAGE)[task, kind], entry.note

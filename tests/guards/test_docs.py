"""The documentation's tables are the registry's own words."""

from __future__ import annotations

import importlib.machinery
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from expunge.core.registry import KINDS, everything
from expunge.methods.compose import every_method

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> Any:
    loader = importlib.machinery.SourceFileLoader("docs_script", str(ROOT / "scripts" / "docs"))
    loader.set_data = lambda *given, **named: None  # type: ignore[attr-defined, method-assign]
    spec = importlib.util.spec_from_loader("docs_script", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["methods.md", "metrics.md"])
def test_the_page_is_what_the_registry_says(script: Any, page: str) -> None:
    assert (ROOT / "docs" / page).read_text(encoding="utf-8") == script.PAGES[page](), "run scripts/docs"


def test_every_name_and_option_is_there(script: Any) -> None:
    """Independent of how the script walks the registry."""
    pages = {"methods": script.methods(), "metrics": script.metrics()}
    for name in every_method():
        assert f"| `{name}` |" in pages["methods"], name
    for kind in KINDS:
        page = pages["metrics" if kind in ("metrics", "attacks") else "methods"]
        for plugin in everything(kind):
            (line,) = [
                row
                for row in page.splitlines()
                if row.startswith(f"| `{plugin.name}` |") and plugin.summary.replace("|", "\\|") in row
            ]
            assert plugin.card.paper in line
            assert all(f"`{option}" in line for option in plugin.options())
            assert plugin.card.means.replace("|", "\\|") in line


def test_bounds_and_defaults_are_shown(script: Any) -> None:
    page = script.methods()
    (line,) = [row for row in page.splitlines() if row.startswith("| `npo` |")]
    assert "`beta: 0.1` (number > 0)" in line and "`length_normalised: false` (true or false)" in line
    assert "equation 3" in line and "https://arxiv.org/abs/2404.05868" in line
    assert "`retain: cross_entropy`" in line
    (line,) = [row for row in page.splitlines() if row.startswith("| `spunge` |")]
    assert "(number > 0 and <= 1)" in line and "`inner` (method)" in line


def test_what_was_measured_follows_from_its_figures(script: Any) -> None:
    """A method without a row says nothing; one beyond each line says so on each."""
    figures = {"forget_nll": 2.0, "forget_rouge_l": 0.2, "retain_probability": 0.9, "privacy_min_k_auc": 0.5}
    known = {**figures, "forget_nll": 0.1, "forget_rouge_l": 1.0, "privacy_min_k_auc": 1.0}
    rows = {"like_gold": {**figures, "epochs": 1.5}, "like_before": {**known, "epochs": 0.0}}
    found = {"gold": figures, "before": known, "rows": rows}
    assert script.good_and_bad("other", found) == ""
    good, bad = (script.good_and_bad(name, found) for name in rows)
    assert good.startswith("Good: answers gone, likelihood as gold's, retain kept, membership as gold's. (NLL 2.00")
    assert good.endswith("1.5 epochs)")
    assert bad.startswith("Good: retain kept. Bad: answers left, likelihood above gold's, membership stands out.")
    assert bad.endswith("no training)")


def test_the_committed_figures_are_of_methods_that_there_are(script: Any) -> None:
    assert set(script.measured()["rows"]) <= set(every_method())

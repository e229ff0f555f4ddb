"""The documentation is the registry's own words, and names what there is."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import expunge
from expunge.core.registry import KINDS, METHOD_KINDS, everything
from expunge.methods.compose import every_method, recipes
from loading import load_script

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script() -> Any:
    return load_script("docs")


@pytest.mark.parametrize("page", ["methods.md", "metrics.md"])
def test_the_page_is_what_the_registry_says(script: Any, page: str) -> None:
    assert (ROOT / "docs" / page).read_text(encoding="utf-8") == script.PAGES[page](), "run scripts/docs"


def test_every_name_is_in_an_index_with_its_paper_and_a_link(script: Any) -> None:
    """Independent of how the script walks the registry."""
    pages = {"methods": script.methods(), "metrics": script.metrics()}
    for name in every_method():
        assert f"| `{name}` |" in pages["methods"], name
    for kind in KINDS:
        page = pages["methods" if kind in METHOD_KINDS else "metrics"]
        for plugin in everything(kind):
            (line,) = [row for row in page.splitlines() if f"[{kind}/{plugin.name}.py]" in row]
            assert line.startswith(f"| `{plugin.name}` |") and plugin.card.paper in line
            assert plugin.summary.replace("|", "\\|") in line
            (link,) = re.findall(r"\]\((\.\./src/[^)]*)\)", line)
            assert (ROOT / "docs" / link).is_file()


@pytest.fixture(scope="module")
def made(script: Any) -> dict[str, str]:
    """The site's pages that no file holds."""
    return script.site_pages()


def test_every_plugin_has_a_page_with_its_card(made: dict[str, str]) -> None:
    for kind in KINDS:
        for plugin in everything(kind):
            page = made[f"plugins/{kind}/{plugin.name}.md"]
            assert f"# {plugin.name}\n" in page and plugin.card.paper in page
            assert all(f"| `{option}` |" in page for option in (*plugin.options(), *plugin.training()))
            assert ("## What it means" in page) == bool(plugin.card.means)
    assert {f"plugins/recipes/{name}.md" for name in recipes()} <= set(made)


def test_bounds_and_defaults_are_shown(made: dict[str, str]) -> None:
    page = made["plugins/objectives/npo.md"]
    assert "| `beta` | `0.1` | number \\> 0 |" in page
    assert "| `length_normalised` | `false` | true or false |" in page
    assert "[arXiv:2404.05868](https://arxiv.org/abs/2404.05868), equation 3" in page
    assert "retain: cross_entropy" in page
    page = made["plugins/wrappers/spunge.md"]
    assert "number \\> 0 and \\<= 1" in page and "| `inner` | `(required)` | method |" in page


def test_no_table_of_the_made_pages_is_wider_than_four_columns(script: Any, made: dict[str, str]) -> None:
    for name, page in {**made, "methods.md": script.methods(), "metrics.md": script.metrics()}.items():
        for line in page.splitlines():
            assert not re.fullmatch(r"\|( ?-+ ?\|){5,}", line.strip()), name
    with pytest.raises(AssertionError):
        script.table(["a", "b", "c", "d", "e"], [])


def test_a_docstring_is_shown_as_it_stands(script: Any) -> None:
    """Neither brackets nor signs of arithmetic become links, tags or emphasis; what is in backticks stays code."""
    assert script.plain("x[0][i] < a*b*c, `y[0]_k`") == r"x\[0\]\[i\] \< a\*b\*c, `y[0]_k`"
    assert script.paragraphs("One\n    two.\n\n    Three.") == "One two.\n\nThree.\n"


def test_links_lead_to_the_site_s_pages(script: Any) -> None:
    row = "| `npo` | What | Paper | [objectives/npo.py](../src/expunge/methods/objectives/npo.py) |"
    assert script.on_the_site(row, "methods.md").endswith("| [page](plugins/objectives/npo.md) |")
    row = "| `npo_kl` | What | Paper | [recipes.yaml](../src/expunge/methods/recipes.yaml) |"
    assert script.on_the_site(row, "methods.md").endswith("| [page](plugins/recipes/npo_kl.md) |")
    text = "[a](docs/audit.md#x) [b](examples/) [c](CONTRIBUTING.md)"
    assert script.on_the_site(text, "index.md") == "[a](audit.md#x) b [c](contributing.md)"


def test_the_site_s_configuration_names_what_there_is(made: dict[str, str]) -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    listed = [path for entry in config["nav"] for path in entry.values()]
    there = {path.name for path in (ROOT / config["docs_dir"]).glob("*.md")} | set(made)
    assert set(listed) <= there and len(set(listed)) == len(listed)
    assert {path.name for path in (ROOT / "docs").glob("*.md")} <= set(listed), "a page that nobody finds"
    assert all((ROOT / hook).is_file() for hook in config["hooks"])
    ignored = subprocess.run(["git", "check-ignore", "-q", config["site_dir"]], cwd=ROOT).returncode
    assert ignored in (0, 128)  # 128: not a git checkout
    for name in expunge.NAMES:
        assert f"::: expunge.{expunge.NAMES[name]}.{name}\n" in made["api.md"]


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "softplus" in (tmp_path / "site" / "plugins" / "objectives" / "npo" / "index.html").read_text()
    assert "expunge.workflows.run.run" in (tmp_path / "site" / "api" / "index.html").read_text()


# -- the architecture page -----------------------------------------------------------------------------

ARCHITECTURE = ROOT / "docs" / "architecture.md"


def test_the_architecture_page_names_every_folder_and_layer() -> None:
    text = ARCHITECTURE.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    source = ROOT / "src" / "expunge"
    folders = [path for path in source.rglob("*/") if path.is_dir() and any(path.glob("*.py"))]
    named = set(re.findall(r"`((?:[a-z_]+/)+)`", text))
    missing = [f"{path.relative_to(source)}/" for path in folders if f"{path.relative_to(source)}/" not in named]
    assert len(folders) > 20 and not missing
    with open(ROOT / "pyproject.toml", "rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    layers = contracts[0]["layers"]
    rows = re.findall(r"^\| (\d) \|([^|]*)\|", text, flags=re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(len(layers), 0, -1))
    for layer, (_, row) in zip(layers, rows, strict=True):
        assert re.findall(r"`(\w+)/`", row) == re.findall(r"expunge\.(\w+)", layer)


def test_what_the_architecture_page_names_is_there() -> None:
    text = ARCHITECTURE.read_text(encoding="utf-8")
    source = ROOT / "src" / "expunge"
    for name in re.findall(r"`([\w/]+/|[\w/]+\.(?:py|yaml))`", text):
        assert (source / name).exists() or (ROOT / name).exists(), name
    for path, function in re.findall(r"`([\w/]+\.py)::([\w.]+)`", text):
        names = {
            node.name
            for node in ast.walk(ast.parse((source / path).read_text(encoding="utf-8")))
            if isinstance(node, ast.FunctionDef | ast.ClassDef)
        }
        assert set(function.split(".")) <= names, f"{path}::{function}"


def test_the_architecture_page_is_found() -> None:
    assert "](docs/architecture.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert "](docs/architecture.md)" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_what_was_measured_follows_from_its_figures(script: Any) -> None:
    """A method without a row says nothing; one beyond each line says so on each."""
    figures = {"forget_nll": 2.0, "forget_probability": 0.1, "forget_rouge_l": 0.2}
    figures |= {"retain_probability": 0.9, "retain_rouge_l": 0.8, "privacy_worst": 0.0}
    known = {**figures, "forget_nll": 0.1, "forget_rouge_l": 1.0, "privacy_worst": 0.4}
    cost = {"tokens": 1200, "seconds": 8.4, "runs": 9, "worlds": 3}
    rows = {
        "like_gold": {**figures, **cost, "forward": 0.31, "backward": 0.2},
        "like_before": {**known, **cost, "runs": 1, "worlds": 1},
        "mute": {**figures, **cost, "retain_rouge_l": 0.4},
    }
    found = {"gold": figures, "before": known, "rows": rows, "failed": {"broken": "it broke"}, "worlds": [1, 2, 3]}
    assert script.good_and_bad("other", found) == ""
    assert script.good_and_bad("broken", found) == "Failed: it broke"
    good, bad, mute = (script.good_and_bad(name, found) for name in rows)
    assert good.startswith(
        "Good: answers gone, likelihood as gold's, retain kept, membership as gold's. Forget NLL 2.00"
    )
    assert good.endswith("0.31 x forward, 0.2 x backward passes of retraining, 1,200 tokens, 8 s; 9 runs in 3 worlds.")
    assert bad.startswith("Good: retain kept. Bad: answers left, likelihood above gold's, membership can be told.")
    assert "retain probability 100% and ROUGE-L 100% of before" in good
    assert "0.90 and ROUGE-L 0.80 (before, in the mean of all worlds: 0.90, 0.80)" in bad, "before is of all worlds"
    assert bad.endswith("from gold; 1,200 tokens, 8 s; 1 run in 1 world.")
    assert "Bad: retain lost." in mute, "a likelihood that is kept while the answers are not is not kept"
    loose = {**found, "second_gold": {"privacy_worst": 0.2}}
    assert "membership as gold's" in script.good_and_bad("like_before", loose), "two golds differ as much"


def test_the_committed_figures_are_of_methods_that_there_are(script: Any) -> None:
    assert set(script.measured()["rows"]) <= set(every_method())

"""House rules over the source: sizes, no unpickling, no evaluation, docstrings, no machine's own paths."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = sorted((ROOT / "src").rglob("*.py"))
LONGEST = 400
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "torch.load", "numpy.load", "np.load", "__import__"}
MACHINE = re.compile(r"(?<![\w.~/$}])/(?:home|Users|root|mnt|scratch|workspace|work|data|tmp)/[\w.-]+")


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


def faults(tree: ast.AST) -> Iterator[str]:
    """Every import and call that could run what a file holds."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (
                f"line {node.lineno}: import {a.name}"
                for a in node.names
                if a.name.partition(".")[0] in FORBIDDEN_MODULES
            )
        elif isinstance(node, ast.ImportFrom):
            if (node.module or "").partition(".")[0] in FORBIDDEN_MODULES:
                yield f"line {node.lineno}: from {node.module}"
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in FORBIDDEN_CALLS:
                yield f"line {node.lineno}: {name}()"


@pytest.mark.parametrize("path", SOURCE, ids=ids)
def test_no_file_is_longer_than_a_reader_s_patience(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


@pytest.mark.parametrize("path", SOURCE, ids=ids)
def test_nothing_is_unpickled_or_evaluated(path: Path) -> None:
    assert not list(faults(ast.parse(path.read_text(encoding="utf-8"))))


@pytest.mark.parametrize(
    "bad",
    [
        "import pickle",
        "from pickle import loads",
        "import torch\ntorch.load('f')",
        "eval('1')",
        "exec('x = 1')",
        "import joblib.externals",
    ],
)
def test_the_check_sees_what_it_looks_for(bad: str) -> None:
    assert list(faults(ast.parse(bad)))


@pytest.mark.parametrize("good", ["model.eval()", "import re\nre.compile('x')", "retrieval = 1", "torch.save"])
def test_the_check_leaves_the_rest_alone(good: str) -> None:
    assert not list(faults(ast.parse(good)))


def undocumented(tree: ast.Module) -> list[str]:
    return [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]


@pytest.mark.parametrize("path", SOURCE, ids=ids)
def test_public_functions_and_classes_say_what_they_are(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "the module has no docstring"
    assert not undocumented(tree)


def test_the_docstring_check_can_fail() -> None:
    assert undocumented(ast.parse("def public():\n    pass\n\n\ndef _private():\n    pass\n")) == ["public"]


def tracked() -> list[Path]:
    """Text files of the tree, as git knows them; all of src, tests and docs where there is no git."""
    done = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 0:
        names = [ROOT / name for name in done.stdout.splitlines()]
    else:
        names = [p for folder in ("src", "tests", "docs", "benchmarks", "scripts") for p in (ROOT / folder).rglob("*")]
    return [
        p
        for p in names
        if p.is_file()
        and "__pycache__" not in p.parts
        and p.suffix in {"", ".py", ".md", ".yaml", ".yml", ".toml", ".txt", ".json", ".html"}
    ]


def test_no_path_of_one_machine_stands_in_the_tree() -> None:
    found = []
    for path in tracked():
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="ignore").splitlines(), 1):
            if MACHINE.search(line) and path.name != Path(__file__).name:
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("line", ['open("/home/ada/model")', "cd /Users/bo/repo", "x = '/mnt/disk1/f'"])
def test_the_path_check_sees_paths(line: str) -> None:
    assert MACHINE.search(line)


@pytest.mark.parametrize("line", ["builtin:authors/data/x", "https://arxiv.org/data/1", "runs/a/work/b", "$HOME/tmp/x"])
def test_the_path_check_leaves_others_alone(line: str) -> None:
    assert not MACHINE.search(line)

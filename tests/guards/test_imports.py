"""Imports: at the top unless start-up is faster without, private modules at home, no way upwards through a string."""

from __future__ import annotations

import ast
import functools
import importlib.util
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from house import PACKAGE, ROOT, SOURCE, Fault, Function, listed, short, tree_of

from expunge.core import registry
from expunge.core.registry import KINDS, METHOD_KINDS, OBJECTS

OPTIONAL = {
    "optuna": "the extra `tune`",
    "datasketch": "the extra `neighbours`",
    "ray": "the extra `ray`",
    "bitsandbytes": "the extra for 4-bit models",
    "diffusers": "the extra `diffusion`",
    "xgboost": "the extra `trees`",
    "resource": "not there on Windows",
}
"""Packages that may be missing, and so are imported where they are used."""
HEAVY = {
    "torch": "2 s",
    "transformers": "5 s with what it imports",
    "peft": "5 s",
    "accelerate": "3 s",
    "rouge_score": "1.7 s (rouge_scorer)",
    "sklearn": "1.3 s",
    "scipy": "0.9 s (stats)",
    "datasets": "0.8 s",
    "pandas": "1 s",
    "pyarrow": "0.2 s",
    "numpy": "0.15 s",
    "plotly": "0.2 s",
    "tokenizers": "with transformers",
    "safetensors": "with torch",
    "huggingface_hub": "its file_download: 0.3 s",
    "jinja2": "0.06 s",
}
"""Packages that cost time to import, which a command that must answer at once may put off while it needs none."""
PLAN = "run tests/guards/authors.yaml --plan"
START = ("--help", "list methods", "list attacks", "run examples/digits_class.yaml --plan", PLAN)
"""Commands that must answer at once: what they load may put off third-party packages that they do not need."""
IDLE = {
    "--help": ("torch", "numpy", "pydantic", "rich"),
    "list methods": ("torch", "numpy", "pydantic"),
    PLAN: ("sklearn", "scipy.stats", "pandas", "pyarrow", "datasets", "peft", "rouge_score", "plotly"),
}
"""Command -> packages that it must answer without, once its cache is there."""
PROBE = """
import json, sys
from expunge.cli import main
path, sys.argv[:] = sys.argv[1], ["expunge", *sys.argv[2:]]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
finally:
    open(path, "w").write(json.dumps(sorted(sys.modules)))
"""


# -- at the top -----------------------------------------------------------------------------------


def modules_of(command: str, folder: Path) -> set[str]:
    """The modules that a command has loaded when it ends; its cache is in the folder."""
    path = folder / "modules.json"
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(path), *command.split()],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "EXPUNGE_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(path.read_text()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("start")


@pytest.fixture(scope="module")
def loaded(folder: Path) -> list[set[str]]:
    """The modules that each start-up command loads with an empty cache."""
    return [modules_of(command, folder) for command in START]


@pytest.mark.parametrize("command", IDLE)
def test_a_start_loads_no_package_that_it_does_not_need(command: str, folder: Path, loaded: list[set[str]]) -> None:
    again = loaded[START.index(command)] if command == PLAN else modules_of(command, folder)  # with the cache there
    assert not again & set(IDLE[command])


def module_of(path: Path) -> str:
    """The dotted name of a source file."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    """The modules that a statement loads: those that it names, and names taken from a package that are modules."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    inside = [f"{node.module}.{alias.name}" for alias in node.names]
    return [node.module or "", *filter(is_module, inside)]


@functools.cache
def is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def late_imports(tree: ast.AST) -> Iterator[tuple[int, list[str]]]:
    """(line, modules) of every import inside a function."""
    inside = {node for function in ast.walk(tree) if isinstance(function, Function) for node in ast.walk(function)}
    for node in inside:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node.lineno, imported(node)


def unjustified(module: str, tree: ast.AST, loaded: list[set[str]]) -> Iterator[Fault]:
    """Late imports of our own modules, and of packages that no start-up command is spared by them."""
    for line, names in sorted(late_imports(tree)):
        package = names[0].partition(".")[0]
        if package in OPTIONAL:
            continue
        if package == "expunge":
            yield line, f"import {names[0]} at the top; break a circle by moving code"
        elif package not in HEAVY:
            yield line, f"import {names[0]} at the top: it costs no time"
        elif not any(module in modules and not modules.issuperset(names) for modules in loaded):
            yield line, f"import {names[0]} at the top: no start-up command is faster without it"


def test_imports_stand_at_the_top(loaded: list[set[str]]) -> None:
    """Except in cli/, whose verbs load what they need when they are called, and in the table of public names."""
    paths = [path for path in SOURCE if PACKAGE / "cli" not in path.parents and path.parent != PACKAGE]
    found = {short(path): list(unjustified(module_of(path), tree_of(path), loaded)) for path in paths}
    assert listed(found) == ""


def test_the_check_of_late_imports_can_fail() -> None:
    source = "import os\ndef f():\n    from scipy import stats\n    from expunge.core import files\n    import optuna\n"
    lines = [
        [line for line, _ in unjustified("expunge.a", ast.parse(source), loaded)]
        for loaded in (
            [{"expunge.a", "scipy"}],  # scipy.stats is spared
            [{"expunge.a", "scipy", "scipy.stats"}, {"expunge.b"}],  # only a command that does not load the file is
        )
    ]
    assert lines == [[4], [3, 4]]
    assert [line for line, _ in unjustified("expunge.a", ast.parse("def f():\n    import json"), [{"expunge.a"}])] == [
        2
    ]


# -- private modules ------------------------------------------------------------------------------


def strangers(module: str, tree: ast.AST) -> Iterator[Fault]:
    """Imports of a module `_x` from outside of the package that holds it."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        for name in imported(node):
            parts = name.split(".")
            private = next(
                (i for i, part in enumerate(parts) if part.startswith("_") and not part.endswith("__")), None
            )
            if private is None or parts[0] != "expunge":
                continue
            home = ".".join(parts[:private])
            if not f"{module}.".startswith(f"{home}."):
                yield node.lineno, f"{name} is private to {home}"


def test_a_private_module_stays_in_its_package() -> None:
    found = {short(path): list(strangers(module_of(path), tree_of(path))) for path in SOURCE}
    assert listed(found) == ""


def test_the_check_of_private_modules_can_fail() -> None:
    for line in ("from expunge.attacks._hosts import x", "import expunge.attacks._hosts"):
        assert list(strangers("expunge.metrics.a", ast.parse(line)))
        assert not list(strangers("expunge.attacks.a", ast.parse(line)))
        assert not list(strangers("expunge.attacks.deep.a", ast.parse(line)))
    assert list(strangers("expunge.cli.a", ast.parse("from expunge.methods import _masks")))


# -- upwards through a string ---------------------------------------------------------------------


def floors() -> dict[str, int]:
    """Top-level package -> its floor, 1 at the bottom, as import-linter has them."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        layers = tomllib.load(file)["tool"]["importlinter"]["contracts"][0]["layers"]
    return {
        name.strip().removeprefix("expunge."): len(layers) - i
        for i, layer in enumerate(layers)
        for name in layer.replace("|", ":").split(":")
    }


FLOORS = floors()
PLACES = {**KINDS, **{kind: place for kind, (place, *_) in OBJECTS.items()}}
"""Kind -> the package that holds ours."""
DISCOVERS = {"evaluation": {"metrics", "attacks"}}
"""Package -> kinds of plug-ins that it may list with `everything`: it defines their contract and runs whatever is
installed, so it depends on no one of them; to name or to load a particular one would be to depend on a higher floor."""
REGISTRY = [name for name, found in vars(registry).items() if "kind" in getattr(found, "__annotations__", {})]
"""The registry's functions of a kind, `load` and `names` among them."""


def registry_calls(tree: ast.Module) -> set[str]:
    """The names under which a file calls the registry."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if node.module == "expunge.core.registry" and alias.name in REGISTRY:
                    found.add(alias.asname or alias.name)
                elif f"{node.module}.{alias.name}" == "expunge.core.registry":
                    found |= {f"{alias.asname or alias.name}.{name}" for name in REGISTRY}
    return found


def named_packages(tree: ast.Module, own: str, kinds: Mapping[str, str] = PLACES) -> Iterator[tuple[int, str, str]]:
    """(line, how, package) of every package of ours that a file reaches by a string, other than by an import.

    own: the file's package, which may discover some kinds. A kind that is not written out is taken for one of methods.
    """
    calls = registry_calls(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in calls and node.args:
            kind = node.args[0].value if isinstance(node.args[0], ast.Constant) else METHOD_KINDS[0]
            if not (ast.unparse(node.func).endswith("everything") and kind in DISCOVERS.get(own, ())):
                yield node.lineno, ast.unparse(node), kinds.get(kind, f"expunge.{kind}").split(".")[1]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            parts = node.value.partition(":")[0].split(".")
            if parts[0] == "expunge" and len(parts) > 1 and parts[1] in FLOORS and " " not in node.value:
                yield node.lineno, repr(node.value), parts[1]


def climbs(module: str, tree: ast.Module) -> Iterator[Fault]:
    """Strings by which a file reaches a higher floor than its own."""
    own = module.split(".")[1]
    for line, how, package in named_packages(tree, own):
        if FLOORS[package] > FLOORS[own]:
            yield line, f"{how} reaches up to expunge.{package}"


def test_no_string_leads_to_a_higher_floor() -> None:
    """The registry itself and the table of public names hold such strings and may: others call them."""
    paths = [path for path in SOURCE if path.parent != PACKAGE and path != PACKAGE / "core" / "registry.py"]
    found = {short(path): list(climbs(module_of(path), tree_of(path))) for path in paths}
    assert listed(found) == ""


def test_every_kind_has_a_floor() -> None:
    assert {"load", "names", "everything"} <= set(REGISTRY)
    assert {place.split(".")[1] for place in PLACES.values()} <= set(FLOORS)
    assert FLOORS["core"] == 1 and max(FLOORS.values()) == FLOORS["cli"] == 7


@pytest.mark.parametrize(
    "text",
    [
        'from expunge.core.registry import load\nload("guards", name)',
        'from expunge.core import registry\nregistry.names("exact")',
        "from expunge.core.registry import everything as plugins\nplugins(kind)",
        'import importlib\nimportlib.import_module("expunge.methods.exact.sisa")',
        'importlib.import_module(f"expunge.workflows.{name}")',
        'PLACE = "expunge.metrics.drift:drift"',
    ],
)
def test_the_check_of_strings_sees_the_way_up(text: str) -> None:
    assert list(climbs("expunge.models.a", ast.parse(text)))
    assert not list(climbs("expunge.cli.a", ast.parse(text)))


def test_a_package_discovers_only_the_kinds_whose_contract_it_defines() -> None:
    listing = 'from expunge.core import registry\nregistry.everything("metrics")'
    assert not list(climbs("expunge.evaluation.a", ast.parse(listing)))
    assert list(climbs("expunge.training.a", ast.parse(listing)))
    loading = 'from expunge.core import registry\nregistry.load("metrics", "rouge_l")'
    assert list(climbs("expunge.evaluation.a", ast.parse(loading)))

"""The tasks on which methods are compared, by name or from a request file."""

from __future__ import annotations

from pathlib import Path

from expunge.core.errors import BadInput, did_you_mean
from expunge.core.request import read_config
from expunge.workflows.benches import published, small
from expunge.workflows.benches._bench import Bench

__all__ = ["Bench", "bench_of", "benches_of"]

FILES = (".yaml", ".yml", ".json")
MOST_WORLDS = 100


def benches_of(name: str, *, model: str | None = None, data: str | None = None) -> list[Bench]:
    """The benches of a name with a range of worlds, authors@1-3; of any other name the one of `bench_of`.

    Raises BadInput.
    """
    world, _, setting = name.partition("@")
    if "@" not in name or not {world} <= {*small.WORLDS, *small.NAMED}:
        return [bench_of(name, model=model, data=data)]
    if world not in small.WORLDS:
        raise BadInput.of("bench", name, f"names a world, but {world} has one only", f"write {world}")
    first, dash, last = setting.partition("-")
    numbers = [int(part) for part in (first, last if dash else first) if part.isascii() and part.isdigit()]
    if len(numbers) < 2 or not 0 <= numbers[1] - numbers[0] < MOST_WORLDS:
        fix = f"write {world}@2, or {world}@1-3 for several"
        raise BadInput.of("bench", name, "has a setting that is not the seed of a world or a range of them", fix)
    return [bench_of(f"{world}@{i}", model=model, data=data) for i in range(numbers[0], numbers[1] + 1)]


def bench_of(name: str, *, model: str | None = None, data: str | None = None) -> Bench:
    """A bench by its name, or from a request file without its method and out. Raises BadInput.

    model: the model for a published bench, or in place of the request's. data: a folder with a published bench's data
    sets, each under its own name; without it they come from the hub.
    """
    places = published.names()
    if name in places:
        return published.bench(name, model, data)
    if data is not None:
        raise BadInput.of(
            "--data",
            data,
            f"cannot be used with {name}, which has data of its own",
            "leave it out, or name one of " + ", ".join(places),
        )
    if name.partition("@")[0] in small.WORLDS:
        found = small.WORLDS[name.partition("@")[0]](name)
    elif name in small.NAMED:
        found = small.NAMED[name]()
        if model is not None and found.train is not None:
            raise BadInput.of(
                "--model",
                model,
                f"cannot be used with {name}, which trains a small model of its own",
                "leave it out, or name one of " + ", ".join(places),
            )
    elif Path(name).suffix in FILES:
        request = read_config(name, "request")
        found = Bench(Path(name).stem, {k: v for k, v in request.items() if k not in ("method", "out")})
    else:
        raise BadInput.of(
            "bench",
            name,
            "unknown bench",
            did_you_mean(name, [*small.WORLDS, *small.NAMED, *places, "the path of a request.yaml"]),
        )
    if model is not None:
        found.request["model"] = model
    return found

"""Flower's simulation: the same train.yaml through Ray's actors ends with the bits of one process.

Slow: flwr is the extra `federated`, which `make nightly` installs; Ray comes with `flwr[simulation]` or the extra
`ray`. As a script this file is the simulation, in a process of its own, which Ray may keep.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from expunge.methods._rounds import state_of
from expunge.models.open import open_model
from expunge.pipeline.train import train
from loading import ROOT
from test_federation import MODEL, config, equal, weights

pytestmark = pytest.mark.slow
SECONDS = 900.0
"""To wait for the simulation."""
CLIENTS = 4


def simulate(folder: Path) -> None:
    """Run the clients of examples/flower over the rows of train.yaml, in actors of Ray."""
    from federation.client import simulated
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp
    from flwr.simulation import run_simulation

    from expunge.methods.deployment import serve

    server, app = ServerApp(), ClientApp()
    settings = str(folder / "train.yaml")

    @server.main()
    def main(grid: Any, context: Any) -> None:
        serve(settings, grid, CLIENTS, folder / "result", timeout=SECONDS / 2)

    def act(message: Any, context: Any) -> Any:
        return simulated(settings, int(context.node_config["partition-id"]))(message, context)

    app.train()(act)
    app.query("name")(act)
    app.query("read")(act)
    run_simulation(server, app, CLIENTS, backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}})


def test_a_simulation_ends_with_the_bits_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rounds of four clients in Ray's actors: the model of `expunge train` on the same train.yaml, and the same
    account of who took part and what they sent."""
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "cache"))
    given = config(tmp_path, rounds=2)
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(given))
    paths = [str(ROOT / "src"), str(ROOT / "examples" / "flower"), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "FLWR_HOME": str(tmp_path / "home"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(paths),
    }
    command = [sys.executable, __file__, str(tmp_path)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    base = train(given)
    saved = tmp_path / "result" / "model" / "model.safetensors"
    assert equal(state_of(open_model({**MODEL, "weights": str(saved)}, True)), weights(base))
    told = json.loads((tmp_path / "result" / "federation.json").read_text())
    here = json.loads((base / "expunge.json").read_text())["federation"]
    assert [told[name] for name in ("participants", "facts")] == [here[name] for name in ("participants", "facts")]
    assert set(json.loads((tmp_path / "result" / "read.json").read_text())) == {str(k) for k in range(CLIENTS)}


if __name__ == "__main__":
    simulate(Path(sys.argv[1]))

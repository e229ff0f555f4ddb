"""A federation of processes of their own: a SuperLink and SuperNodes over TLS, whose keys the SuperLink knows.

Slow: flwr is the extra `federated`, which `make nightly` installs.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from expunge.data.load import load
from expunge.evaluation import reading
from expunge.methods._rounds import state_of
from expunge.methods.deployment import Training
from expunge.models.build import fresh
from expunge.models.open import open_model
from expunge.pipeline.clients import scores_of_sums
from expunge.training import checkpoint
from loading import ROOT
from test_federation import MODEL, equal, rows

pytestmark = pytest.mark.slow
SECONDS = 240.0
"""To wait for anything."""
CLIENTS = ("0", "1")


def keep_certificates(folder: Path) -> None:
    """ca.pem, and server.pem and server.key for this machine, signed by it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    now = datetime.datetime.now(datetime.UTC)

    def certificate(subject: str, issuer: str, key: Any, signer: Any, more: list[tuple[Any, bool]]) -> Any:
        names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, one)]) for one in (subject, issuer)]
        made = x509.CertificateBuilder().subject_name(names[0]).issuer_name(names[1]).public_key(key.public_key())
        made = made.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
        made = made.not_valid_after(now + datetime.timedelta(days=1))
        for extension, critical in more:
            made = made.add_extension(extension, critical)
        return made.sign(signer, hashes.SHA256())

    authority, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    here = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    signed = {
        "ca": certificate("test", "test", authority, authority, [(x509.BasicConstraints(True, None), True)]),
        "server": certificate("localhost", "test", own, authority, [(x509.SubjectAlternativeName(here), False)]),
    }
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    for name, one in signed.items():
        (folder / f"{name}.pem").write_bytes(one.public_bytes(pem))
    (folder / "server.key").write_bytes(own.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))


def keep_key(folder: Path, name: str) -> None:
    """NAME and NAME.pub: the key of a node, as OpenSSH writes them."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, plain = ec.generate_private_key(ec.SECP384R1()), serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, plain)
    (folder / name).write_bytes(private)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    (folder / f"{name}.pub").write_bytes(public)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Deployment:
    """Processes that know one another by certificates and keys in a folder; all are ended with it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port, self.started = folder, free_port(), []
        self.started: list[subprocess.Popen[bytes]] = []
        self.environment = {
            **os.environ,
            "FLWR_HOME": str(folder / "home"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "OMP_NUM_THREADS": "1",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": f"{ROOT / 'src'}:{os.environ.get('PYTHONPATH', '')}",
        }
        keep_certificates(folder)
        (folder / "home").mkdir()
        place = f'address = "127.0.0.1:{self.port}"\nroot-certificates = "{folder / "ca.pem"}"\n'
        (folder / "home" / "config.toml").write_text(f'[superlink]\ndefault = "here"\n\n[superlink.here]\n{place}')

    @property
    def served(self) -> list[str]:
        """The options that name the certificates of a server of ours."""
        files = {"--ssl-ca-certfile": "ca.pem", "--ssl-certfile": "server.pem", "--ssl-keyfile": "server.key"}
        return [text for option, name in files.items() for text in (option, str(self.folder / name))]

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        with open(self.folder / f"{name}.log", "wb") as log:
            found = subprocess.Popen(
                command,
                env=self.environment,
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started.append(found)
        return found

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command, env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=SECONDS
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def node(self, name: str, **config: str) -> subprocess.Popen[bytes]:
        """A SuperNode with the key of this name."""
        settings = " ".join(f'{key}="{value}"' for key, value in config.items())
        trust = ["--root-certificates", str(self.folder / "ca.pem"), "--superlink", f"127.0.0.1:{self.port}"]
        key = ["--auth-supernode-private-key", str(self.folder / name), "--max-retries", "3"]
        here = ["--port", str(free_port()), *self.served, "--node-config", settings]
        return self.start(name, "flower-supernode", *trust, *key, *here)

    def end(self) -> None:
        for one in reversed(self.started):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(one.pid, 15)
        for one in self.started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                one.wait(20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(one.pid, 9)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A SuperLink, and the SuperNodes of two clients whose keys it knows."""
    found = Deployment(tmp_path_factory.mktemp("deployment"))
    folder = found.folder
    given = {"trainer": {"federation": {"rounds": 2}}, "batch_size": 16, "learning_rate": 0.01, "out": "unused"}
    (folder / "train.yaml").write_text(yaml.safe_dump({"model": MODEL, "data": "unused.jsonl", **given}))
    for name in CLIENTS:
        own = [json.dumps(row) + "\n" for row in rows() if str(row["client"]) == name]
        (folder / f"rows-{name}.jsonl").write_text("".join(own))
    try:
        options = ["--enable-supernode-auth", "--disable-runtime-dependency-installation", "--port", str(found.port)]
        found.start("superlink", "flower-superlink", *found.served, *options)
        wait_for(lambda: answers(found.port), "the SuperLink", found)
        for name in CLIENTS:
            keep_key(folder, f"node-{name}")
            found.run("flwr", "supernode", "register", str(folder / f"node-{name}.pub"), "here")
            rows_of = str(folder / f"rows-{name}.jsonl")
            found.node(f"node-{name}", client=name, rows=rows_of, train=str(folder / "train.yaml"))
        yield found
    finally:
        found.end()


def answers(port: int) -> bool:
    with socket.socket() as found:
        return found.connect_ex(("127.0.0.1", port)) == 0


def wait_for(there: Any, what: str, deployment: Deployment) -> None:
    until = time.monotonic() + SECONDS
    while not there():
        assert time.monotonic() < until, (what, [deployment.log(path.stem) for path in deployment.folder.glob("*.log")])
        time.sleep(1)


def statuses(deployment: Deployment) -> list[str]:
    """Of the nodes that the SuperLink knows."""
    listed = json.loads(deployment.run("flwr", "supernode", "list", "here", "--format", "json"))
    return [node["status"] for node in listed["nodes"]]


def test_a_stranger_without_a_key_is_refused(deployment: Deployment) -> None:
    """The SuperLink does not know its key: its process ends and says so, while the two others are online."""
    keep_key(deployment.folder, "stranger")
    stranger = deployment.node("stranger", client="2", rows="none.jsonl", train="none.yaml")
    assert stranger.wait(SECONDS) != 0
    assert "Failed to activate SuperNode" in deployment.log("stranger")
    wait_for(lambda: statuses(deployment) == ["online"] * len(CLIENTS), "the SuperNodes", deployment)


def test_two_rounds_between_processes_end_with_the_bits_of_one_process(deployment: Deployment) -> None:
    """The model is that of two rounds here; the figures that the clients' sums lead to are those of all their rows."""
    folder = deployment.folder
    shutil.copytree(ROOT / "examples" / "flower", folder / "app")
    settings = f'train="{folder / "train.yaml"}" out="{folder / "result"}" clients={len(CLIENTS)}'
    deployment.run("flwr", "run", str(folder / "app"), "here", "--run-config", settings)
    wait_for((folder / "result" / "read.json").exists, "the run", deployment)
    training = Training.read(folder / "train.yaml")
    own = {name: list(load(str(folder / f"rows-{name}.jsonl"), "rows")) for name in CLIENTS}
    run = training.rounds(fresh(MODEL, [], 0), own, folder / "here")
    expected = run.run(state_of(run.model), 2)
    sent = open_model({**MODEL, "weights": str(folder / "result" / "model" / "model.safetensors")}, True)
    assert equal(state_of(sent), expected)
    told = json.loads((folder / "result" / "federation.json").read_text())
    assert told["participants"] == [list(CLIENTS)] * 2
    said = json.loads((folder / "result" / "read.json").read_text())
    pooled = {one.name: one for one in scores_of_sums(said.values())}
    checkpoint.restore(run.model.module, expected, "")
    run.model.module.eval()
    whole = reading.read(run.model, "retain", [row for some in own.values() for row in some], {"nll"}, cache=False)
    assert pooled["retain_nll"].value == pytest.approx(float(whole.mean_nll_N.mean()), abs=1e-6)
    assert "values" not in json.dumps(said) and pooled["retain_nll"].n == sum(map(len, own.values()))

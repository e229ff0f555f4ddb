"""The runs of a bench as a SLURM job array: a script, and a list with a request per run."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge.core import cache
from expunge.core.files import write_text
from expunge.pipeline.run_folder import write_request
from expunge.workflows._bench_rows import Planned

SCRIPT, JOBS = "bench.sbatch", "jobs.txt"
PASSED_ON = ("EXPUNGE_DATA", "HF_HOME", "HF_HUB_OFFLINE")
"""Variables that a run reads, as they are here."""


@dataclass(frozen=True)
class JobArray:
    """A bench's job array. folder: of the bench; jobs: that may run at the same time; threads: of each."""

    name: str
    folder: Path
    runs: Sequence[Planned]
    jobs: int
    threads: int

    @property
    def place(self) -> Path:
        """The folder of the script, of the list and of the logs; all machines must see it, and the cache."""
        return (self.folder / "slurm").absolute()

    def requests(self) -> list[Path]:
        """The request file of each run, in the order of the list."""
        return [self.place / f"{number:05d}.yaml" for number in range(len(self.runs))]

    def script(self) -> str:
        """The batch script: task i of the array carries out line i of the list, from where a killed one left it."""
        settings = {
            "job-name": f"expunge-{''.join(c if c.isalnum() else '-' for c in self.name)}",
            "array": f"0-{len(self.runs) - 1}%{self.jobs}",
            "cpus-per-task": self.threads,
            "output": f"{self.place}/%a.log",
        }
        variables = {
            "OMP_NUM_THREADS": str(self.threads),
            "EXPUNGE_CACHE": str(cache.cache_folder().absolute()),
            **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
        }
        request = f'"$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" {shlex.quote(str(self.place / JOBS))})"'
        return "\n".join(
            [
                "#!/bin/bash",
                *(f"#SBATCH --{name}={value}" for name, value in settings.items()),
                *(f"export {name}={shlex.quote(value)}" for name, value in variables.items()),
                f"cd {shlex.quote(os.getcwd())}",
                f"{shlex.quote(sys.executable)} -m expunge run {request} --resume",
                "code=$?",
                '[ "$code" -eq 1 ] && exit 0  # a verdict that failed is a run that ended',
                'exit "$code"',
                "",
            ]
        )

    def write(self) -> None:
        """Write the requests, the list and, last, the script."""
        self.place.mkdir(parents=True, exist_ok=True)
        for planned, path in zip(self.runs, self.requests(), strict=True):
            write_request(self.place, planned.values, path.name)
        write_text(self.place / JOBS, "".join(f"{path}\n" for path in self.requests()))
        write_text(self.place / SCRIPT, self.script())

    def to_json(self) -> dict[str, Any]:
        """The result of `bench`, in the place of a leaderboard."""
        return {
            "bench": self.name,
            "engine": "slurm",
            "script": self.script(),
            "path": str(self.place / SCRIPT),
            "jobs": [
                {"request": str(path), "method": planned.entry.label, "seed": planned.seed, "out": planned.out}
                for planned, path in zip(self.runs, self.requests(), strict=True)
            ],
        }

"""The time, use and memory of each stage of a piece of work, for the evidence."""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import torch

from expunge.core import processes


def resident_peak() -> int:
    """The high-water mark of this process's memory, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class StageClock:
    """Ends one stage after another: each began where the last one ended.

    seconds: wall time of the first process. cpu_seconds: user and system time of all processes. utilisation: CPU
    seconds over wall time and cores. peak_memory_bytes: the largest high-water mark of a process by the stage's end; on
    CUDA that of the device's memory.
    """

    lines: dict[str, dict[str, Any]] = field(default_factory=dict)
    wall: float = field(default_factory=time.monotonic)
    cpu: float = field(default_factory=time.process_time)

    def end(self, name: str) -> None:
        """End the stage of this name; one that ends twice is one stage."""
        wall, cpu = time.monotonic(), time.process_time()
        peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else resident_peak()
        shares = processes.gather((cpu - self.cpu, peak, platform.node(), _cores()))
        before = self.lines.get(name, {"seconds": 0.0, "cpu_seconds": 0.0, "peak_memory_bytes": 0})
        seconds, used = before["seconds"] + wall - self.wall, before["cpu_seconds"] + sum(one[0] for one in shares)
        cores = sum({node: count for _, _, node, count in shares}.values())  # processes of one machine share its cores
        self.lines[name] = {
            "seconds": round(seconds, 3),
            "cpu_seconds": round(used, 3),
            "utilisation": round(used / max(1e-9, seconds) / cores, 3),
            "peak_memory_bytes": max(before["peak_memory_bytes"], *(one[1] for one in shares)),
        }
        self.wall, self.cpu = wall, cpu

"""A process that imports the tool once and forks a child for each command, so that a run takes about a second.

A script of its own, not a function: pytest's workers have threads, and a fork would take over their locks. Each line on
stdin is an order (`harness.Order` as JSON), each line on stdout its outcome. Modules that a child had to import are
imported here afterwards: the next child finds them loaded.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from typing import Any

import torch
import transformers  # noqa: F401  (whatever a command does, it needs these two)

import expunge.cli.app as cli

WRITES = {
    "os.rename",
    "os.link",
    "os.symlink",
    "os.remove",
    "os.rmdir",
    "os.mkdir",
    "os.truncate",
    "os.chmod",
    "tempfile.mkstemp",
    "tempfile.mkdtemp",
    "shutil.rmtree",
    "shutil.copyfile",
    "shutil.move",
}
"""Audit events of operations on files; `os.replace` is a rename to them."""
OPENS_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
FAULT = 99


class Operations:
    """Counts this process's operations on files below `root`; kills it before one of them.

    record: a file that gets a line an operation. kill: the number of the operation, from 1 up. at: a part of a line;
    the first operation that has it is the last that is not done.
    """

    def __init__(self, root: str, record: str = "", kill: int = 0, at: str = "") -> None:
        self.root, self.kill, self.at, self.seen = root, kill, at, 0
        self.record = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600) if record else -1

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            if not isinstance(arguments[2], int) or not arguments[2] & OPENS_TO_WRITE:
                return
        elif event not in WRITES:
            return
        path = _path(arguments[0])
        if not path.startswith(self.root):
            return
        self.seen += 1
        line = f"{event} {path}"
        if self.record >= 0:
            os.write(self.record, f"{line}\n".encode(errors="replace"))
        if self.seen == self.kill or (self.at and self.at in line):
            os.kill(os.getpid(), signal.SIGKILL)


def _path(named: Any) -> str:
    """An absolute path, as far as the event names one; a name relative to an open folder has none."""
    try:
        return os.path.abspath(os.fsdecode(named))
    except TypeError:  # a file descriptor
        return ""


def child(order: dict[str, Any], loaded: str) -> None:
    """Runs one command in this process, and ends it."""
    code = FAULT
    try:
        os.setsid()
        os.umask(order["umask"])
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(order[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        os.chdir(order["cwd"])
        os.environ.update(order["env"])
        os.fsync = lambda handle: None  # a kill takes nothing that was written, on the disk or not
        tempfile.tempdir = None  # TMPDIR is another now
        if order["operations"] is not None:
            sys.addaudithook(Operations(**order["operations"]))
        code = cli.run(order["arguments"])
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    with open(loaded, "w") as file:
        json.dump(sorted(sys.modules), file)
    os._exit(code)


def wait(pid: int, seconds: float) -> int:
    """The child's exit code; one that does not end is killed."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def learn(loaded: str) -> None:
    """Imports what the last child had to import; what cannot be imported by its name is left to the children."""
    if not os.path.isfile(loaded):  # it was killed
        return
    with open(loaded) as file:
        for name in sorted(set(json.load(file)) - set(sys.modules)):
            if not name.startswith("__"):
                with contextlib.suppress(Exception):
                    importlib.import_module(name)
    os.remove(loaded)


def main() -> None:
    """Serves until stdin ends."""
    torch.set_num_threads(1)
    loaded = os.path.join(tempfile.mkdtemp(), "loaded.json")
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints while it is imported is no reply
    for line in sys.stdin:
        order = json.loads(line)
        gc.freeze()  # what is loaded is never collected: children neither search it nor copy it
        pid = os.fork()
        if pid == 0:
            child(order, loaded)
        code = wait(pid, order["seconds"])
        learn(loaded)
        replies.write(json.dumps({"code": code}) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()

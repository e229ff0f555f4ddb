"""What the nightly run says of its durations."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
JUNIT = """<testsuites><testsuite>
<testcase classname="tests.hand.test_a" name="test_one" time="1.5"/>
<testcase classname="tests.hand.test_a.TestGroup" name="test_two" time="2.25"/>
<testcase classname="tests.test_cli" name="test_three" time="0.25"/>
</testsuite></testsuites>"""


def test_seconds_are_summed_by_folder_with_the_slowest_first(tmp_path: Path) -> None:
    path = tmp_path / "tests.xml"
    path.write_text(JUNIT)
    done = subprocess.run([sys.executable, ROOT / "scripts" / "durations", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines == [
        ["3.8", "s", "2", "tests", "tests/hand"],
        ["0.2", "s", "1", "tests", "tests"],
        ["4.0", "s", "3", "tests", "all"],
    ]

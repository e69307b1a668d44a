"""Whole commands, as users and tests wait for them: seconds, processor time, memory, and what they may take.

The largest process of a command is what its memory is of.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.paired import CHECKOUT
from xtalk.errors import XtalkError


@dataclass(frozen=True)
class Command:
    """What is run, with OUT for an empty folder, how often, and in how many seconds it should end."""

    words: Sequence[str]
    aim: float
    often: int = 1

    def measure(self) -> dict[str, float]:
        """Medians. Errors: XtalkError where the command fails."""
        runs = [self._run() for _ in range(self.often)]
        return {what: statistics.median(run[what] for run in runs) for what in runs[0]}

    def _run(self) -> dict[str, float]:
        with tempfile.TemporaryDirectory() as out:
            words = [word.replace("OUT", str(Path(out) / "out")) for word in self.words]
            command = [sys.executable, "-m", "benchmarks.commands", *words]
            found = subprocess.run(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True, check=False)
        if found.returncode:
            raise XtalkError(f"{' '.join(words)} ended with code {found.returncode}; see above")
        return json.loads(found.stdout)


XTALK = sys.executable, "-m", "xtalk"
COMMANDS = {
    "import": Command((sys.executable, "-c", "import xtalk"), 1.5, 5),
    "help": Command((*XTALK, "--help"), 1.5, 5),
    "demo": Command((*XTALK, "run", "--preset", "quick", "--yes", "--out", "OUT"), 240),
    "tests": Command(("make", "test"), 300),
}


def main() -> None:
    """Run the command that is given and print what it used.

    In a process that has loaded nothing: the system counts the memory of who starts a command as its.
    """
    start = time.perf_counter()
    process = subprocess.run(sys.argv[1:], stdout=sys.stderr, check=False)
    seconds, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(json.dumps({"seconds": seconds, "cpu_seconds": used.ru_utime + used.ru_stime, "peak_bytes": peak}))
    sys.exit(process.returncode)


if __name__ == "__main__":
    main()

"""Kill a run at random moments, go on with the same command, and compare with a run that nobody disturbed.

`python -m audit.kills --kills 100` trains, measures and reports on the embedded model at tiny sizes. After
every SIGKILL each file that can be seen must be whole; once the run is complete, every file must be what it
is in the undisturbed run, but for times. Exit code 1 where that fails.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError, safe_open

SIZES = (
    *("training.steps=40", "training.batch_tokens=128", "training.checkpoint_every=4"),
    *("harvest.scaling_tokens=1024", "harvest.loss_metric_tokens=512", "harvest.buffer_sequences=16"),
    *("evaluation.tokens=2000", "evaluation.resamples=100", "crosscoder.d_sae=64", "crosscoder.k=4"),
    *("certificates=[]", "max_characters=400000"),
)
COMMAND = (sys.executable, "-c", "from xtalk.cli import main; main()", "run", "--quiet", "--device", "cpu")
OPTIONS = ("--hookpoints", "blocks.1.ln2", "blocks.2.ln2", "--penalty", "keep_one=2", "--set", *SIZES)

TIMES = {"wall_seconds", "seconds", "tokens_per_second"}
NOT_COMPARED = {"log.jsonl", "steps.json", ".lock"}  # events and their times
DRAWN = {".html", ".png", ".svg"}  # of the files that are compared, and of times


def run(out: Path, kill_after: float | None = None) -> float | None:
    """Run or go on; the seconds that it took, or None if it was killed. Errors: SystemExit if it fails."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    begun = time.perf_counter()
    command = [*COMMAND, "--out", str(out), *OPTIONS]
    with subprocess.Popen(
        command, start_new_session=True, env=environment, stderr=subprocess.PIPE
    ) as process:
        try:
            _, said = process.communicate(timeout=kill_after)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return None
    if process.returncode:
        raise SystemExit(f"the run failed with code {process.returncode}: {said.decode()[-2000:]}")
    return time.perf_counter() - begun


def broken(out: Path) -> list[str]:
    """The files of a run folder that are there and not whole."""
    found: list[str] = []
    for path in sorted(path for path in out.rglob("*") if path.is_file() and not path.name.startswith(".")):
        try:
            match path.suffix:
                case ".json":
                    json.loads(path.read_text())
                case ".jsonl":
                    list(map(json.loads, path.read_text().splitlines()))
                case ".yaml":
                    yaml.safe_load(path.read_text())
                case ".safetensors":
                    with safe_open(path, "pt") as tensors:
                        list(map(tensors.get_tensor, tensors.keys()))
                case ".html":
                    if not path.read_text().rstrip().endswith("</html>"):
                        found.append(str(path))
                case _:
                    pass
        except (ValueError, yaml.YAMLError, SafetensorError) as error:
            found.append(f"{path}: {error}")
    return found


def content(out: Path) -> dict[str, str]:
    """Each file of a complete run -> the hash of what must be the same in every such run."""
    hashes: dict[str, str] = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        name = path.relative_to(out).as_posix()
        if name in NOT_COMPARED or path.name == ".lock":
            continue
        content = path.read_bytes()
        if path.suffix == ".json":
            content = json.dumps(timeless(json.loads(content))).encode()
        hashes[name] = "drawn" if path.suffix in DRAWN else hashlib.sha256(content).hexdigest()
    return hashes


def timeless(value: Any) -> Any:
    """JSON without the values that say how long something took."""
    if isinstance(value, dict):
        return {key: timeless(of) for key, of in value.items() if key not in TIMES}
    return list(map(timeless, value)) if isinstance(value, list) else value


def trials(kills: int, seed: int, folder: Path) -> None:
    """Kill `kills` times, over as many runs as that takes. Errors: SystemExit says what was lost."""
    random_ = random.Random(seed)
    seconds = run(folder / "undisturbed")
    assert seconds is not None
    expected = content(folder / "undisturbed")
    print(f"an undisturbed run: {len(expected)} files, {seconds:.0f} s", flush=True)
    done, runs = 0, 0
    while done < kills:
        out, runs = folder / f"run-{runs}", runs + 1
        while done < kills and run(out, random_.uniform(0.2, seconds)) is None:
            done += 1
            if lost := broken(out):
                raise SystemExit(f"kill {done}: {', '.join(lost)}")
        run(out)  # on to the end, if the last was killed
        found = content(out)
        if found != expected:
            names = sorted(name for name in found | expected if found.get(name) != expected.get(name))
            raise SystemExit(f"run {runs}, after {done} kills: {', '.join(names)} differ")
        print(f"run {runs}: complete after {done} kills in all, every file the same", flush=True)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        trials(given.kills, given.seed, Path(folder))


if __name__ == "__main__":
    main()

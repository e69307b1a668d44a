"""Kill a run at random moments, go on with the same command, and compare with a run that nobody disturbed.

`python -m audit.kills --kills 100` harvests into a store, trains, measures, proves and reports on the
embedded model at tiny sizes. Every kill is a SIGKILL in a step that is drawn, at a moment of it that is
drawn. After it each file that can be seen must be whole; no step that was complete is done again, and no
checkpoint goes back; once the run is complete, every file must be what it is in the undisturbed run, but for
times. `--processes 2` does the same to a run of two processes. `--json FILE` keeps what was seen. Exit code 1
where something is lost.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError, safe_open

SIZES = (
    *("training.steps=40", "training.batch_tokens=128", "training.checkpoint_every=4", "harvest.store=true"),
    *("harvest.scaling_tokens=1024", "harvest.loss_metric_tokens=512", "harvest.buffer_sequences=16"),
    *("evaluation.tokens=2000", "evaluation.resamples=100", "crosscoder.d_sae=64", "crosscoder.k=4"),
    "max_characters=400000",
    "certificates=[{post_hoc: true, vocabulary: 16, network_steps: 100, crosscoder_steps: 50}]",
)
COMMAND = (sys.executable, "-c", "from xtalk.cli import main; main()", "run", "--quiet", "--device", "cpu")
OPTIONS = ("--hookpoints", "blocks.1.ln2", "blocks.2.ln2", "--penalty", "keep_one=2", "--set", *SIZES)
START = "start"  # what comes before the first step
LOOKS_EVERY = 0.005  # seconds
AHEAD = 4  # the next steps, of which one is drawn: a run is killed several times

TIMES = {"tokens_per_second", "brute_force_estimated", "against_brute_force"}  # and all seconds
NOT_COMPARED = {"log.jsonl", "steps.json", ".lock"}  # events and their times
DRAWN = {".html", ".png", ".svg"}  # of the files that are compared, and of times


@dataclass(frozen=True)
class Moment:
    """When to kill: in a step, `fraction` of the seconds after its beginning that it takes undisturbed."""

    step: str
    fraction: float


class Disturbed(Exception):
    """What a kill took, in words."""


@dataclass
class Trial:
    """Runs of one command in folders of their own, by one or two processes."""

    folder: Path
    processes: int
    random: random.Random
    seconds: dict[str, float]  # of each step undisturbed, in order
    kills: list[Moment]

    def run(self, out: Path, moment: Moment | None = None) -> bool:
        """Run or go on; whether it was killed. Errors: Disturbed if it fails."""
        ranks = self._start(out)
        try:
            killed = moment is not None and self._wait(ranks, out, moment)
            if killed:
                os.killpg(ranks[0].pid, signal.SIGKILL)
            said = b"".join(rank.communicate()[1] for rank in ranks)
        except BaseException:
            os.killpg(ranks[0].pid, signal.SIGKILL)
            raise
        if not killed and any(rank.returncode for rank in ranks):
            raise Disturbed(f"the run failed: {said.decode()[-2000:]}")
        return killed

    def _start(self, out: Path) -> list[subprocess.Popen[bytes]]:
        """All processes of a run, in a process group of their own."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        together = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(self.processes)}
        ranks: list[subprocess.Popen[bytes]] = []
        for rank in range(self.processes):
            of_rank = {"RANK": str(rank), "LOCAL_RANK": str(rank)} | together if self.processes > 1 else {}
            ranks.append(
                subprocess.Popen(
                    [*COMMAND, "--out", str(out), *OPTIONS],
                    env=os.environ | {"OMP_NUM_THREADS": "1"} | of_rank,
                    process_group=ranks[0].pid if ranks else 0,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                )
            )
        return ranks

    def _wait(self, ranks: list[subprocess.Popen[bytes]], out: Path, moment: Moment) -> bool:
        """Wait for the moment; whether the run was still there then."""
        looked = len(events(out))
        until = time.monotonic() + moment.fraction * self.seconds[START] if moment.step == START else None
        while until is None or time.monotonic() < until:
            if any(rank.poll() is not None for rank in ranks):
                return False
            if until is None and ("begin", moment.step) in events(out)[looked:]:
                until = time.monotonic() + moment.fraction * self.seconds[moment.step]
            time.sleep(LOOKS_EVERY)
        return True

    def draw(self, out: Path) -> Moment | None:
        """A moment before or in one of the steps that the run in this folder has left; None: it has none."""
        done = {step for event, step in events(out) if event == "complete"}
        left = [step for step in self.seconds if step not in done][:AHEAD]
        if left == [START]:
            return None
        return Moment(self.random.choice(left), self.random.uniform(0, 1.1))  # also just after its end

    def disturb(self, out: Path, kills: int) -> None:
        """Kill a run up to `kills` times and let it end. Errors: Disturbed."""
        steps: dict[str, int] = {}
        while kills and (moment := self.draw(out)) and self.run(out, moment):
            self.kills.append(moment)
            kills -= 1
            where = f"kill {len(self.kills)}, in {moment.step}"
            if lost := broken(out):
                raise Disturbed(f"{where}: {', '.join(lost)}")
            now = checkpoints(out)
            if back := [name for name in now if now[name] < steps.get(name, 0)]:
                raise Disturbed(f"{where}: the checkpoint of {', '.join(back)} went back")
            steps |= now
            if moment.step == START and len(events(out)) == 0:
                break  # so that another folder is begun
        self.run(out)
        if twice := done_twice(out):
            raise Disturbed(f"{', '.join(twice)} was complete and is done again")


def events(out: Path) -> list[tuple[str, str]]:
    """What log.jsonl says of steps: ("begin", step) and ("complete", step)."""
    log = out / "log.jsonl"
    lines = map(json.loads, log.read_text().splitlines(keepends=True)) if log.exists() else ()
    return [(line["event"], line["step"]) for line in lines if line["event"] in ("begin", "complete")]


def done_twice(out: Path) -> list[str]:
    """The steps that begin after they were complete."""
    complete, twice = set[str](), list[str]()
    for event, step in events(out):
        if event == "begin" and step in complete:
            twice.append(step)
        elif event == "complete":
            complete.add(step)
    return twice


def checkpoints(out: Path) -> dict[str, int]:
    """The step of each training's checkpoint."""
    found: dict[str, int] = {}
    for path in out.glob("checkpoints/*/checkpoint.safetensors"):
        with safe_open(path, "pt") as file:
            found[path.parent.name] = json.loads(file.metadata()["xtalk"])["step"]
    return found


def broken(out: Path) -> list[str]:
    """The files of a run folder that are there and not whole."""
    found: list[str] = []
    for path in sorted(path for path in out.rglob("*") if path.is_file() and not path.name.startswith(".")):
        try:
            whole = is_whole(path)
        except (ValueError, yaml.YAMLError, SafetensorError) as error:
            found.append(f"{path}: {error}")
        else:
            found += [] if whole else [str(path)]
    return found


def is_whole(path: Path) -> bool:
    """Whether a file has its end. Errors: its reader's."""
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
        case ".html" | ".svg":
            return path.read_text().rstrip().endswith(f"</{path.suffix[1:]}>")
        case ".png":
            return path.read_bytes().endswith(b"IEND\xaeB`\x82")
        case _:
            pass
    return True


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
        return {
            key: timeless(of) for key, of in value.items() if key not in TIMES and not key.endswith("seconds")
        }
    return list(map(timeless, value)) if isinstance(value, list) else value


def undisturbed(folder: Path, processes: int, seed: int) -> tuple[Trial, dict[str, str]]:
    """A trial that knows how long each step takes, and the files of a run that nobody disturbed."""
    trial = Trial(folder, processes, random.Random(seed), {}, [])
    out = folder / "undisturbed"
    begun = time.perf_counter()
    trial.run(out)
    took = time.perf_counter() - begun
    steps = {name: record["seconds"] for name, record in json.loads((out / "steps.json").read_text()).items()}
    trial.seconds = {START: took - sum(steps.values())} | steps
    return trial, content(out)


def trials(kills: int, seed: int, processes: int, folder: Path) -> Iterator[dict[str, Any]]:
    """Kill `kills` times, over as many runs as that takes; after each, what was seen. Errors: Disturbed."""
    trial, expected = undisturbed(folder, processes, seed)
    steps, seconds, runs = len(trial.seconds) - 1, sum(trial.seconds.values()), 0
    print(f"an undisturbed run: {steps} steps, {len(expected)} files, {seconds:.0f} s", flush=True)
    while len(trial.kills) < kills:
        out, runs = folder / f"run-{runs}", runs + 1
        trial.disturb(out, kills - len(trial.kills))
        found = content(out)
        if found != expected:
            names = sorted(name for name in found | expected if found.get(name) != expected.get(name))
            raise Disturbed(f"run {runs}, after {len(trial.kills)} kills: {', '.join(names)} differ")
        shutil.rmtree(out)
        print(f"run {runs}: complete after {len(trial.kills)} kills in all, every file the same", flush=True)
        yield {
            "kills": len(trial.kills),
            "runs": runs,
            "processes": processes,
            "seed": seed,
            "steps": steps,
            "files": len(expected),
            "kills_by_step": Counter(moment.step for moment in trial.kills),
        }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", type=Path, help="where to write what was seen")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            for seen in trials(given.kills, given.seed, given.processes, Path(folder)):
                if given.json:
                    given.json.write_text(json.dumps(seen, indent=1) + "\n")
        except Disturbed as lost:
            raise SystemExit(str(lost)) from None


if __name__ == "__main__":
    main()

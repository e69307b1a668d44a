"""Files that others may have written, changed at random: each is read, or refused in one line.

`python -m audit.fuzz_files --seconds 3600` takes turns over every reader: run folders, configurations, models
(folders, adapters, GGUF), crosscoders and peers' dictionaries, texts, checkpoints, activation stores, pair
matrices, and the records of a report. Whatever is not success or an XtalkError of one line, or takes more
than SECONDS or MEMORY, is a failure: its folder is kept, and the command ends with code 1. Certificates have
a fuzzer of their own, `audit.fuzz`.
"""

import argparse
import hashlib
import json
import logging
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from xtalk.activations import ActivationStore
from xtalk.cli.configuring import Choice
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.crosscoder.inspection import inspected
from xtalk.data import read_documents
from xtalk.errors import XtalkError
from xtalk.interactions.pair_matrix import PairMatrix
from xtalk.interactions.pairs import PairInteractions
from xtalk.models.activation_functions import GELU
from xtalk.models.language_model import load_model
from xtalk.reports import Metrics, ReportData, Results, read_record
from xtalk.runs.folder import RunFolder
from xtalk.runs.presets import preset
from xtalk.selftest.cases import L, contributions, random_case
from xtalk.training.checkpoint import load_checkpoint, save_checkpoint
from xtalk.training.config import TrainingConfig
from xtalk.training.train import training_state

ROOT = Path(__file__).parents[1]
SECONDS = 20  # of the processor, for one reading
HANGS = 300  # seconds by the clock
GGUF_HEAD = 3500  # bytes before the weights of the file that is made here
MEMORY = 600_000  # kB that one reading may make the process grow by

Mutate = Callable[[random.Random, bytes], bytes]


@dataclass(frozen=True)
class Target:
    """A reader: how its files are made and read. settle: what keeps a hash from ending all attacks."""

    name: str
    make: Callable[[Path], object]
    read: Callable[[Path], object]
    settle: Callable[[Path], object] = lambda folder: None


@dataclass(frozen=True)
class Failure:
    """What one reading did that it must not."""

    target: str
    seed: int
    what: str


def targets() -> list[Target]:
    """Every reader."""
    sys.path.insert(0, str(ROOT / "tests"))  # whose makers of small files are used here
    from activations.fake_model import FakeModel, numbered_sequences
    from crosscoder.formats.test_hostile import CASES, FILES
    from crosscoder.small import small_crosscoder
    from models.test_adapters import adapter
    from models.test_gguf import tiny, write
    from reference.tiny_models import save_tiny
    from training.tiny_training import crosscoder_config

    def store(folder: Path) -> None:
        from xtalk.activations import ActivationStream
        from xtalk.models.hookpoints import Hookpoint

        stream = ActivationStream(
            FakeModel(torch.bfloat16), numbered_sequences(4, 4), [Hookpoint(0, "ln2")], 7, 2, 5
        )
        ActivationStore.write(folder / "store", stream)

    def state() -> Any:
        return training_state(Crosscoder(crosscoder_config()), TrainingConfig(steps=2, batch_tokens=8))

    def read_crosscoder(folder: Path) -> None:
        made = Crosscoder.load(folder)
        inspected(folder)
        P, D = len(made.config.hook_names), made.config.d_in
        made(torch.zeros(1, D) if P == 1 else torch.zeros(1, P, D))
        if not all(weight.isfinite().all() for weight in made.parameters()):
            raise ValueError("weights are not finite")

    def copied(case: str) -> Callable[[Path], object]:
        return lambda folder: shutil.copytree(FILES / case, folder / Path(case).name)

    def inner(read: Callable[[Path], object]) -> Callable[[Path], object]:
        return lambda folder: read(next(path for path in folder.iterdir() if path.is_dir()))

    return [
        Target("run folder", lambda f: RunFolder.create(f / "run", preset("quick")), _read_run),
        Target("model", lambda f: save_tiny(f / "model"), inner(lambda f: load_model(f, device="cpu"))),
        Target("adapter", adapter, lambda f: load_model(f / "adapter", device="cpu")),
        Target(
            "GGUF",
            lambda f: write(f / "a.gguf", tiny(), "F32"),
            lambda f: load_model(f / "a.gguf", device="cpu"),
        ),
        Target("configuration", _configuration, lambda f: Choice(None, f / "a.yaml", {}).config()),
        Target("crosscoder", lambda f: small_crosscoder().save(f / "own"), inner(read_crosscoder), _settle),
        *(Target(f"dictionary {c}", copied(c), inner(read_crosscoder)) for c in CASES),
        *(Target(f"text {name}", _text(name), _read_texts) for name in TEXTS),
        Target("text d.parquet", _parquet, _read_texts),
        Target("report", _report, _read_report),
        Target(
            "checkpoint",
            lambda f: save_checkpoint(f, state(), {"tokens_seen": 8}, {"lr": 1.0}),
            lambda f: load_checkpoint(f, state(), {"lr": 1.0}),
        ),
        Target("store", store, lambda f: ActivationStore.open(f / "store")),
        Target("pairs", _pairs, lambda f: PairMatrix.load(f / "pairs.safetensors")),
    ]


def _configuration(folder: Path) -> None:
    (folder / "a.yaml").write_text(yaml.safe_dump(preset("paper").plain()))


def _read_run(folder: Path) -> None:
    opened = RunFolder.open(folder / "run")
    for step in ("harvest", "evaluate"):
        opened.is_complete(step, ["harvest.json"])


def _settle(folder: Path) -> None:
    """Let cfg.json have the hash of the weights beside it, so that these are read."""
    cfg, weights = folder / "own" / "cfg.json", folder / "own" / "sae_weights.safetensors"
    try:
        content = json.loads(cfg.read_text())
    except (OSError, ValueError, RecursionError):
        return
    if isinstance(content, dict) and "sae_weights_sha256" in content:
        content["sae_weights_sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
        cfg.write_text(json.dumps(content))


TEXTS = {
    "a.jsonl": b'{"text": "One."}\n{"text": "Two, \\u00e9."}\n',
    "b.csv": b'text,x\n"One, and\nmore",1\nTwo,2\n',
    "c.txt": b"One.\n\nTwo.<|endoftext|>Three.\n",
}


def _text(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(TEXTS[name])


def _parquet(folder: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    rows = {"text": ["One.", "Two, é."] * 30, "x": range(60)}
    parquet.write_table(pa.table(rows), folder / "d.parquet", compression="none")  # so that texts change too


def _read_texts(folder: Path) -> None:
    for path in folder.iterdir():
        read_documents(path, max_characters=1000)


def _report(folder: Path) -> None:
    for name in ("metrics.json", "report_data.json"):
        shutil.copy(ROOT / "docs" / "example" / name, folder)


def _read_report(folder: Path) -> Results:
    return Results(
        read_record(folder / "metrics.json", Metrics), read_record(folder / "report_data.json", ReportData)
    )


def _pairs(folder: Path) -> None:
    pairs = PairInteractions(L, ("mlp",))
    case = random_case(GELU, False)
    pairs.add({"mlp": contributions(case)}, np.zeros(len(case.tokens), dtype=np.int64))
    pairs.result().save(folder / "pairs.safetensors")


def _bytes(random_: random.Random, content: bytes) -> bytes:
    """Bytes flipped, cut out, put in, or repeated."""
    changed = bytearray(content)
    for _ in range(random_.randint(1, 4)):
        at, length = random_.randrange(len(changed) + 1), random_.choice((1, 2, 8, 64))
        match random_.randrange(4):
            case 0 if at < len(changed):
                changed[at] ^= 1 << random_.randrange(8)
            case 1:
                del changed[at : at + length]
            case 2:
                changed[at:at] = random_.randbytes(length)
            case _:
                changed[at:at] = changed[at : at + length] * random_.choice((1, 100))
    return bytes(changed)


def _cut(random_: random.Random, content: bytes) -> bytes:
    return content[: random_.randrange(len(content) + 1)]


HOSTILE = (
    None,
    True,
    -1,
    0,
    1 << 63,
    1 << 70,
    1e308,
    "",
    "../../x",
    "/etc/passwd",
    "\ud800",
    "<script>",
    [],
    {},
)
WORDS = (b"&a ", b"*a", b"<<: ", b"!!python/object:os.system ", b"[" * 3000, b"{a: " * 3000, b"- ", b"1e999")


def _json(random_: random.Random, content: bytes) -> bytes:
    """A value, a key or an entry of JSON replaced, dropped or repeated, somewhere in it."""
    try:
        whole = json.loads(content)
    except (ValueError, RecursionError):
        return _words(random_, content)
    inside = whole
    while isinstance(inside, dict | list) and inside:
        place: Any = random_.choice(list(inside) if isinstance(inside, dict) else range(len(inside)))
        if isinstance(inside[place], dict | list) and inside[place] and random_.random() < 0.8:
            inside = inside[place]
            continue
        match random_.randrange(3):
            case 0 if isinstance(inside, dict):
                del inside[place]
            case 1 if isinstance(inside, list):
                inside.extend([inside[place]] * random_.choice((1, 1000)))
            case _:
                inside[place] = random_.choice(HOSTILE)
        break
    return json.dumps(whole).encode()


def _words(random_: random.Random, content: bytes) -> bytes:
    at = random_.randrange(len(content) + 1)
    return content[:at] + random_.choice(WORDS) + content[at:]


def _header(random_: random.Random, content: bytes) -> bytes:
    """Another header of a safetensors file, over the same data."""
    length = struct.unpack("<Q", content[:8])[0]
    header = _json(random_, content[8 : 8 + length])
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def _head(random_: random.Random, content: bytes) -> bytes:
    """Bytes changed where a GGUF file says what it holds."""
    return _bytes(random_, content[:GGUF_HEAD]) + content[GGUF_HEAD:]


def mutated(random_: random.Random, path: Path) -> bytes:
    """The content of a file, changed as suits its kind."""
    content = path.read_bytes()
    suited: list[Mutate] = [_bytes, _cut]
    if path.suffix == ".safetensors":
        suited += [_header] * 3
    elif path.suffix == ".gguf":
        suited += [_head] * 3
    elif path.suffix in (".json", ".jsonl", ".yaml", ".csv", ".txt"):
        suited += [_json, _json, _words] if path.suffix == ".json" else [_words, _words]
    return random_.choice(suited)(random_, content)


@contextmanager
def _ended_if_it_hangs() -> Iterator[None]:
    def hangs(*_: object) -> None:
        raise TimeoutError(f"no end after {HANGS} s")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(HANGS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def attack(target: Target, seed: int, folder: Path) -> Failure | None:
    """Change one of the target's files in a copy of `folder`, and read; what went wrong."""
    random_ = random.Random(f"{target.name} {seed}")
    path = random_.choice(
        sorted(path for path in folder.rglob("*") if path.is_file() and path.name[0] != ".")
    )
    path.write_bytes(mutated(random_, path))
    target.settle(folder)
    memory, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        with _ended_if_it_hangs():
            target.read(folder)
    except XtalkError as error:
        if "\n" in str(error):
            return Failure(target.name, seed, f"{path.name}: not one line: {str(error)[:200]!r}")
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return Failure(target.name, seed, f"{path.name}: {''.join(traceback.format_exception(error))}")
    if (took := time.process_time() - begun) > SECONDS:
        return Failure(target.name, seed, f"{path.name}: {took:.0f} s")
    if (grown := resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) > MEMORY:
        return Failure(target.name, seed, f"{path.name}: {grown} kB")
    return None


def attacks(target: Target, seeds: range, keep: Path | None = None) -> list[Failure]:
    """One attack for each seed; the folders of those that fail are kept below `keep`."""
    found: list[Failure] = []
    with tempfile.TemporaryDirectory() as temporary:
        whole = Path(temporary) / "whole"
        whole.mkdir()
        target.make(whole)
        target.read(whole)  # unchanged it is read
        for seed in seeds:
            copy = Path(shutil.copytree(whole, Path(temporary) / "copy"))
            if failure := attack(target, seed, copy):
                found.append(failure)
                if keep is not None:
                    shutil.copytree(
                        copy, keep / f"{target.name.replace('/', '-')}-{seed}", dirs_exist_ok=True
                    )
            shutil.rmtree(copy)
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--first", type=int, default=0, help="the first seed; others are other attacks")
    parser.add_argument("--only", default="", help="targets whose name has this in it")
    parser.add_argument("--keep", type=Path, default=Path("build/fuzz_files"), help="where failures are kept")
    given = parser.parse_args()
    logging.getLogger("xtalk").setLevel(logging.ERROR)
    chosen = [target for target in targets() if given.only in target.name]
    until, first, counts, failures = time.monotonic() + given.seconds, given.first, Counter[str](), 0
    while time.monotonic() < until:
        for target in chosen:
            found = attacks(target, range(first, first + 10), given.keep)
            counts[target.name] += 10
            failures += len(found)
            for failure in found:
                print(f"{failure.target}, seed {failure.seed}: {failure.what}", flush=True)
            if time.monotonic() > until:
                break
        first += 10
    print(json.dumps({"attacks": counts.total(), "failures": failures, "by_target": counts}, indent=1))
    raise SystemExit(failures > 0)


if __name__ == "__main__":
    main()

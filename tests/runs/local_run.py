"""A run small enough for tests: a tiny random GPT-Neo, made-up text, few steps."""

import json
import random
from pathlib import Path

from reference.tiny_models import CONTEXT, VOCABULARY, save_tiny

from xtalk.runs.config import RunConfig, changed
from xtalk.runs.folder import RunFolder
from xtalk.runs.presets import preset


def write_text(path: Path, documents: int = 60, seed: int = 0) -> None:
    """A jsonl file of documents of random words."""
    rng = random.Random(seed)
    lines = []
    for _ in range(documents):
        words = [f"w{rng.randrange(1, VOCABULARY)}" for _ in range(rng.randrange(20, 60))]
        lines.append(json.dumps({"text": " ".join(words)}))
    path.write_text("\n".join(lines))


def local_config(folder: Path, **changes) -> RunConfig:
    """A configuration whose model and text lie in `folder`, written there if they are not."""
    model, text = folder / "model", folder / "text.jsonl"
    if not model.exists():
        save_tiny(model)
    if not text.exists():
        write_text(text)
    small = {
        "model": str(model),
        "text": str(text),
        "sequence_length": CONTEXT,
        "harvest": {"scaling_tokens": 512, "buffer_sequences": 64, "loss_metric_tokens": 64},
        "held_out": 0.3,
        "crosscoder": {"d_sae": 32, "k": 4},
        "training": {"steps": 20, "batch_tokens": 64, "checkpoint_every": 5},
        "evaluation": {"tokens": 400, "resamples": 100},
        "certificates": [],
    }
    return changed(preset("quick", **small), **changes)


def local_folder(folder: Path, **changes) -> RunFolder:
    """A new run folder below `folder`."""
    return RunFolder.create(folder / "run", local_config(folder, **changes))

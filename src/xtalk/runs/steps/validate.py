"""Validation of a run's crosscoders: their measures of interaction judged by interventions on held-out text.

A command of its own, `xtalk validate`, since it takes longer than an evaluation; the next `evaluate` and
`report` show its results.
"""

from dataclasses import asdict
from functools import partial

from xtalk.evaluation.validation import ValidationConfig, validate_interactions
from xtalk.progress import Report
from xtalk.runs import layout
from xtalk.runs.workbench import Workbench

SCHEMA = "xtalk.validation/2"
TOKENS = 16_384


def validate_one(workbench: Workbench, name: str, tokens: int, progress: Report) -> str:
    """Validate a trained crosscoder on the first held-out tokens; returns the file.

    A validation of the same weights on as many tokens is not done again. Errors: as `validate_interactions`.
    """
    folder, config, seed = workbench.folder, ValidationConfig(), workbench.config.seed
    sequences = workbench.held_out_text(tokens)
    about = {
        "schema": SCHEMA,
        "crosscoder": name,
        "source": workbench.weights_hash(name),
        "text_hash": sequences.text_hash,
        "tokens": sequences.tokens.size,
        "seed": seed,
        "config": asdict(config),
    }
    path = layout.validation(name)
    if folder.file(path).exists() and folder.read_json(path).items() >= about.items():
        return path
    rows = validate_interactions(
        workbench.model,
        workbench.crosscoder(name),
        sequences,
        config,
        seed=seed,
        counted=workbench.counted,
        progress=partial(progress, f"validate {name}"),
    )
    folder.write_json(path, about | {"rows": [asdict(row) for row in rows]})
    return path

"""Validation of a run's crosscoders: their measures of interaction judged by interventions on held-out text.

A command of its own, `xtalk validate`, since it takes longer than an evaluation. Leaves validation/NAME.json,
which the next `evaluate` and `report` show.
"""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

from xtalk.crosscoder.saving import CFG
from xtalk.errors import XtalkError
from xtalk.evaluation.validation import ValidationConfig, validate_interactions
from xtalk.progress import Report, silent
from xtalk.runs.folder import RunFolder
from xtalk.runs.steps.evaluate import REPORT_DATA, validation_file
from xtalk.runs.workbench import Workbench

SCHEMA = "xtalk.validation/2"
TOKENS = 16_384


def validate(
    folder: RunFolder,
    *,
    crosscoders: Sequence[str] = (),
    tokens: int = TOKENS,
    device: str = "auto",
    progress: Report = silent,
) -> list[str]:
    """Validate crosscoders of a run, all of them by default, on that many held-out tokens; returns the files.

    What was validated before, of the same weights on as many tokens, is not done again. Errors: XtalkError
    for a crosscoder that the run does not have or has not trained, and as `validate_interactions`.
    """
    names = [spec.name for spec in folder.config.crosscoders]
    if strangers := set(crosscoders) - set(names):
        raise XtalkError(f"no crosscoder {min(strangers)!r} in {folder.path}; it has {', '.join(names)}")
    with folder.locked():
        workbench = Workbench(folder, device)
        return [_validate_one(workbench, name, tokens, progress) for name in crosscoders or names]


def _validate_one(workbench: Workbench, name: str, tokens: int, progress: Report) -> str:
    folder, config, seed = workbench.folder, ValidationConfig(), workbench.config.seed
    if not folder.outputs(f"train/{name}"):
        raise XtalkError(f"{name} is not trained; first run `xtalk train --out {folder.path}`")
    sequences = workbench.held_out_text(tokens)
    done = {
        "schema": SCHEMA,
        "crosscoder": name,
        "source": folder.read_json(f"crosscoders/{name}/{CFG}")["sae_weights_sha256"],
        "text_hash": sequences.text_hash,
        "tokens": sequences.tokens.size,
        "seed": seed,
        "config": asdict(config),
    }
    path = validation_file(name)
    if folder.file(path).exists() and folder.read_json(path).items() >= done.items():
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
    folder.write_json(path, done | {"rows": [asdict(row) for row in rows]})
    folder.file(REPORT_DATA).unlink(missing_ok=True)  # to be written again with this
    return path

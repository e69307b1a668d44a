"""Held-out text, and what fidelity on it is measured against."""

from collections.abc import Sequence
from functools import partial

from xtalk.api.inputs import Texts, sequences_of
from xtalk.data import Counted, TokenSequences
from xtalk.evaluation.baselines import ModelBaselines, mean_mlp_outputs, measure_baselines
from xtalk.models.language_model import LanguageModel
from xtalk.progress import Report


def held_out(
    model: LanguageModel,
    texts: Texts,
    mean_texts: Texts | None,
    blocks: Sequence[int],
    counted: Counted,
    *,
    tokens: int,
    length: int | None,
    progress: Report,
) -> tuple[TokenSequences, ModelBaselines]:
    """The texts as sequences, and the model's losses on them with and without the blocks' MLPs.

    mean_texts: what the MLPs' mean outputs are taken over, by default texts. Errors: as `sequences_of`.
    """
    sequences = sequences_of(model, texts, tokens=tokens, length=length)
    means = sequences
    if mean_texts is not None:
        means = sequences_of(model, mean_texts, tokens=tokens, length=length)
    mean_outputs = mean_mlp_outputs(model, means, tokens, blocks, counted)
    heard = partial(progress, "baselines")
    return sequences, measure_baselines(model, sequences, mean_outputs, counted=counted, progress=heard)

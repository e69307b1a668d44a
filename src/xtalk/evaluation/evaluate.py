"""Everything that is measured of a crosscoder on held-out text, in one pass over it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.data import TokenSequences
from xtalk.errors import XtalkError
from xtalk.evaluation.baselines import ModelBaselines
from xtalk.evaluation.fidelity import Fidelity, FidelityMeter
from xtalk.evaluation.interaction import Interaction, InteractionMeter
from xtalk.evaluation.reconstruction import Reconstruction, ReconstructionMeter
from xtalk.models.language_model import LanguageModel
from xtalk.reading.explained import Explained, ExplainedBatch
from xtalk.statistics.bootstrap import Bootstrap


@dataclass(frozen=True)
class Evaluation:
    """A crosscoder on held-out text; `averaged` are the blocks behind every "mean".

    error_kept: fidelity of the few-hot schemes once more, with what the crosscoder leaves out kept in the
    contributions' base; empty where that was not asked for.
    """

    averaged: tuple[int, ...]
    reconstruction: Reconstruction
    interaction: tuple[Interaction, ...]
    fidelity: tuple[Fidelity, ...]
    error_kept: tuple[Fidelity, ...] = ()


@torch.no_grad()
def evaluate_crosscoder(
    model: LanguageModel,
    crosscoder: Crosscoder,
    factor_P: Float[Tensor, "P"],
    sequences: TokenSequences,
    baselines: ModelBaselines,
    *,
    resamples: int,
    seed: int,
    averaged: Sequence[int] | None = None,
    keep_error: bool = False,
    micro_batch: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Reconstruction, interaction and fidelity of a crosscoder on held-out text.

    The crosscoder is in the model's own units, `factor_P` the scaling it was trained under. `averaged`: the
    blocks that "mean" stands for, by default all explained ones but the model's first. keep_error: measure
    fidelity with the error node kept as well. `seed` decides the random schemes and the bootstrap. The tokens
    that count are those of the baselines. `progress` hears of what is done and of all: sequences, by block.

    Errors: XtalkError for baselines of another text, too few documents, or hookpoints that do not serve.
    """
    explained = Explained(model, crosscoder)
    baselines.check_text(sequences, explained.blocks)
    blocks = tuple(averaged) if averaged is not None else default_average(explained.blocks)
    if not blocks or not set(blocks) <= set(explained.blocks):
        raise XtalkError(
            f"averaged={list(blocks)} is empty or has blocks whose MLP input the crosscoder does not read; "
            f"choose from {list(explained.blocks)}"
        )
    documents = len(baselines.model_E)
    bootstrap = Bootstrap(documents, resamples, seed)
    reconstruction = ReconstructionMeter(explained, factor_P)
    interaction, fidelity = InteractionMeter(explained, documents), FidelityMeter(explained, baselines, seed)
    keeping = Explained(model, crosscoder, "keep")
    kept = FidelityMeter(keeping, baselines, seed, few=True) if keep_error else None
    done, whole = 0, len(sequences) * len(explained.blocks)
    for batch in explained.batches(sequences, baselines.counted.mask(sequences.tokens), micro_batch):
        size = len(batch.tokens_mS)
        read = explained.read(batch, (*explained.around_mlps(batch), *(keeping.streams if kept else ())))

        def advance(block: int, read: ExplainedBatch = read, size: int = size) -> None:
            nonlocal done
            interaction.add(read, block)
            done += size
            progress(done, whole)

        reconstruction.add(read)
        fidelity.add(read, advance)
        if kept is not None:
            kept.add(replace(read, explained=keeping))

    return Evaluation(
        blocks,
        reconstruction.result(),
        interaction.result(bootstrap, blocks),
        fidelity.result(bootstrap, blocks),
        () if kept is None else kept.result(bootstrap, blocks),
    )


def default_average(blocks: tuple[int, ...]) -> tuple[int, ...]:
    """All but block 0, whose MLP reads little more than the token itself."""
    return tuple(block for block in blocks if block > 0) or blocks

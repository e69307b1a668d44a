"""Fidelity of a transcoder's own output."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from xtalk.api.held_out import held_out
from xtalk.api.inputs import Dictionary, Model, Texts, crosscoder_in, model_of
from xtalk.data import Counted
from xtalk.evaluation.transcoders import TranscodedMlp, evaluate_transcoder, transcoded_blocks
from xtalk.progress import Report, silent


@dataclass(frozen=True)
class Transcoded:
    """A transcoder's outputs in the place of MLPs'; ce: the model's own cross-entropy, nat per token."""

    tokens: int
    documents: int
    ce: float
    by_block: tuple[TranscodedMlp, ...]

    def rows(self) -> list[Mapping[str, Any]]:
        """A row for each block, for `pandas.DataFrame`."""
        return [asdict(row) | {"ce_model": self.ce} for row in self.by_block]

    def __str__(self) -> str:
        lines = [
            f"block {row.block}: Phi_mean {row.phi.value:.3f} [{row.phi.low:.3f}, {row.phi.high:.3f}], NMSE "
            f"{row.nmse.value:.3f}; loses {row.lost.value:.4f} nat/token, where ablating the MLP costs "
            f"{row.ablation.value:.4f}"
            for row in self.by_block
        ]
        return "\n".join([*lines, f"CE of the model {self.ce:.3f} nat/token; {self.tokens} tokens"])


@torch.no_grad()
def transcoder_fidelity(
    model: Model,
    transcoder: Dictionary,
    texts: Texts,
    *,
    mean_texts: Texts | None = None,
    tokens: int = 4096,
    sequence_length: int | None = None,
    skip_positions: int = 1,
    resamples: int = 1000,
    seed: int = 0,
    progress: Report = silent,
) -> Transcoded:
    """How much of the model's performance survives when MLPs' outputs are a transcoder's.

    Phi_mean, NMSE and nats by block, one MLP at a time; 1 is as good as the model, 0 as bad as the MLP's mean
    output. A cross-layer transcoder that is read as one dictionary has a row for each MLP that it writes for.
    Contributions, shares, T and pairs have no meaning for a transcoder, which decodes no MLP's input. texts,
    mean_texts, skip_positions: as in `xtalk.fidelity`. Errors: XtalkError for a dictionary that is no
    transcoder, outputs that are no MLP's, a model with norms behind its MLPs, and too few documents.

    >>> zeros = {"W_enc": torch.zeros(128, 8), "W_dec": torch.zeros(8, 128), "b_enc": torch.zeros(8)}
    >>> own = xtalk.Crosscoder.from_tensors(**zeros, b_dec=torch.zeros(128), architecture="relu",
    ...     hook_names="blocks.1.ln2", hook_names_out="blocks.1.hook_mlp_out")
    >>> [row] = xtalk.transcoder_fidelity(model, own, texts, tokens=1024, resamples=100).rows()
    >>> row["block"], row["phi"].value < 0.5
    (1, True)
    """
    language_model = model_of(model)
    made = crosscoder_in(language_model, transcoder)
    blocks = tuple(transcoded_blocks(language_model, made.config))
    counted = Counted(skip_positions)
    sequences, baselines = held_out(
        language_model, texts, mean_texts, blocks, counted,
        tokens=tokens, length=sequence_length, progress=progress,
    )  # fmt: skip
    rows = evaluate_transcoder(
        language_model,
        made,
        sequences,
        baselines,
        resamples=resamples,
        seed=seed,
        progress=partial(progress, "transcoder"),
    )
    counts = counted.tally(sequences.tokens).counted
    return Transcoded(counts, len(baselines.model_E), baselines.ce, rows)

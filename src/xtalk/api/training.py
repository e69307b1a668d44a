"""Training of a crosscoder on a model and texts."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from xtalk.activations import Harvest
from xtalk.api.inputs import Model, Texts, default_length, model_of, sequences_of
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.crosscoder.saving import first_reason
from xtalk.data import Counted, TokenSequences
from xtalk.errors import XtalkError
from xtalk.models.language_model import LanguageModel
from xtalk.progress import Report, silent
from xtalk.training.config import TrainingConfig
from xtalk.training.quick import train_on
from xtalk.training.train import Log


def train(
    model: Model,
    texts: Texts,
    *,
    hookpoints: Sequence[str] | None = None,
    d_sae: int = 1024,
    k: int = 32,
    architecture: str = "batchtopk",
    penalties: Mapping[str, float] | None = None,
    steps: int = 1000,
    batch_tokens: int = 512,
    seed: int = 0,
    sequence_length: int | None = None,
    skip_positions: int = 1,
    checkpoints: str | Path | None = None,
    log: Log = lambda record: None,
    progress: Report = silent,
    **training: Any,
) -> Crosscoder:
    """Train a crosscoder on a model's activations; the result is in the model's own units, on its device.

    hookpoints: where it reads, such as "blocks.0.ln2"; by default the paper's 4 x blocks + 1. d_sae: the
    number of latents L; k: active ones per token. penalties: weight by name, such as {"sum_minus_max": 300.0}
    (docs/method.md). A text of fewer than steps x batch_tokens tokens (and 16,384 for calibration) is read
    again. skip_positions: first tokens of every sequence that are left out, for some models' activations
    there are so large that they would rule any squared error. checkpoints: a folder for one, from which the
    same call goes on. log: called every 50 steps with the parts of the loss. training: further keys of
    `xtalk.training.config.TrainingConfig`, such as lr or sparsity. The same seed gives the same bytes.

    Errors: XtalkError for hookpoints that the model lacks, an unknown architecture, penalty or key, too
    little text, and a loss that is not finite.

    Source: arXiv 2606.09940, section 4; BatchTopK: Bussmann et al. 2024.

    >>> tiny = xtalk.train(model, texts, hookpoints=["blocks.1.ln2"], d_sae=32, k=4, steps=2, warmup_steps=1)
    >>> tiny.provenance.model_name, tiny.provenance.training_tokens
    ('embedded', 1024)
    """
    with _refused("training"):
        config = TrainingConfig(
            steps=steps, batch_tokens=batch_tokens, seed=seed, penalties=dict(penalties or {}), **training
        )
    loaded = model_of(model)
    points = loaded.hookpoints() if hookpoints is None else tuple(map(loaded.hookpoint, hookpoints))
    sequences = _enough(loaded, texts, config.tokens_needed, sequence_length, skip_positions)
    with _refused("the crosscoder"):
        return train_on(
            Harvest(loaded, sequences, points),
            loaded,
            config,
            d_sae=d_sae,
            k=k,
            architecture=architecture,
            counted=Counted(skip_positions),
            model_name=loaded.name,
            checkpoint_folder=None if checkpoints is None else Path(checkpoints),
            log=log,
            progress=partial(progress, "train"),
        )


def _enough(
    model: LanguageModel, texts: Texts, tokens: int, sequence_length: int | None, skip_positions: int
) -> TokenSequences:
    """Sequences of which as many tokens count, where the texts have them. Errors: XtalkError."""
    length = default_length(model) if sequence_length is None else sequence_length
    if skip_positions >= length:
        raise XtalkError(f"skip_positions {skip_positions} leaves nothing of {length} tokens; skip fewer")
    whole = -(-tokens // (length - skip_positions)) * length
    return sequences_of(model, texts, tokens=whole, length=length)


@contextmanager
def _refused(what: str) -> Iterator[None]:
    """Settings that are wrong, in one line. Errors: XtalkError."""
    try:
        yield
    except ValidationError as error:
        raise XtalkError(f"{what}: {first_reason(error)}; choose another") from error

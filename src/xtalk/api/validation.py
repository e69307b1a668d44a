"""Measures of interaction judged by interventions on a model."""

from functools import partial

from xtalk.api.inputs import Dictionary, Model, Texts, crosscoder_in, model_of, sequences_of
from xtalk.data import Counted
from xtalk.evaluation.validation import Validation, ValidationConfig, validate_interactions
from xtalk.progress import Report, silent


def validate(
    model: Model,
    crosscoder: Dictionary,
    texts: Texts,
    *,
    config: ValidationConfig | None = None,
    tokens: int = 16_384,
    sequence_length: int | None = None,
    skip_positions: int = 1,
    seed: int = 0,
    progress: Report = silent,
) -> tuple[Validation, ...]:
    """Whether measures of interaction predict what removing two features does, against baselines.

    Measures are taken on the first half of the texts; on the second, pairs of features are removed from what
    the model's own MLPs read, and measure and effect are rank-correlated (Spearman's rho, with 95 %
    intervals), by block and in the mean. Measures: the interaction I(i, j), the true interaction,
    co-activation (cosine and count), decoder cosine and size. A row for each block, measure, effect (output,
    loss) and weighting; `pandas.DataFrame` takes them. config: how many pairs, occurrences and resamples.
    skip_positions: first tokens of every sequence that do not count, as in `train`. seed: of what is drawn.
    Errors: XtalkError for too little text, a crosscoder without a hookpoint before an MLP, or of another
    model's width.

    Source: docs/validation.md.

    >>> from xtalk.evaluation.validation import ValidationConfig
    >>> few = ValidationConfig(pairs=20, loss_pairs=5, occurrences=2, loss_occurrences=1, resamples=20)
    >>> rows = xtalk.validate(model, cc, texts, config=few)
    >>> row = next(r for r in rows if r.block == "mean" and r.measure == "interaction")
    >>> -1 <= row.rho.value <= 1
    True
    """
    language_model = model_of(model)
    made = crosscoder_in(language_model, crosscoder)
    sequences = sequences_of(language_model, texts, tokens=tokens, length=sequence_length)
    return validate_interactions(
        language_model,
        made,
        sequences,
        config or ValidationConfig(),
        seed=seed,
        counted=Counted(skip_positions),
        progress=partial(progress, "validate"),
    )

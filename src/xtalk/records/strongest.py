"""The latents of a dictionary that interact most, as reports show them."""

import torch
from jaxtyping import Float
from scipy.sparse import csr_array
from torch import Tensor

from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.data import Counted, TokenSequences
from xtalk.interactions.pair_matrix import PairMatrix
from xtalk.models.language_model import LanguageModel
from xtalk.reading.features import Feature, describe_codes, sparse_codes
from xtalk.reading.logits import LogitTokens, logit_tokens
from xtalk.reading.pairs import Site
from xtalk.reports import data

STRONGEST = 24  # latents that a report shows
LOGIT_TOKENS = 5  # that each of them raises, and lowers


def strongest_record(
    model: LanguageModel,
    crosscoder: Crosscoder,
    name: str,
    matrix: PairMatrix,
    sequences: TokenSequences,
    counted: Counted,
) -> data.Strongest:
    """The latents that interact most in the MLPs, by the pair interactions of the text, and what they are."""
    codes_BL = sparse_codes(model, crosscoder, sequences, counted=counted)
    involvement_L = _involvement(matrix)
    features = _strongest(model, codes_BL, involvement_L, sequences, counted)
    mean_L = torch.zeros(len(involvement_L))
    mean_L[[feature.latent for feature in features]] = torch.tensor([f.mean_activation for f in features])
    latents = [feature.latent for feature in features]
    logits = logit_tokens(model, crosscoder, sequences, mean_L, latents, LOGIT_TOKENS)
    return data.Strongest(
        matrix=_matrix_record(name, "mlp", features, matrix),
        features=[
            _feature(name, feature, effects, float(involvement_L[feature.latent]))
            for feature, effects in zip(features, logits, strict=True)
        ],
    )


def strongest_pairs(
    model: LanguageModel,
    name: str,
    site: Site,
    matrix: PairMatrix,
    codes_BL: csr_array,
    sequences: TokenSequences,
    counted: Counted,
) -> data.InteractionMatrix:
    """The pair interactions of a site's strongest latents, as a report shows them; codes of the text."""
    features = _strongest(model, codes_BL, _involvement(matrix), sequences, counted)
    return _matrix_record(name, site, features, matrix)


def _strongest(
    model: LanguageModel,
    codes_BL: csr_array,
    involvement_L: Float[Tensor, "L"],
    sequences: TokenSequences,
    counted: Counted,
) -> tuple[Feature, ...]:
    latents = involvement_L.topk(min(STRONGEST, len(involvement_L))).indices.tolist()
    assert model.tokenizer is not None  # the text was read with it
    return describe_codes(codes_BL, sequences, model.tokenizer, latents, counted=counted)


def _involvement(matrix: PairMatrix) -> Float[Tensor, "L"]:
    """Each latent's part of all interaction, half of every pair's to either side; adds up to 1, or 0."""
    by_latent = torch.from_numpy(matrix.row_totals() + matrix.column_totals())
    return by_latent / (2 * matrix.total() or 1.0)


def _matrix_record(
    name: str, site: Site, features: tuple[Feature, ...], matrix: PairMatrix
) -> data.InteractionMatrix:
    latents = [feature.latent for feature in features]
    return data.InteractionMatrix(
        crosscoder=name,
        site=site,
        block="sum",
        normaliser="relative",
        latents=latents,
        labels=[feature.top_tokens[0][0] if feature.top_tokens else "" for feature in features],
        values=matrix.interactions("sum", "relative")[latents][:, latents].toarray().tolist(),
    )


def _feature(name: str, feature: Feature, logits: LogitTokens, share: float) -> data.Feature:
    def effects(tokens: tuple[tuple[str, float], ...]) -> list[data.LogitEffect]:
        return [data.LogitEffect(text=text, effect=effect) for text, effect in tokens]

    return data.Feature(
        crosscoder=name,
        latent=feature.latent,
        firing_rate=feature.firing_rate,
        mean_activation=feature.mean_activation,
        interaction_share=share,
        top_tokens=[data.TokenCount(text=text, count=count) for text, count in feature.top_tokens],
        raised=effects(logits.raised),
        lowered=effects(logits.lowered),
        contexts=[
            data.Context(tokens=list(c.tokens), activations=list(c.activations), peak=c.peak)
            for c in feature.contexts
        ],
    )

"""The work of a run on each of its crosscoders: training, and measuring interactions."""

from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from scipy.sparse import csr_array
from torch import Tensor

from xtalk import ranks
from xtalk.interactions.pair_matrix import PairMatrix
from xtalk.progress import Report
from xtalk.reading.features import Feature, describe_codes, sparse_codes
from xtalk.reading.logits import LogitTokens, logit_tokens
from xtalk.reading.pairs import Site, measure_pairs
from xtalk.reports import data
from xtalk.runs import layout
from xtalk.runs.config import CrosscoderSpec
from xtalk.runs.tracking import tracked
from xtalk.runs.workbench import Workbench
from xtalk.training.train import train_crosscoder

STRONGEST = 24  # latents that a report shows
LOGIT_TOKENS = 5  # that each of them raises, and lowers
LISTED = 128  # partners of each latent that the matrix on disk lists


def train_one(workbench: Workbench, progress: Report, spec: CrosscoderSpec) -> None:
    """Train and save a crosscoder, from its checkpoint if there is one; of several ranks the first writes."""
    config, folder, model = workbench.config, workbench.folder, workbench.model
    settings, first = config.training_of(spec), ranks.rank() == 0
    trackers = workbench.trackers if first else ()
    with tracked(trackers, folder.path, spec.name, settings.model_dump(mode="json")) as track:

        def log(record: dict[str, float]) -> None:
            if first:
                folder.log("train", crosscoder=spec.name, **record)
                track(record)

        trained = train_crosscoder(
            workbench.crosscoder_config,
            settings,
            workbench.batches(),
            model,
            workbench.scaling,
            prepared=workbench.prepared(progress),
            model_name=model.name,
            checkpoint_folder=folder.file(layout.checkpoint(spec.name)),
            log=log,
            progress=partial(progress, f"train {spec.name}"),
        )
    if first:
        trained.crosscoder.save(folder.file(layout.crosscoder(spec.name)))
        folder.write_json(layout.training(spec.name), {"tokens_per_second": trained.tokens_per_second})


def interact_one(workbench: Workbench, progress: Report, name: str) -> None:
    """Measure the pair interactions of a crosscoder in the MLPs, on held-out text.

    Leaves the `PairMatrix`, by block, with each latent's LISTED strongest partners; and the latents that
    interact most, as a report shows them.
    """
    folder, crosscoder = workbench.folder, workbench.crosscoder(name)
    sequences, report = workbench.held_out_sequences, partial(progress, f"interact {name}")
    counted = workbench.counted
    measured = measure_pairs(
        workbench.model, crosscoder, sequences, counted=counted, top=LISTED, progress=report
    )
    matrix = replace(measured.matrices["mlp"], source=workbench.weights_hash(name))
    matrix.save(folder.file(layout.pairs(name, "mlp")))
    codes_BL = sparse_codes(workbench.model, crosscoder, sequences, counted=counted)
    involvement_L = _involvement(matrix)
    features = _strongest(workbench, codes_BL, involvement_L)
    mean_L = torch.zeros(len(involvement_L))
    mean_L[[feature.latent for feature in features]] = torch.tensor([f.mean_activation for f in features])
    latents = [feature.latent for feature in features]
    logits = logit_tokens(workbench.model, crosscoder, sequences, mean_L, latents, LOGIT_TOKENS)
    record = data.Strongest(
        matrix=_matrix_record(name, "mlp", features, matrix),
        features=[
            _feature(name, feature, effects, float(involvement_L[feature.latent]))
            for feature, effects in zip(features, logits, strict=True)
        ],
    )
    folder.write_record(layout.strongest(name), record)


def strongest_pairs(
    workbench: Workbench, name: str, site: Site, matrix: PairMatrix, codes_BL: csr_array
) -> data.InteractionMatrix:
    """The pair interactions of a site's strongest latents, as a report shows them; codes of held-out text."""
    return _matrix_record(name, site, _strongest(workbench, codes_BL, _involvement(matrix)), matrix)


def _strongest(
    workbench: Workbench, codes_BL: csr_array, involvement_L: Float[Tensor, "L"]
) -> tuple[Feature, ...]:
    latents = involvement_L.topk(min(STRONGEST, len(involvement_L))).indices.tolist()
    tokenizer = workbench.model.tokenizer
    assert tokenizer is not None  # the workbench has no text without one
    return describe_codes(
        codes_BL, workbench.held_out_sequences, tokenizer, latents, counted=workbench.counted
    )


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

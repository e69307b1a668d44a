"""The work of a run on each of its crosscoders: training, and measuring interactions."""

import json
import shutil
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from xtalk.crosscoder.config import CrosscoderConfig
from xtalk.crosscoder.saving import CFG, WEIGHTS, Provenance, save_crosscoder
from xtalk.evaluation.features import Feature, describe_features
from xtalk.evaluation.pairs import measure_pairs
from xtalk.interactions.pair_matrix import PairMatrix
from xtalk.runs.config import CrosscoderSpec
from xtalk.runs.folder import LOG
from xtalk.runs.progress import Report
from xtalk.runs.workbench import Workbench
from xtalk.training.train import train_crosscoder

STRONGEST = 24  # latents that a report shows
LISTED = 128  # partners of each latent that the matrix on disk lists


def train_one(workbench: Workbench, spec: CrosscoderSpec, progress: Report) -> list[str]:
    """Train and save a crosscoder, from its checkpoint if there is one; returns the names of its files."""
    config, folder, model = workbench.config, workbench.folder, workbench.model
    crosscoder_config = CrosscoderConfig(
        d_in=model.d_model,
        hook_names=tuple(map(str, workbench.hookpoints)),
        **config.crosscoder.model_dump(),
    )
    training = config.training_of(spec)
    stream = workbench.batches()
    checkpoints = folder.file(f"checkpoints/{spec.name}")
    crosscoder = train_crosscoder(
        crosscoder_config,
        training,
        stream,
        workbench.penalised,
        workbench.scaling,
        checkpoint_folder=checkpoints,
        log=lambda record: folder.log("train", crosscoder=spec.name, **record),
        progress=partial(progress, f"train {spec.name}"),
    )
    provenance = Provenance(
        model_name=model.name,
        model_weights_hash=model.weights_hash,
        text_hash=workbench.train_sequences.text_hash,
        scaling_factors=tuple(workbench.scaling.factor_P.tolist()),
        training_tokens=training.steps * training.batch_tokens,
        train_batch_size_tokens=training.batch_tokens,
        penalties=training.penalties,
        seed=training.seed,
    )
    place = f"crosscoders/{spec.name}"
    save_crosscoder(folder.file(place), crosscoder, provenance)
    rates = [r["tokens_per_second"] for r in _training_log(workbench) if r["crosscoder"] == spec.name]
    folder.write_json(f"{place}/training.json", {"tokens_per_second": median(rates)})
    shutil.rmtree(checkpoints, ignore_errors=True)  # three times the weights, and of no more use
    return [f"{place}/{name}" for name in (CFG, WEIGHTS, "training.json")]


def interact_one(workbench: Workbench, spec: CrosscoderSpec, progress: Report) -> list[str]:
    """Measure the pair interactions of a crosscoder on held-out text; returns the names of the files.

    The .safetensors holds the `PairMatrix` of the MLPs, by block, each latent's LISTED strongest
    partners. The .json describes the strongest latents, as a report shows them.
    """
    folder, crosscoder = workbench.folder, workbench.crosscoder(spec.name)
    sequences = workbench.held_out_sequences
    measured = measure_pairs(
        workbench.model,
        crosscoder,
        sequences,
        top=LISTED,
        progress=partial(progress, f"interact {spec.name}"),
    )
    source = folder.read_json(f"crosscoders/{spec.name}/{CFG}")["sae_weights_sha256"]
    matrix = replace(measured.matrices["mlp"], source=source)
    names = [f"interactions/{spec.name}.mlp.safetensors", f"interactions/{spec.name}.json"]
    matrix.save(folder.file(names[0]))
    involvement_L = _involvement(matrix)
    strongest = involvement_L.topk(min(STRONGEST, len(involvement_L))).indices
    features = describe_features(workbench.model, crosscoder, sequences, strongest.tolist())
    folder.write_json(names[1], _strongest_record(spec.name, features, matrix, involvement_L))
    return names


def _involvement(matrix: PairMatrix) -> Float[Tensor, "L"]:
    """Each latent's part of all interaction, half of every pair's to either side; adds up to 1, or 0."""
    by_latent = torch.from_numpy(matrix.row_totals() + matrix.column_totals())
    return by_latent / (2 * matrix.total() or 1.0)


def _strongest_record(
    name: str, features: tuple[Feature, ...], matrix: PairMatrix, involvement_L: Float[Tensor, "L"]
) -> dict[str, Any]:
    latents = [feature.latent for feature in features]
    tokens = [feature.top_tokens[0][0] if feature.top_tokens else "" for feature in features]
    shown = {
        "crosscoder": name,
        "block": "sum",
        "normaliser": "relative",
        "latents": latents,
        "labels": [f"{latent} {token}" for latent, token in zip(latents, tokens, strict=True)],
        "values": matrix.interactions("sum", "relative")[latents][:, latents].toarray().tolist(),
    }
    return {
        "matrix": shown,
        "features": [_feature(name, f, float(involvement_L[f.latent])) for f in features],
    }


def _feature(name: str, feature: Feature, share: float) -> dict[str, Any]:
    return {
        "crosscoder": name,
        "latent": feature.latent,
        "firing_rate": feature.firing_rate,
        "mean_activation": feature.mean_activation,
        "interaction_share": share,
        "top_tokens": [{"text": text, "count": count} for text, count in feature.top_tokens],
        "contexts": [
            {"tokens": list(c.tokens), "activations": list(c.activations), "peak": c.peak}
            for c in feature.contexts
        ],
    }


def _training_log(workbench: Workbench) -> list[dict[str, Any]]:
    """What training logged, in this session and before."""
    lines = workbench.folder.file(LOG).read_text(encoding="utf-8").splitlines()
    return [record for line in lines if (record := json.loads(line))["event"] == "train"]

"""`xtalk judge`: a run's clusters judged, and their features described, by a language model you choose."""

from pathlib import Path
from typing import Any

import numpy as np

from xtalk.clustering import make_trials
from xtalk.clustering.endpoint import Endpoint, EndpointJudge, confirm, description_prompt
from xtalk.clustering.evidence import OfflineJudge
from xtalk.clustering.protocol import judge_clusters
from xtalk.errors import XtalkError
from xtalk.evaluation.features import Feature, describe_codes
from xtalk.files import sha256_of
from xtalk.runs.clusters import CLUSTERS, ClusterStudy, read_settings
from xtalk.runs.folder import RunFolder
from xtalk.runs.progress import Report, silent
from xtalk.runs.workbench import Workbench

JUDGED = "endpoint.json"
CACHE = "endpoint_cache"


def judge(
    folder: RunFolder,
    model: str,
    *,
    describe: bool = False,
    price: float | None = None,
    confirmed: bool = False,
    device: str = "auto",
    progress: Report = silent,
) -> Path:
    """Judge the clusters of a run, and of its baselines, by an endpoint's model; returns the file.

    Leaves endpoint.json: accuracies, and with `describe` a description of each clustered feature, which
    clusters.html then shows. Errors: XtalkError before anything is asked unless `confirmed`; and for an
    endpoint that is down or answers nonsense, with the answers so far kept.
    """
    with folder.locked():
        if not folder.is_complete("cluster", folder.outputs("interact")):
            raise XtalkError(f"judge comes after cluster; first run `xtalk cluster --out {folder.path}`")
        workbench = Workbench(folder, device)
        endpoint = Endpoint.from_environment(model, folder.file(CACHE))
        study = ClusterStudy(workbench, read_settings(folder), progress)
        eligible = OfflineJudge(study.corpus).eligible
        seed = study.seed
        trials = {name: make_trials(c, eligible, seed=seed) for name, c in study.clusterings.items()}
        texts = _texts(study, eligible)
        asked = EndpointJudge(endpoint, texts)
        clustered = [int(i) for i in eligible if study.clustering.labels_L[i] >= 0] if describe else []
        descriptions = {latent: description_prompt(texts[latent]) for latent in clustered}
        prompts = [asked.prompt(trial) for some in trials.values() for trial in some]
        confirm(endpoint, [*prompts, *descriptions.values()], price, confirmed)
        record: dict[str, Any] = {
            "schema": "xtalk.endpoint/1",
            "model": model,
            "crosscoder": study.name,
            "clusters_sha256": sha256_of(folder.file(CLUSTERS)),
            "accuracy": {},
            "descriptions": {},
        }
        for place, (name, some) in enumerate(trials.items()):
            progress(f"judged by {model}", place, len(trials))
            judged = judge_clusters(some, asked)
            if len(judged.clusters_C) > 1:  # of fewer there is no interval
                record["accuracy"][name] = judged.accuracy(seed)
            folder.write_json(JUDGED, record)
        try:
            for place, (latent, prompt) in enumerate(descriptions.items()):
                progress(f"described by {model}", place, len(descriptions))
                record["descriptions"][str(latent)] = endpoint.ask(prompt).strip()
        finally:  # those so far, if the endpoint breaks off
            folder.write_json(JUDGED, record)
            if descriptions:
                _show(folder)
        return folder.file(JUDGED)


def _show(folder: RunFolder) -> None:
    from xtalk.reports import write_cluster_map  # loads matplotlib, which nothing else here needs

    write_cluster_map(folder.path)


def _texts(study: ClusterStudy, eligible: np.ndarray) -> dict[int, str]:
    """What the model is told of each latent: contexts of the judge's text, the active tokens marked."""
    tokenizer = study.workbench.model.tokenizer
    assert tokenizer is not None  # the text was read with it
    features = describe_codes(
        study.corpus.codes_BL, study.judged_sequences, tokenizer, eligible.tolist(), contexts=4
    )
    return {feature.latent: _told(feature) for feature in features}


def _told(feature: Feature) -> str:
    lines: list[str] = []
    for context in feature.contexts:
        pieces = [
            f"[[{token}]]" if place == context.peak else token for place, token in enumerate(context.tokens)
        ]
        lines.append("- " + " ".join("".join(pieces).split()))
    return "\n".join(lines)

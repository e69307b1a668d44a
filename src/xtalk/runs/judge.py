"""`xtalk judge`: a run's clusters judged, and their features described, by a language model you choose."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from xtalk.clustering import Trial
from xtalk.clustering.endpoint import Endpoint, EndpointJudge, confirm, description_prompt
from xtalk.clustering.evidence import OfflineJudge
from xtalk.clustering.protocol import Distractors, judge_clusters
from xtalk.clustering.similarity import coactivation_similarity
from xtalk.clustering.study import trials_of_all
from xtalk.errors import XtalkError
from xtalk.files import sha256_of
from xtalk.progress import Report, silent
from xtalk.reading.features import Feature, describe_codes
from xtalk.runs.folder import RunFolder
from xtalk.runs.steps.cluster import CLUSTERS, ClusterStudy, read_settings
from xtalk.runs.workbench import Workbench

JUDGED = "endpoint.json"
CACHE = "endpoint_cache"
DISTRACTORS: dict[Distractors, str] = {"any": "any", "rate": "same rate", "coactivation": "as co-active"}


def judge(
    folder: RunFolder,
    model: str,
    *,
    describe: bool = False,
    price: float | None = None,
    confirmed: bool = False,
    device: str = "auto",
    progress: Report = silent,
) -> dict[str, Any]:
    """Judge the clusters of a run, and of its baselines, by an endpoint's model; returns endpoint.json.

    It holds accuracies, by distractors and clustering, and with `describe` a description of each clustered
    feature; clusters.html then shows both. What the same model said of the same clusters before stays until
    it is said anew. Errors: XtalkError before anything is asked unless `confirmed`; and for an endpoint that
    is down or answers nonsense, with the answers so far kept.
    """
    with folder.locked():
        if not folder.is_complete("cluster", folder.outputs("interact")):
            raise XtalkError(f"judge comes after cluster; first run `xtalk cluster --out {folder.path}`")
        endpoint = Endpoint.from_environment(model, folder.file(CACHE))
        study = ClusterStudy(Workbench(folder, device), read_settings(folder), progress)
        eligible = OfflineJudge(study.corpus).eligible
        trials = _trials(study, eligible)
        texts = _texts(study, eligible)
        asked = EndpointJudge(endpoint, texts)
        clustered = [int(i) for i in eligible if study.clustering.labels_L[i] >= 0] if describe else []
        descriptions = {latent: description_prompt(texts[latent]) for latent in clustered}
        prompts = [asked.prompt(trial) for some in trials.values() for trial in some]
        confirm(endpoint, [*prompts, *descriptions.values()], price, confirmed)
        record = _begun(folder, model, study.name)
        try:
            for place, ((distractors, name), some) in enumerate(trials.items()):
                progress(f"judged by {model}", place, len(trials))
                judged = judge_clusters(some, asked)
                record["trials"][name] = judged.trials
                if len(judged.clusters_C) > 1:  # of fewer there is no interval
                    by_name = record["accuracy"].setdefault(distractors, {})
                    by_name[name] = list(judged.accuracy(study.seed))
            for place, (latent, prompt) in enumerate(descriptions.items()):
                progress(f"described by {model}", place, len(descriptions))
                record["descriptions"][str(latent)] = endpoint.ask(prompt).strip()
        finally:  # those so far, if the endpoint breaks off
            if record["trials"]:
                folder.write_json(JUDGED, record)
                _show(folder)
        return record


def told(record: dict[str, Any]) -> str:
    """The accuracies of endpoint.json in words, for the terminal: a line for each way of clustering."""
    header = ["", *DISTRACTORS.values(), "trials"]
    lines = [
        [
            name,
            *(_interval(record["accuracy"].get(kind, {}).get(name)) for kind in DISTRACTORS),
            f"3 x {trials}",
        ]
        for name, trials in record["trials"].items()
    ]
    table = ["".join(f"{cell:23}" for cell in line).rstrip() for line in (header, *lines)]
    return "\n".join([f"accuracy of {record['model']}, with distractors (chance 0.20):", *table])


def _interval(accuracy: Sequence[float] | None) -> str:
    return "{:.2f} [{:.2f}, {:.2f}]".format(*accuracy) if accuracy else "too few clusters"


def _trials(study: ClusterStudy, eligible: np.ndarray) -> dict[tuple[Distractors, str], list[Trial]]:
    """Those of the offline judge."""
    rates_L = study.corpus.active_L / len(study.corpus.tokens_B)
    coactivation = coactivation_similarity(study.measured_codes_BL, np.arange(study.n_latents))
    trials = trials_of_all(study.clusterings, eligible, rates_L, coactivation, study.seed)
    return {(kind, name): some for kind, by_name in trials.items() for name, some in by_name.items()}


def _begun(folder: RunFolder, model: str, crosscoder: str) -> dict[str, Any]:
    """endpoint.json as it is if it is of this model and these clusters, or else a new one."""
    about = {
        "schema": "xtalk.endpoint/1",
        "model": model,
        "crosscoder": crosscoder,
        "clusters_sha256": sha256_of(folder.file(CLUSTERS)),
    }
    parts: dict[str, Any] = {"accuracy": {}, "trials": {}, "descriptions": {}}
    with suppress(XtalkError):  # a file that is missing or broken; its answers are in the cache
        old = folder.read_json(JUDGED)
        if (
            isinstance(old, dict)
            and about.items() <= old.items()
            and all(isinstance(old.get(part), dict) for part in parts)
        ):
            return old
    return about | parts


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

"""A language model as judge of a crosscoder's clusters, and to describe its features."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from xtalk.clustering.endpoint import Endpoint, EndpointJudge, confirm, description_prompt
from xtalk.clustering.evidence import OfflineJudge
from xtalk.clustering.protocol import Distractors, Trial, judge_clusters
from xtalk.clustering.study import ClusterStudy
from xtalk.progress import Report, silent
from xtalk.reading.features import Feature, describe_codes

DISTRACTORS: dict[Distractors, str] = {"any": "any", "rate": "same rate", "coactivation": "as co-active"}


def ask_about(
    study: ClusterStudy,
    endpoint: Endpoint,
    record: dict[str, Any],
    *,
    describe: bool = False,
    price: float | None = None,
    confirmed: bool = False,
    progress: Report = silent,
) -> None:
    """Have an endpoint's model judge all clusterings, and with `describe` describe each clustered feature.

    Adds to `record` as answers come: "accuracy" by distractors and clustering, "trials" by clustering,
    "descriptions" by latent. Errors: XtalkError before anything is asked unless `confirmed`, with what it
    would take; and as `Endpoint.ask`.
    """
    eligible = OfflineJudge(study.corpus).eligible
    trials = _trials(study, eligible)
    texts = _texts(study, eligible)
    asked, model = EndpointJudge(endpoint, texts), endpoint.model
    clustered = [int(i) for i in eligible if study.clustering.labels_L[i] >= 0] if describe else []
    descriptions = {latent: description_prompt(texts[latent]) for latent in clustered}
    prompts = [asked.prompt(trial) for some in trials.values() for trial in some]
    confirm(endpoint, [*prompts, *descriptions.values()], price, confirmed)
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


def table(record: Mapping[str, Any]) -> str:
    """The accuracies of a record in words, for the terminal: a line for each clustering."""
    header = ["", *DISTRACTORS.values(), "trials"]
    lines = [
        [
            name,
            *(_interval(record["accuracy"].get(kind, {}).get(name)) for kind in DISTRACTORS),
            f"3 x {trials}",
        ]
        for name, trials in record["trials"].items()
    ]
    rows = ["".join(f"{cell:23}" for cell in line).rstrip() for line in (header, *lines)]
    return "\n".join([f"accuracy of {record['model']}, with distractors (chance 0.20):", *rows])


def _interval(accuracy: list[float] | None) -> str:
    return "{:.2f} [{:.2f}, {:.2f}]".format(*accuracy) if accuracy else "too few clusters"


def _trials(study: ClusterStudy, eligible: np.ndarray) -> dict[tuple[Distractors, str], list[Trial]]:
    by_kind = study.trials(eligible)
    return {(kind, name): some for kind, by_name in by_kind.items() for name, some in by_name.items()}


def _texts(study: ClusterStudy, eligible: np.ndarray) -> dict[int, str]:
    """What the model reads of each latent: contexts of the judge's text, the active tokens marked."""
    tokenizer = study.model.tokenizer
    assert tokenizer is not None  # the text was read with it
    features = describe_codes(
        study.corpus.codes_BL, study.judged_sequences, tokenizer, eligible.tolist(), contexts=4
    )
    return {feature.latent: _text(feature) for feature in features}


def _text(feature: Feature) -> str:
    lines: list[str] = []
    for context in feature.contexts:
        pieces = [
            f"[[{token}]]" if place == context.peak else token for place, token in enumerate(context.tokens)
        ]
        lines.append("- " + " ".join("".join(pieces).split()))
    return "\n".join(lines)

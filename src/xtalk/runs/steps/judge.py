"""`xtalk judge`: a run's clusters judged, and their features described, by a language model."""

from contextlib import suppress
from typing import Any

from xtalk.clustering.asking import ask_about
from xtalk.clustering.endpoint import Endpoint
from xtalk.errors import XtalkError
from xtalk.files import sha256_of
from xtalk.progress import Report
from xtalk.runs import layout
from xtalk.runs.folder import RunFolder
from xtalk.runs.steps.cluster import cluster_settings, cluster_study, clustered_crosscoder
from xtalk.runs.steps.report import map_run
from xtalk.runs.workbench import Workbench


def judge_run(workbench: Workbench, model: str, progress: Report, **how: Any) -> dict[str, Any]:
    """Judge the clusters of a run, and of its baselines, by an endpoint's model; returns endpoint.json.

    how: as in `ask_about`. Answers of the same model about the same clusters stay until it answers again.
    The map of clusters shows them.
    """
    folder = workbench.folder
    endpoint = Endpoint.from_environment(model, folder.file(layout.ENDPOINT_CACHE))
    study = cluster_study(workbench, cluster_settings(folder), progress)
    record = _begun(folder, model)
    try:
        ask_about(study, endpoint, record, progress=progress, **how)
    finally:  # those so far, if the endpoint breaks off
        if record["trials"]:
            folder.write_json(layout.ENDPOINT, record)
            map_run(workbench, progress)
    return record


def _begun(folder: RunFolder, model: str) -> dict[str, Any]:
    """endpoint.json as it is if it is of this model and these clusters, or else a new one."""
    about = {
        "schema": "xtalk.endpoint/1",
        "model": model,
        "crosscoder": clustered_crosscoder(folder),
        "clusters_sha256": sha256_of(folder.file(layout.CLUSTERS)),
    }
    parts: dict[str, Any] = {"accuracy": {}, "trials": {}, "descriptions": {}}
    with suppress(XtalkError):  # a file that is missing or broken; its answers are in the cache
        old = folder.read_json(layout.ENDPOINT)
        if (
            isinstance(old, dict)
            and about.items() <= old.items()
            and all(isinstance(old.get(part), dict) for part in parts)
        ):
            return old
    return about | parts

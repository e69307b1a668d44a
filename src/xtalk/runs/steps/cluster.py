"""The cluster step of a run: which crosscoder is clustered, and how; the clusters and their map.

Leaves clusters.json (schema xtalk.clusters/1) and cluster_map.json (xtalk.cluster_map/1). The judge reads
held-out documents that the pair interactions have not seen.
"""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from xtalk.clustering.map import map_record
from xtalk.clustering.similarity import Normaliser
from xtalk.clustering.study import ClusterStudy
from xtalk.errors import XtalkError
from xtalk.interactions.pair_matrix import PairMatrix
from xtalk.progress import Report, silent
from xtalk.reading.pairs import SITES, Site
from xtalk.runs import layout
from xtalk.runs.folder import RunFolder
from xtalk.runs.settings import checked
from xtalk.runs.workbench import Workbench

CLUSTER_FILES = (layout.CLUSTERS, layout.CLUSTER_MAP, layout.CLUSTER_SETTINGS)


class ClusterSettings(BaseModel):
    """Settings of the cluster step.

    crosscoder: its name; None: the last of the run. sites: where interactions were measured; of several, each
    site's are divided by all of its terms and then added up, since their units differ. seed: None: the run's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    crosscoder: str | None = None
    sites: tuple[Site, ...] = Field(default=("mlp",), min_length=1)
    method: Literal["spectral", "affinity-propagation", "hdbscan", "louvain"] = "spectral"
    normaliser: Normaliser = "total"
    seed: int | None = Field(default=None, ge=0, lt=2**31)

    @field_validator("sites")
    @classmethod
    def _in_order(cls, sites: tuple[Site, ...]) -> tuple[Site, ...]:
        return tuple(site for site in SITES if site in sites)

    @model_validator(mode="after")
    def _counted_alike(self) -> Self:
        if len(self.sites) > 1 and self.normaliser == "co_occurrence":
            raise ValueError("sites count co-occurrences differently; choose another normaliser, or one site")
        return self


def cluster_settings(folder: RunFolder) -> ClusterSettings:
    """The folder's settings of the step. Errors: XtalkError for broken ones."""
    if not folder.file(layout.CLUSTER_SETTINGS).exists():
        return ClusterSettings()
    return checked(ClusterSettings, folder.read_json(layout.CLUSTER_SETTINGS), "clustering")


def choose_clustering(folder: RunFolder, given: Mapping[str, Any]) -> None:
    """Keep changed settings. Errors: XtalkError for wrong ones, or a crosscoder that the run lacks."""
    settings = checked(ClusterSettings, cluster_settings(folder).model_dump() | dict(given), "clustering")
    names = [spec.name for spec in folder.config.crosscoders]
    if settings.crosscoder is not None and settings.crosscoder not in names:
        raise XtalkError(f"the run has no crosscoder {settings.crosscoder!r}; it has {', '.join(names)}")
    if settings != cluster_settings(folder):
        folder.write_json(layout.CLUSTER_SETTINGS, settings.model_dump())


def clustered_crosscoder(folder: RunFolder) -> str:
    """The name of the crosscoder that is clustered."""
    return cluster_settings(folder).crosscoder or folder.config.crosscoders[-1].name


def missing_sites(folder: RunFolder) -> list[Site]:
    """The sites beside the MLPs at which the clustered crosscoder has no pair interactions yet."""
    name, sites = clustered_crosscoder(folder), cluster_settings(folder).sites
    return [site for site in sites if site != "mlp" and not folder.file(layout.pairs(name, site)).exists()]


def cluster_study(workbench: Workbench, settings: ClusterSettings, progress: Report = silent) -> ClusterStudy:
    """The study of a crosscoder's clusters. Errors: XtalkError for pair interactions of other weights."""
    folder = workbench.folder
    name = settings.crosscoder or folder.config.crosscoders[-1].name
    source = workbench.weights_hash(name)
    return ClusterStudy(
        workbench.model,
        workbench.crosscoder(name),
        {site: PairMatrix.load(folder.file(layout.pairs(name, site)), source) for site in settings.sites},
        workbench.all_held_out_sequences,
        len(workbench.held_out_sequences),
        method=settings.method,
        normaliser=settings.normaliser,
        seed=folder.config.seed if settings.seed is None else settings.seed,
        counted=workbench.counted,
        progress=lambda what, done, total: progress(f"cluster {name}, {what}", done, total),
    )


def cluster_run(workbench: Workbench, progress: Report) -> None:
    """Cluster, judge and lay out the features of a crosscoder."""
    folder = workbench.folder
    settings, name = cluster_settings(folder), clustered_crosscoder(folder)
    study = cluster_study(workbench, settings, progress)
    about = settings.model_dump() | {"crosscoder": name, "seed": study.seed}
    folder.write_json(layout.CLUSTERS, {"schema": "xtalk.clusters/1", **about, **study.record()})
    shown = {"schema": "xtalk.cluster_map/1", "crosscoder": name, **map_record(study)}
    folder.write_json(layout.CLUSTER_MAP, shown)

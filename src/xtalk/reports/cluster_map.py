"""clusters.html: the interactive map of a run's clusters, in one file that holds everything it shows."""

import json
from pathlib import Path
from typing import Literal

from markupsafe import Markup
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, model_validator

from xtalk.errors import XtalkError
from xtalk.files import write_text
from xtalk.reports.data import Context, Interval
from xtalk.reports.html import environment


class Lenient(BaseModel):
    """A frozen record of the part of a file that is shown; numbers must be finite."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class MapCluster(Lenient):
    """A cluster: its latents, and the judge's accuracy at it, None if it was not judged."""

    members: list[NonNegativeInt] = Field(min_length=1)
    accuracy: float | None


class ClusterRecord(Lenient):
    """clusters.json, as far as it is shown."""

    schema_: Literal["xtalk.clusters/1"] = Field(alias="schema")
    crosscoder: str
    sites: tuple[str, ...] = ("mlp",)
    method: str
    converged: bool = True
    normaliser: str
    count: NonNegativeInt
    judge: str
    accuracy: dict[str, dict[str, Interval]]
    clusters: list[MapCluster]


class EndpointRecord(Lenient):
    """endpoint.json, as far as it is shown: a model's accuracy, and what it says of features, by latent.

    clusters_sha256: of the clusters.json that it was asked about.
    """

    schema_: Literal["xtalk.endpoint/1"] = Field(alias="schema")
    clusters_sha256: str
    model: str = ""
    accuracy: dict[str, dict[str, Interval]] = Field(default_factory=dict)
    descriptions: dict[NonNegativeInt, str]


class MapFeature(Lenient):
    """A feature on the map: its place, its cluster (-1: none), what it fires on and what it promotes."""

    latent: NonNegativeInt
    description: str = ""
    cluster: int
    x: float
    y: float
    tokens: list[str]
    promoted: list[str]
    contexts: list[Context]


class MapNeuron(Lenient):
    """A neuron where a pair meets, and the part of their interaction that is there."""

    block: NonNegativeInt
    neuron: NonNegativeInt
    part: float


class MapToken(Lenient):
    """A token at which a pair meets, and the text before it."""

    before: str
    token: str


class MapPair(Lenient):
    """Two features and where they meet."""

    latents: tuple[NonNegativeInt, NonNegativeInt]
    neurons: list[MapNeuron]
    tokens: list[MapToken]


class MapRecord(Lenient):
    """cluster_map.json."""

    schema_: Literal["xtalk.cluster_map/1"] = Field(alias="schema")
    features: list[MapFeature] = Field(min_length=1)
    lines: list[tuple[NonNegativeInt, NonNegativeInt, float]]
    pairs: list[MapPair]

    @model_validator(mode="after")
    def _known(self) -> "MapRecord":
        known = {feature.latent for feature in self.features}
        named = {i for line in self.lines for i in line[:2]} | {i for p in self.pairs for i in p.latents}
        if strangers := named - known:
            raise ValueError(f"a line or pair of feature {min(strangers)}, which is not on the map")
        return self


def write_cluster_map(
    page: Path, clusters: ClusterRecord, shown: MapRecord, endpoint: EndpointRecord | None = None
) -> None:
    """Writes the page. endpoint: a language model's accuracy and descriptions of these clusters.

    Errors: XtalkError if clusters and map do not agree.
    """
    if any(feature.cluster >= len(clusters.clusters) for feature in shown.features):
        raise XtalkError(
            "cluster_map.json names a cluster that clusters.json lacks; remove both, and `xtalk report` "
            "on the run folder makes them anew"
        )
    write_text(page, _render(clusters, _described(shown, endpoint) if endpoint else shown, endpoint))


def _described(shown: MapRecord, endpoint: EndpointRecord) -> MapRecord:
    features = [
        f.model_copy(update={"description": endpoint.descriptions.get(f.latent, "")}) for f in shown.features
    ]
    return shown.model_copy(update={"features": features})


def _render(clusters: ClusterRecord, shown: MapRecord, endpoint: EndpointRecord | None) -> str:
    data = {
        "clusters": [cluster.model_dump(mode="json") for cluster in clusters.clusters],
        **shown.model_dump(mode="json", exclude={"schema_"}),
    }
    encoded = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")  # no </script> in a token
    template = environment().get_template("cluster_map.html.j2")
    asked = endpoint if endpoint and "interaction" in endpoint.accuracy.get("any", {}) else None
    return template.render(clusters=clusters, asked=asked, data=Markup(encoded))

"""clusters.html: the interactive map of a run's clusters, in one file that holds everything it shows."""

import json
from pathlib import Path
from typing import Any, Literal

from markupsafe import Markup
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, model_validator

from xtalk.errors import XtalkError
from xtalk.files import write_text
from xtalk.reports.data import Context, Interval
from xtalk.reports.html import environment

_ALONE = 64  # features in no cluster whose texts are read together


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
    data, texts = _parts(clusters, shown)
    template = environment().get_template("cluster_map.html.j2")
    asked = endpoint if endpoint and "interaction" in endpoint.accuracy.get("any", {}) else None
    return template.render(
        clusters=clusters, asked=asked, data=_encoded(data), texts=[_encoded(part) for part in texts]
    )


def _parts(clusters: ClusterRecord, shown: MapRecord) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the page reads at once, and its texts in parts, which it reads where somebody looks.

    A part has the features of a cluster, or some that are in none, and the pairs whose first feature it has.
    """
    keys = [f"{f.cluster}" if f.cluster >= 0 else f"alone {f.latent // _ALONE}" for f in shown.features]
    places = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    part_of = {f.latent: places[key] for f, key in zip(shown.features, keys, strict=True)}
    parts: list[dict[str, Any]] = [{"features": {}, "pairs": {}} for _ in places]
    features: list[dict[str, Any]] = []
    for feature in shown.features:
        texts = feature.model_dump(mode="json", include={"promoted", "contexts"})
        parts[part_of[feature.latent]]["features"][feature.latent] = texts
        rest = feature.model_dump(mode="json", exclude={"promoted", "contexts"})
        features.append(rest | {"part": part_of[feature.latent]})
    for pair in shown.pairs:
        one, other = sorted(pair.latents)
        details = pair.model_dump(mode="json", exclude={"latents"})
        parts[part_of[pair.latents[0]]]["pairs"][f"{one}-{other}"] = details
    data = {
        "clusters": [cluster.model_dump(mode="json") for cluster in clusters.clusters],
        "features": features,
        "lines": shown.lines,
        "pairs": [pair.latents for pair in shown.pairs],
    }
    return data, parts


def _encoded(data: dict[str, Any]) -> Markup:
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False)
    return Markup(text.replace("<", "\\u003c"))  # no </script> in a token

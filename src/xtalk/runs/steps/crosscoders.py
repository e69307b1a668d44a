"""The work of a run on each of its crosscoders: training, and measuring interactions."""

from dataclasses import replace
from functools import partial

from xtalk.crosscoder.config import CrosscoderConfig
from xtalk.progress import Report
from xtalk.reading.pairs import measure_pairs
from xtalk.records.strongest import strongest_record
from xtalk.runs import layout
from xtalk.runs.config import CrosscoderSpec
from xtalk.runs.workbench import Workbench
from xtalk.training.train import train_crosscoder

LISTED = 128  # partners of each latent that the matrix on disk lists


def train_one(workbench: Workbench, progress: Report, spec: CrosscoderSpec) -> None:
    """Train and save a crosscoder, from its checkpoint if there is one."""
    config, folder, model = workbench.config, workbench.folder, workbench.model
    crosscoder_config = CrosscoderConfig(
        d_in=model.d_model,
        hook_names=tuple(map(str, workbench.hookpoints)),
        **config.crosscoder.model_dump(),
    )
    trained = train_crosscoder(
        crosscoder_config,
        config.training_of(spec),
        workbench.batches(),
        model,
        workbench.scaling,
        metric=workbench.loss_metric,
        model_name=model.name,
        checkpoint_folder=folder.file(layout.checkpoint(spec.name)),
        log=lambda record: folder.log("train", crosscoder=spec.name, **record),
        progress=partial(progress, f"train {spec.name}"),
    )
    trained.crosscoder.save(folder.file(layout.crosscoder(spec.name)))
    folder.write_json(layout.training(spec.name), {"tokens_per_second": trained.tokens_per_second})


def interact_one(workbench: Workbench, progress: Report, name: str) -> None:
    """Measure the pair interactions of a crosscoder in the MLPs, on held-out text.

    Leaves the `PairMatrix`, by block, with each latent's LISTED strongest partners; and the latents that
    interact most, as a report shows them.
    """
    folder, crosscoder = workbench.folder, workbench.crosscoder(name)
    sequences, report = workbench.held_out_sequences, partial(progress, f"interact {name}")
    counted = workbench.counted
    measured = measure_pairs(
        workbench.model, crosscoder, sequences, counted=counted, top=LISTED, progress=report
    )
    matrix = replace(measured.matrices["mlp"], source=workbench.weights_hash(name))
    matrix.save(folder.file(layout.pairs(name, "mlp")))
    record = strongest_record(workbench.model, crosscoder, name, matrix, sequences, counted)
    folder.write_record(layout.strongest(name), record)

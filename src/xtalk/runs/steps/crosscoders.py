"""The work of a run on each of its crosscoders: training, and measuring interactions."""

from dataclasses import replace
from functools import partial

from xtalk import ranks
from xtalk.progress import Report
from xtalk.reading.pairs import measure_pairs
from xtalk.records.strongest import strongest_record
from xtalk.runs import layout
from xtalk.runs.config import CrosscoderSpec
from xtalk.runs.tracking import tracked
from xtalk.runs.workbench import Workbench
from xtalk.training.train import train_crosscoder

LISTED = 128  # partners of each latent that the matrix on disk lists


def train_one(workbench: Workbench, progress: Report, spec: CrosscoderSpec) -> None:
    """Train and save a crosscoder, from its checkpoint if there is one; of several ranks the first writes."""
    config, folder, model = workbench.config, workbench.folder, workbench.model
    settings, first = config.training_of(spec), ranks.rank() == 0
    trackers = workbench.trackers if first else ()
    with tracked(trackers, folder.path, spec.name, settings.model_dump(mode="json")) as track:

        def log(record: dict[str, float]) -> None:
            if first:
                folder.log("train", crosscoder=spec.name, **record)
                track(record)

        trained = train_crosscoder(
            workbench.crosscoder_config,
            settings,
            workbench.batches(),
            model,
            workbench.scaling,
            prepared=workbench.prepared(progress),
            model_name=model.name,
            checkpoint_folder=folder.file(layout.checkpoint(spec.name)),
            log=log,
            progress=partial(progress, f"train {spec.name}"),
        )
    if first:
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

"""The harvest step of a run: model and text are read, and each hookpoint's mean and scale measured."""

import logging
from functools import partial

import torch

from xtalk.activations import measure_scaling
from xtalk.models.variation import check_variation
from xtalk.progress import Report
from xtalk.reading.batches import count_documents
from xtalk.runs import layout
from xtalk.runs.workbench import Workbench
from xtalk.statistics.bootstrap import Bootstrap

logger = logging.getLogger("xtalk")


def harvest_run(workbench: Workbench, progress: Report) -> None:
    """Check model, hookpoints and text, measure the scaling, and store activations if the run keeps them."""
    model, hookpoints = workbench.model, workbench.hookpoints
    train, held_out = workbench.train_sequences, workbench.held_out_sequences
    config, documents = workbench.config, count_documents(held_out)
    check_variation(model, torch.from_numpy(train.tokens[:2]), hookpoints)
    Bootstrap(documents, config.evaluation.resamples, config.seed)  # too few documents: say so now, not later
    counted = {
        "skip_positions": workbench.counted.skip_positions,
        "skip_tokens": sorted(workbench.counted.skip_tokens),
    }
    if config.harvest.store:
        workbench.write_store(progress)
    batches = workbench.batches()
    if batches.epochs > 1:
        needed = config.training.tokens_needed
        logger.warning("training takes %d tokens: it reads the text %d times", needed, batches.epochs)
    tokens, report = config.harvest.scaling_tokens, partial(progress, "means and scales")
    workbench.save_scaling(measure_scaling(batches, tokens, report))
    if config.harvest.loss_metric_tokens:
        workbench.write_loss_metric(progress)
    record = {
        "model": model.name,
        "weights_hash": model.weights_hash,
        "n_params": model.n_params,
        "blocks": model.n_blocks,
        "hookpoints": [str(hookpoint) for hookpoint in hookpoints],
        "text": config.text,
        "text_hash": train.text_hash,
        "train_tokens": train.tokens.size,
        "held_out_hash": held_out.text_hash,
        "held_out_tokens": held_out.tokens.size,
        "held_out_documents": documents,
        "epochs": batches.epochs,
        "counted": counted,
    }
    workbench.folder.record_found(counted)
    workbench.folder.write_json(layout.HARVEST, record)

"""Pair interactions of a run's crosscoders where the `interact` step does not look: attention and norms."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from xtalk.crosscoder.saving import CFG
from xtalk.errors import XtalkError
from xtalk.interactions.attention import KEYS
from xtalk.progress import Report, silent
from xtalk.reading.features import sparse_codes
from xtalk.reading.pairs import SITES, Site, measure_pairs
from xtalk.runs.config import CrosscoderSpec
from xtalk.runs.folder import RunFolder
from xtalk.runs.steps.crosscoders import LISTED, strongest_file, strongest_pairs
from xtalk.runs.steps.evaluate import REPORT_DATA
from xtalk.runs.workbench import Workbench


def check_elsewhere(sites: Sequence[str]) -> None:
    """Errors: XtalkError for a site that is none outside MLPs, which `interact` always measures."""
    elsewhere = [site for site in SITES if site != "mlp"]
    if strangers := set(sites) - set(elsewhere):
        raise XtalkError(f"no site {min(strangers)!r} to add; expected some of {', '.join(elsewhere)}")


def interact_elsewhere(
    folder: RunFolder,
    sites: Sequence[str],
    *,
    crosscoders: Sequence[str] = (),
    device: str = "auto",
    progress: Report = silent,
) -> list[str]:
    """Measure pair interactions at some sites, on held-out text; returns the files.

    crosscoders: of the run, all if none is named. Each file is a `PairMatrix`,
    interactions/NAME.SITE.safetensors, its strongest latents in NAME.SITE.json, which the next `evaluate` and
    `report` show; interactions/NAME.attention.json tells which part of the attention the pairs cover. Errors:
    XtalkError for an unknown site or crosscoder, or one not trained.
    """
    check_elsewhere(sites)
    names = [spec.name for spec in folder.config.crosscoders]
    if strangers := set(crosscoders) - set(names):
        raise XtalkError(f"no crosscoder {min(strangers)!r} in {folder.path}; it has {', '.join(names)}")
    chosen: tuple[Site, ...] = tuple(site for site in SITES if site in sites)
    with folder.locked():
        workbench = Workbench(folder, device)
        files = [
            file
            for spec in folder.config.crosscoders
            if not crosscoders or spec.name in crosscoders
            for file in _interact_one(workbench, spec, chosen, progress)
        ]
        folder.file(REPORT_DATA).unlink(missing_ok=True)  # to be written again with these
        return files


def _interact_one(
    workbench: Workbench, spec: CrosscoderSpec, sites: tuple[Site, ...], progress: Report
) -> list[str]:
    folder = workbench.folder
    if not folder.outputs(f"train/{spec.name}"):
        raise XtalkError(f"{spec.name} is not trained; first run `xtalk train --out {folder.path}`")
    source = folder.read_json(f"crosscoders/{spec.name}/{CFG}")["sae_weights_sha256"]
    crosscoder = workbench.crosscoder(spec.name)
    measured = measure_pairs(
        workbench.model,
        crosscoder,
        workbench.held_out_sequences,
        sites,
        top=LISTED,
        counted=workbench.counted,
        progress=partial(progress, f"interact {spec.name}, {', '.join(sites)}"),
    )
    codes_BL = sparse_codes(
        workbench.model, crosscoder, workbench.held_out_sequences, counted=workbench.counted
    )
    names: list[str] = []
    for site, matrix in measured.matrices.items():
        names += [f"interactions/{spec.name}.{site}.safetensors", strongest_file(spec.name, site)]
        replace(matrix, source=source).save(folder.file(names[-2]))
        shown = strongest_pairs(workbench, spec.name, site, matrix, codes_BL)
        folder.write_json(names[-1], {"source": source, "matrix": shown})
    if measured.coverage is not None:
        names.append(f"interactions/{spec.name}.attention.json")
        folder.write_json(names[-1], {"keys": KEYS, "coverage": measured.coverage})
    return names

"""Pair interactions of a run's crosscoders where the `interact` step does not look: attention and norms."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from xtalk.errors import XtalkError
from xtalk.interactions.attention import KEYS
from xtalk.progress import Report
from xtalk.reading.features import sparse_codes
from xtalk.reading.pairs import SITES, Site, measure_pairs
from xtalk.records.strongest import strongest_pairs
from xtalk.runs import layout
from xtalk.runs.steps.crosscoders import LISTED
from xtalk.runs.workbench import Workbench


def check_elsewhere(sites: Sequence[str]) -> None:
    """Errors: XtalkError for a site that is not one beside the MLPs, which are always measured."""
    elsewhere = [site for site in SITES if site != "mlp"]
    if strangers := set(sites) - set(elsewhere):
        raise XtalkError(f"no site {min(strangers)!r} to add; expected some of {', '.join(elsewhere)}")


def interact_elsewhere(workbench: Workbench, name: str, sites: Sequence[str], progress: Report) -> list[str]:
    """Measure the pair interactions of a trained crosscoder at some sites, on held-out text; its files.

    Each site has a `PairMatrix`, and the strongest latents, which the next `evaluate` and `report` show;
    a file of its own says which part of the attention the pairs cover.
    """
    folder, crosscoder = workbench.folder, workbench.crosscoder(name)
    source, text = workbench.weights_hash(name), workbench.held_out_sequences
    chosen: tuple[Site, ...] = tuple(site for site in SITES if site in sites)
    report = partial(progress, f"interact {name}, {', '.join(chosen)}")
    counted = workbench.counted
    measured = measure_pairs(
        workbench.model, crosscoder, text, chosen, counted=counted, top=LISTED, progress=report
    )
    codes_BL = sparse_codes(workbench.model, crosscoder, text, counted=counted)
    files: list[str] = []
    for site, matrix in measured.matrices.items():
        files += [layout.pairs(name, site), layout.strongest_at(name, site)]
        replace(matrix, source=source).save(folder.file(files[-2]))
        shown = strongest_pairs(workbench.model, name, site, matrix, codes_BL, text, counted)
        folder.write_json(files[-1], {"source": source, "matrix": shown.model_dump(mode="json")})
    if measured.coverage is not None:
        files.append(layout.attention_coverage(name))
        folder.write_json(files[-1], {"keys": KEYS, "coverage": measured.coverage})
    return files

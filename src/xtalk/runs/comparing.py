"""Two folders with results, compared: of runs, or of measured dictionaries."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from xtalk.errors import XtalkError
from xtalk.files import expanded
from xtalk.records.comparison import Comparison, Measured, compared
from xtalk.reports import Metrics, ReportData, Results, read_record
from xtalk.runs.folder import RunFolder
from xtalk.runs.layout import CONFIG, METRICS, REPORT_DATA


def compare(a: str | Path, b: str | Path, pairs: Mapping[str, str] | None = None) -> Comparison:
    """Two results beside each other: folders of `xtalk run`, or those that `measure` saved.

    Every figure that both have of a crosscoder, by block, with B's less A's and its 95 % interval; and what
    differs in how they were made. Other models or texts are said in `record.notes`, not refused.

    pairs: which crosscoder of a stands beside which of b; by default those of one name, or the only one of
    each. An interval of a difference takes both as independent, and is too wide where both are of one text.

    Errors: XtalkError for a folder without metrics.json, one whose files contradict each other, and names
    that there are not.

    >>> for name in ("one", "other"):
    ...     _ = xtalk.measure(model, cc, texts, tokens=1024, resamples=100).save(folder / name)
    >>> found = xtalk.compare(folder / "one", folder / "other")
    >>> found.rows()[0]["figure"], found.rows()[0]["difference"], found.record.settings
    ('fvu', 0.0, [])
    """
    return compared(_measured(Path(a)), _measured(Path(b)), pairs)


def _measured(folder: Path) -> Measured:
    path = expanded(folder)
    if not (path / METRICS).is_file():
        raise XtalkError(
            f"{path} has no {METRICS}; expected a run's folder after `xtalk evaluate`, or one that "
            "`xtalk measure --out` made"
        )
    metrics, results = read_record(path / METRICS, Metrics), None
    if (path / REPORT_DATA).is_file():
        results = Results(metrics, read_record(path / REPORT_DATA, ReportData))
    return Measured(str(folder), metrics, results, dict(_settings(path, metrics, results)))


def _settings(path: Path, metrics: Metrics, results: Results | None) -> Iterator[tuple[str, str]]:
    """What the results were measured on and how they were made, by name."""
    yield "model", f"{metrics.model.name}, {metrics.model.n_params} parameters"
    yield "device", metrics.device
    yield "seed", str(metrics.seed)
    if results is not None:
        about = results.data.provenance
        yield "model hash", about.model_hash
        yield "text", about.text
        yield "text hash", about.text_hash
        yield "tokens", str(about.tokens)
        yield "documents", str(about.documents)
    if (path / CONFIG).is_file():
        yield from _leaves("", RunFolder.open(path).config.plain())


def _leaves(key: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for name, below in value.items():
            yield from _leaves(f"{key}.{name}" if key else f"config: {name}", below)
    else:
        yield key, json.dumps(value, ensure_ascii=False)

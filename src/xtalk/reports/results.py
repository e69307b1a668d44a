"""Reads and cross-checks what a run folder holds for its report."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from xtalk.errors import XtalkError
from xtalk.reports.data import Ablation, Baseline, FewHot, ReportData, ResidMid
from xtalk.reports.metrics import CrosscoderMetrics, Metrics

Record = TypeVar("Record", bound=BaseModel)


@dataclass(frozen=True)
class Results:
    """A run's metrics.json and report_data.json, known to agree with each other."""

    metrics: Metrics
    data: ReportData

    def crosscoder(self, name: str) -> CrosscoderMetrics:
        """The crosscoder of that name."""
        return next(crosscoder for crosscoder in self.metrics.crosscoders if crosscoder.name == name)

    @property
    def compared(self) -> list[str]:
        """The headline crosscoder and the unpenalised one, once if they are the same."""
        return list(dict.fromkeys([self.data.headline, self.data.unpenalised]))

    def mean_ablation(self, name: str, resid_mid: ResidMid, baseline: Baseline) -> Ablation | None:
        """The block-averaged ablations of a crosscoder, if the run has them."""
        key = (name, "mean", resid_mid, baseline)
        rows = self.data.ablations
        return next(
            (row for row in rows if (row.crosscoder, row.block, row.resid_mid, row.baseline) == key), None
        )

    def mean_few_hot(self, name: str) -> FewHot | None:
        """The block-averaged few-hot curve of a crosscoder, if the run has it."""
        curves = {row.crosscoder: row for row in self.data.few_hot if row.block == "mean"}
        return curves.get(name)


def load_report_data(run_folder: Path) -> ReportData:
    """report_data.json of a run folder; XtalkError if it is missing or breaks its schema."""
    return read_record(run_folder, "report_data.json", ReportData)


def load_results(run_folder: Path) -> Results:
    """Both files of a run folder; XtalkError if one is missing, invalid or contradicts the other."""
    results = Results(read_record(run_folder, "metrics.json", Metrics), load_report_data(run_folder))
    _cross_check(results, run_folder)
    return results


def read_record(run_folder: Path, name: str, record: type[Record], command: str = "xtalk evaluate") -> Record:
    """A JSON file of a run folder, made by `command`; XtalkError if it is missing or breaks its schema."""
    path = run_folder / name
    try:
        return record.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise XtalkError(
            f"{path} is missing; a report needs the results of an evaluated run; "
            f"run `{command}` (or `xtalk run`) on this folder first"
        ) from None
    except OSError as error:
        raise XtalkError(f"{path} cannot be read ({error.strerror}); expected a readable file") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        message = " ".join(first["msg"].split())
        raise XtalkError(f"{path}: {where}: {message}; write it anew with `{command}`") from None


def _cross_check(results: Results, run_folder: Path) -> None:
    data = results.data
    names = [crosscoder.name for crosscoder in results.metrics.crosscoders]
    rows = [*data.ablations, *data.few_hot, *data.tightness, *data.interaction_matrices, *data.features]
    strangers = {data.headline, data.unpenalised, *(row.crosscoder for row in rows)} - set(names)
    if len(set(names)) < len(names):
        problem = "metrics.json names a crosscoder twice; expected each name once"
    elif strangers:
        problem = f"report_data.json speaks of {sorted(strangers)[0]!r}; metrics.json has {', '.join(names)}"
    elif absent := [name for name in names if not _has_headline_figures(results, name)]:
        problem = (
            f"report_data.json lacks block-averaged full and keep_1 of {absent[0]!r}, for either baseline"
        )
    else:
        return
    raise XtalkError(f"{run_folder}: {problem}; write both anew with `xtalk evaluate`")


def _has_headline_figures(results: Results, name: str) -> bool:
    ablations = [results.mean_ablation(name, "model", baseline) for baseline in ("mean", "zero")]
    return all(ablation is not None and {"full", "keep_1"} <= ablation.phi.keys() for ablation in ablations)

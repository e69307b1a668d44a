"""The two records that a report shows, read and compared with each other."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ValidationError

from xtalk.errors import XtalkError
from xtalk.reports.data import Ablation, Baseline, FewHot, ReportData, ResidMid, Together
from xtalk.reports.metrics import CrosscoderMetrics, Metrics

Record = TypeVar("Record", bound=BaseModel)


@dataclass(frozen=True)
class Results:
    """A run's metrics.json and report_data.json. Errors: XtalkError where they contradict each other."""

    metrics: Metrics
    data: ReportData

    def __post_init__(self) -> None:
        _cross_check(self)

    def crosscoder(self, name: str) -> CrosscoderMetrics:
        """The crosscoder of that name."""
        return next(crosscoder for crosscoder in self.metrics.crosscoders if crosscoder.name == name)

    @property
    def compared(self) -> list[str]:
        """The headline crosscoder and the unpenalised one, once if they are the same; or all measured."""
        if self.data.kind == "measure":
            return [crosscoder.name for crosscoder in self.metrics.crosscoders]
        return list(dict.fromkeys([self.data.headline, self.data.unpenalised]))

    def mean_ablation(self, name: str, resid_mid: ResidMid, baseline: Baseline) -> Ablation | None:
        """The block-averaged ablations of a crosscoder, if the run has them."""
        return self.ablation(name, "mean", resid_mid, baseline)

    def ablation(
        self, name: str, block: Literal["mean"] | Together, resid_mid: ResidMid, baseline: Baseline
    ) -> Ablation | None:
        """The ablations of a crosscoder over several blocks, if the run has them."""
        key = (name, block, resid_mid, baseline)
        rows = self.data.ablations
        return next(
            (row for row in rows if (row.crosscoder, row.block, row.resid_mid, row.baseline) == key), None
        )

    def mean_few_hot(self, name: str) -> FewHot | None:
        """The block-averaged few-hot curve of a crosscoder, if the run has it."""
        curves = {row.crosscoder: row for row in self.data.few_hot if row.block == "mean"}
        return curves.get(name)


def read_record(path: Path, record: type[Record]) -> Record:
    """A JSON file of a run folder. Errors: XtalkError if it is missing or breaks its schema."""
    remedy = "remove it, and `xtalk report` on the run folder makes it anew"
    try:
        return record.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise XtalkError(f"{path} is missing; `xtalk report` on the run folder makes it") from None
    except OSError as error:
        raise XtalkError(f"{path} cannot be read ({error.strerror}); expected a readable file") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        message = " ".join(first["msg"].split())
        raise XtalkError(f"{path}: {where}: {message}; {remedy}") from None


def _cross_check(results: Results) -> None:
    data = results.data
    names = [crosscoder.name for crosscoder in results.metrics.crosscoders]
    rows = [*data.ablations, *data.few_hot, *data.tightness, *data.interaction_matrices, *data.features]
    strangers = {data.headline, data.unpenalised, *(row.crosscoder for row in rows)} - set(names)
    if len(set(names)) < len(names):
        problem = "metrics.json names a crosscoder twice; expected each name once"
    elif strangers:
        problem = f"report_data.json names {sorted(strangers)[0]!r}; metrics.json has {', '.join(names)}"
    elif absent := [name for name in names if not _has_headline_figures(results, name)]:
        problem = (
            f"report_data.json lacks block-averaged full and keep_1 of {absent[0]!r}, for either baseline"
        )
    else:
        return
    raise XtalkError(f"{problem}; remove both files, and `xtalk report` on the run folder makes them anew")


def _has_headline_figures(results: Results, name: str) -> bool:
    ablations = [results.mean_ablation(name, "model", baseline) for baseline in ("mean", "zero")]
    return all(ablation is not None and {"full", "keep_1"} <= ablation.phi.keys() for ablation in ablations)

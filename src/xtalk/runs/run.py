"""A run: a folder, its configuration, and the steps that fill it."""

import logging
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from xtalk import ranks
from xtalk.errors import XtalkError
from xtalk.progress import Report, silent
from xtalk.runs import layout
from xtalk.runs.config import RunConfig
from xtalk.runs.folder import RunFolder
from xtalk.runs.pipeline import Pipeline
from xtalk.runs.plan import Plan, plan_run
from xtalk.runs.settings import kept_unless_done
from xtalk.runs.steps.cluster import CLUSTER_FILES, choose_clustering, clustered_crosscoder, missing_sites
from xtalk.runs.steps.dormant import DORMANT_FILES, choose_dormant
from xtalk.runs.steps.judge import judge_run
from xtalk.runs.steps.sites import check_elsewhere, interact_elsewhere
from xtalk.runs.steps.validate import TOKENS, validate_one
from xtalk.runs.tracking import check_trackers
from xtalk.runs.workbench import Workbench

logger = logging.getLogger("xtalk")


class Run:
    """A run folder, its configuration, and the steps that train and study crosscoders in it.

    folder: new, empty, or that of a run. config: by default the one that the folder has. device: "auto",
    "cpu" or "cuda". progress: called with a task, the number of its parts that are done, and their number.
    trackers: "wandb", "trackio", "tensorboard"; the numbers of every training go there too.
    Each method does what it needs first, and nothing that is up to date: `evaluate` harvests and trains.
    Errors: XtalkError for a folder of another configuration, of another version of xtalk or in use by another
    process, and for whatever a step refuses.

    >>> run = xtalk.Run(folder, xtalk.preset("quick", training={"steps": 100}), device="cpu")
    >>> run.config.training.steps
    100
    """

    def __init__(
        self,
        folder: str | Path,
        config: RunConfig | None = None,
        *,
        device: str = "auto",
        progress: Report = silent,
        trackers: Sequence[str] = (),
    ) -> None:
        check_trackers(trackers)
        self.folder = RunFolder.open(folder) if config is None else RunFolder.create(folder, config)
        self.device, self.progress, self.trackers = device, progress, trackers

    @property
    def config(self) -> RunConfig:
        """The run's configuration."""
        return self.folder.config

    def run(self, approve: Callable[[Plan], object] | None = None) -> None:
        """Do everything: all steps of the configuration, to the report.

        approve: called with the plan of the steps that are left, before they begin; it may raise, to end
        the run there.
        """
        import_module("xtalk.reports.page")  # says now, and not after hours, that matplotlib is missing

        with self.folder.locked():
            workbench, pipeline = self._workbench(), Pipeline(self.folder)
            left = [step for step in pipeline.steps if not pipeline.is_current(step)]
            if approve is not None and left and ranks.rank() == 0:  # the others wait for the first's step
                with ranks.alone():
                    approve(plan_run(workbench, left))
            self._update(list(pipeline.steps), "run", workbench)

    def harvest(self) -> None:
        """Read model and text, and measure each hookpoint's mean and scale."""
        self._do("harvest")

    def train(self) -> None:
        """Train a crosscoder for each set of penalties, from its checkpoint if there is one."""
        self._do("train")

    def interact(self, sites: Sequence[str] = (), crosscoders: Sequence[str] = ()) -> list[Path]:
        """Measure the interactions of features in the MLPs, and at `sites` ("qk", "ov", "norm").

        crosscoders: which, by default all of the run. Returns the files of the sites.
        """
        check_elsewhere(sites)
        names = self._chosen(crosscoders)
        with self.folder.locked():
            workbench = self._update([f"interact/{name}" for name in names], None if sites else "interact")
            if not sites:
                return []
            files = [
                file for name in names for file in interact_elsewhere(workbench, name, sites, self.progress)
            ]
        return list(map(self.folder.file, files))

    def cluster(self, **settings: Any) -> None:
        """Cluster the features of a crosscoder by interaction, and judge the clusters.

        settings: those of `ClusterSettings` to change; the folder keeps them. Pair interactions at sites that
        were not measured yet are measured first.
        """
        with self.folder.locked(), kept_unless_done(self.folder, CLUSTER_FILES):
            choose_clustering(self.folder, settings)
            if missing := missing_sites(self.folder):
                self.interact(missing, [clustered_crosscoder(self.folder)])
            self._do("cluster")

    def dormant(self, **settings: Any) -> None:
        """Find dormant neurons and what wakes them.

        settings: those of `DormantSettings` to change; the folder keeps them.
        """
        with self.folder.locked(), kept_unless_done(self.folder, DORMANT_FILES):
            choose_dormant(self.folder, settings)
            self._do("dormant")

    def evaluate(self) -> None:
        """Measure fidelity on held-out text; leaves metrics.json and report_data.json."""
        self._do("evaluate")

    def report(self) -> Path:
        """Draw the figures and write report.html, and the map of clusters if there are some; its path."""
        with self.folder.locked():
            current = Pipeline(self.folder).is_current("cluster")
            self._update(["report", *(["map"] if current else [])], "report")
        return self.folder.file(layout.REPORT)

    def validate(self, crosscoders: Sequence[str] = (), tokens: int = TOKENS) -> list[Path]:
        """Judge the measures of interaction by interventions on `tokens` tokens of held-out text.

        crosscoders: which, by default all of the run. What was validated before, of the same weights on as
        many tokens, is not done again. Returns the files.
        """
        names = self._chosen(crosscoders)
        with self.folder.locked():
            workbench = self._update([f"train/{name}" for name in names])
            files = [validate_one(workbench, name, tokens, self.progress) for name in names]
        return list(map(self.folder.file, files))

    def judge(self, model: str, **how: Any) -> dict[str, Any]:
        """Have a language model judge the clusters; `how` as in `ask_about`. Returns endpoint.json."""
        with self.folder.locked():
            return judge_run(self._update(["cluster"]), model, self.progress, **how)

    def _do(self, step: str) -> None:
        with self.folder.locked():
            self._update(Pipeline(self.folder).group(step), step)

    def _workbench(self) -> Workbench:
        return Workbench(self.folder, self.device, self.trackers)

    def _update(
        self, names: Sequence[str], asked: str | None = None, workbench: Workbench | None = None
    ) -> Workbench:
        """Bring steps up to date; asked: what to call them where nothing is left to do."""
        workbench = workbench or self._workbench()
        if not Pipeline(self.folder).update(names, workbench, self.progress) and asked:
            logger.info("%s: complete already", asked)
        return workbench

    def _chosen(self, crosscoders: Sequence[str]) -> list[str]:
        """Some crosscoders of the run, all if none is named. Errors: XtalkError for one that it lacks."""
        names = [spec.name for spec in self.config.crosscoders]
        if strangers := set(crosscoders) - set(names):
            raise XtalkError(f"no crosscoder {min(strangers)!r} in the run; it has {', '.join(names)}")
        return [name for name in names if name in crosscoders] if crosscoders else names

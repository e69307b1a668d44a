"""The configuration of a run, from a preset, a file and options."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xtalk.cli import options
from xtalk.cli.commands import Result, taking

if TYPE_CHECKING:
    from xtalk.runs.config import RunConfig

DEFAULT_PRESET, OWN_PRESET = "quick", "own"


@dataclass(frozen=True)
class Choice:
    """What the options ask for: a preset, a file whose keys take the place of the preset's, and changes."""

    preset: str | None
    file: Path | None
    changes: dict[str, Any]

    def config(self, folder: Path | None = None) -> "RunConfig":
        """The configuration; where neither preset nor file is given, that of a run folder, if it is one."""
        from xtalk.runs.config import changed, merged, run_config
        from xtalk.runs.folder import RunFolder
        from xtalk.runs.layout import CONFIG
        from xtalk.runs.presets import preset

        if self.preset is None and self.file is None and folder and (folder / CONFIG).exists():
            return changed(RunFolder.open(folder).config, **self.changes)
        base = preset(self.base()).plain()
        content = merged(base, self._content) if self.file else base
        return run_config(merged(content, self.changes))

    def base(self) -> str:
        """The preset whose keys are taken where nothing else is said: of another model than ours, `own`."""
        if self.preset is not None:
            return self.preset
        model = self.changes.get("model", self._content.get("model", "embedded"))
        return DEFAULT_PRESET if str(model).startswith("embedded") else OWN_PRESET

    @cached_property
    def _content(self) -> dict[str, Any]:
        return _read(self.file) if self.file else {}


def choice(
    preset: options.Preset = None,
    config: options.Config = None,
    set: options.Set = None,
    model: options.Model = None,
    dtype: options.Dtype = None,
    trust_remote_code: options.TrustRemoteCode = None,
    text: options.Text = None,
    column: options.Column = None,
    split: options.Split = None,
    chat: options.Chat = None,
    held_out_text: options.HeldOutText = None,
    hookpoints: options.Hookpoints = None,
    latents: options.Latents = None,
    k: options.K = None,
    steps: options.Steps = None,
    penalty: options.Penalty = None,
    skip_positions: options.SkipPositions = None,
    keep_sinks: options.KeepSinks = None,
    seed: options.Seed = None,
) -> Choice:
    """The options of a configuration. Errors: XtalkError for a --set or --penalty without `=`."""
    from xtalk.runs.config import UNPENALISED, merged, nested

    changes: dict[str, Any] = {}
    for key, value in _pairs("--set", set, "KEY=VALUE"):
        changes = merged(changes, nested(key, value))
    given: dict[str, Any] = {
        "model": model,
        "harvest.dtype": dtype,
        "trust_remote_code": trust_remote_code,
        "text": text,
        "text_column": column,
        "text_split": split,
        "chat": chat,
        "held_out_text": held_out_text,
        "hookpoints": _names(hookpoints),
        "crosscoder.d_sae": latents,
        "crosscoder.k": k,
        "training.steps": steps,
        "harvest.skip_positions": skip_positions,
        "harvest.keep_sinks": keep_sinks,
        "seed": seed,
    }
    if weights := dict(_pairs("--penalty", penalty, "NAME=WEIGHT")):
        given["crosscoders"] = [
            {"name": UNPENALISED, "penalties": {}},
            {"name": "penalised", "penalties": weights},
        ]
    for key, value in given.items():
        if value is not None:
            changes = merged(changes, nested(key, value))
    return Choice(preset, config, changes)


@taking(choice)
def config(wanted: Choice) -> Result:
    """Print a configuration as YAML, as `xtalk run --config FILE` reads it.

    Examples:
    - `xtalk config --preset paper > mine.yaml`

    - `xtalk config --set training.lr=1e-3 --steps 2000`
    """
    import yaml

    plain = wanted.config().plain()
    return Result(plain, yaml.safe_dump(plain, sort_keys=False).rstrip())


def _names(hookpoints: Sequence[str] | None) -> list[str] | None:
    return [name for some in hookpoints for name in some.split(",") if name] if hookpoints else None


def _pairs(option: str, given: Sequence[str] | None, form: str) -> list[tuple[str, Any]]:
    """Keys and values, these as YAML reads them."""
    from xtalk.errors import XtalkError
    from xtalk.parsing import parsed_yaml

    pairs: list[tuple[str, Any]] = []
    for one in given or ():
        key, equals, text = one.partition("=")
        if not key or not equals:
            raise XtalkError(f"{option} {one}: expected {form}, with an equals sign")
        try:
            pairs.append((key, parsed_yaml(text)))
        except ValueError:
            pairs.append((key, text))
    return pairs


def _read(file: Path) -> dict[str, Any]:
    """The content of a configuration file; of a run's config.yaml, the configuration in it."""
    from xtalk.errors import XtalkError
    from xtalk.files import expanded
    from xtalk.parsing import parsed_yaml

    try:
        content = parsed_yaml(expanded(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise XtalkError(
            f"{file} cannot be read ({reason}); expected a YAML file of keys and values"
        ) from error
    if isinstance(content, dict) and isinstance(content.get("config"), dict):
        content = content["config"]
    if not isinstance(content, dict):
        raise XtalkError(f"{file} holds no keys and values; `xtalk config` prints a file that does")
    return content

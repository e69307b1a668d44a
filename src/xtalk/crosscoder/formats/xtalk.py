"""xtalk's own format, as `Crosscoder.save` writes it."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from xtalk.crosscoder.formats.format import Format, Stored
from xtalk.crosscoder.formats.writing import Prepared, Writer
from xtalk.crosscoder.saving import CFG, WEIGHTS, broken, is_xtalk, read_cfg, write_crosscoder
from xtalk.files import sha256_of


def _read(folder: Path) -> Stored:
    """The crosscoder; files that are missing, cut short, corrupted or of other shapes are refused."""
    cfg, path = read_cfg(folder), folder / WEIGHTS
    try:
        if sha256_of(path) != cfg.sae_weights_sha256:
            raise ValueError("its sha256 is not that in cfg.json")
        tensors = load_file(path)
        shapes = cfg.config.shapes
        for name in sorted({*shapes, *tensors}):
            expected = f"float32 {shapes[name]}" if name in shapes else "missing"
            if (found := _described(tensors.get(name))) != expected:
                raise ValueError(f"{name} is {found}, expected {expected}")
            if not tensors[name].isfinite().all():
                raise ValueError(f"{name} has NaN or infinity")
    except (OSError, SafetensorError, ValueError) as error:
        raise broken(path, error) from error
    return Stored(cfg.config, tensors, cfg.provenance)


def _described(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else f"{tensor.dtype} {tuple(tensor.shape)}".removeprefix("torch.")


XTALK = Format("xtalk", (CFG, WEIGHTS), is_xtalk, _read)


def _prepared(stored: Stored) -> Prepared:
    def write(folder: Path) -> None:
        write_crosscoder(folder, stored.config, stored.tensors, stored.provenance)

    return Prepared((), write)


XTALK_WRITER = Writer("xtalk", _prepared)

"""The names that peers give to places in a model, as xtalk's hookpoints."""

import re

_SITES = {
    "hook_resid_pre": "resid_pre",
    "hook_resid_mid": "resid_mid",
    "hook_resid_post": "resid_post",
    "hook_mlp_in": "resid_mid",  # of TransformerLens: what the second norm reads
    "attn.hook_in": "ln1",
    "mlp.hook_in": "ln2",
    "resid_pre": "resid_pre",
    "ln1": "ln1",
    "resid_mid": "resid_mid",
    "ln2": "ln2",
    "resid_post": "resid_post",
}
_MODULES = {  # the inputs and outputs of modules, as Hugging Face names them
    "": "resid_post",
    ".output": "resid_post",
    ".input": "resid_pre",
    ".input_layernorm.output": "ln1",
    ".pre_feedforward_layernorm.output": "ln2",
    ".mlp.input": "ln2",
}
_LENS = re.compile(r"blocks\.(\d+)\.(.+)")
_MODULE = re.compile(r"(?:model\.|transformer\.|gpt_neox\.)?(?:layers|h)[._](\d+)((?:\.[a-z_]+)*)")


def hookpoint(name: str) -> str:
    """The hookpoint of xtalk's that a peer's name means; the name itself where xtalk has none for it.

    >>> from xtalk.crosscoder.formats.hooks import hookpoint
    >>> hookpoint("blocks.3.hook_resid_pre"), hookpoint("model.layers.3"), hookpoint("blocks.3.hook_mlp_out")
    ('blocks.3.resid_pre', 'blocks.3.resid_post', 'blocks.3.hook_mlp_out')
    """
    for pattern, sites in ((_LENS, _SITES), (_MODULE, _MODULES)):
        match = pattern.fullmatch(name)
        if match and match[2] in sites:
            return f"blocks.{int(match[1])}.{sites[match[2]]}"
    return name


def lens_name(name: str) -> str:
    """The name that TransformerLens, and SAELens with it, has for a hookpoint; others stay as they are."""
    match = _LENS.fullmatch(name)
    names = {site: lens for lens, site in reversed(_SITES.items()) if "hook" in lens}
    return f"blocks.{match[1]}.{names[match[2]]}" if match and match[2] in names else name


def unnamed(count: int, what: str = "hookpoint") -> tuple[str, ...]:
    """Names for hookpoints that a file does not name."""
    return tuple(f"{what}_{p}" for p in range(count))


def hook_notes(*names: str) -> tuple[str, ...]:
    """What is to be said of peers' names: those that mean a place where xtalk's differs, or has none."""
    notes = [f"stored as {name}, read as {hookpoint(name)}" for name in names if hookpoint(name) != name]
    if any(name.endswith(".hook_normalized") for name in names):
        notes.append(
            "hook_normalized of TransformerLens is before the norm's own weights, and ln1 and ln2 of xtalk "
            "are after them: measured in a model, whose weights are put between"
        )
    if any(name.endswith("hook_z") for name in names):
        notes.append("reads the heads' outputs hook_z, flattened to one axis of heads times d_head")
    return tuple(notes)

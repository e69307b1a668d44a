"""peft writes adapters and merges them itself; xtalk must make the same weights. Argument: a new folder."""

import sys
from importlib.metadata import version
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from reference.tiny_models import save_tiny
from transformers import AutoModelForCausalLM

from xtalk.models.language_model import load_model

ROOT = Path(sys.argv[1])
CASES = {
    "linear": ("llama", {"target_modules": ["q_proj", "v_proj", "down_proj", "gate_proj"]}),
    "all_linear": ("llama", {"target_modules": "all-linear", "use_rslora": True}),
    "patterns": (
        "llama",
        {
            "target_modules": ["q_proj", "up_proj"],
            "rank_pattern": {"layers.1.self_attn.q_proj": 5},
            "alpha_pattern": {"up_proj": 3, "^model.layers.0.self_attn.q_proj": 11},
        },
    ),
    "saved_whole": ("llama", {"target_modules": ["q_proj"], "modules_to_save": ["norm", "lm_head"]}),
    "biases": ("llama", {"target_modules": ["q_proj", "o_proj"], "bias": "all"}),
    "transposed": ("gpt2", {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
    "embedding": ("gpt_neox", {"target_modules": ["embed_in", "query_key_value"]}),
    "by_gemma": ("gemma2", {"target_modules": ["k_proj", "o_proj"]}),
}

worst = 0.0
for number, (name, (kind, options)) in enumerate(CASES.items()):
    base, folder = ROOT / name / "base", ROOT / name / "adapter"
    save_tiny(base, kind)
    torch.manual_seed(number)
    config = LoraConfig(r=3, lora_alpha=7, task_type="CAUSAL_LM", **options)
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.2)
    adapted.save_pretrained(folder)
    plain = AutoModelForCausalLM.from_pretrained(base)
    theirs = PeftModel.from_pretrained(plain, folder).merge_and_unload().state_dict()
    changed = 0.0
    for place, own in load_model(folder).hf.state_dict().items():
        worst = max(worst, float((own - theirs[place]).abs().max()))
        changed += float((own - load_model(base).hf.state_dict()[place]).abs().sum()) if number == 0 else 1.0
    assert changed > 0
    print(f"{name}: largest difference so far {worst:.2g}")
print(f"peft {version('peft')}: largest difference of a weight {worst:.2g}")
if not worst < 1e-6:
    raise SystemExit("weights differ from peft's")

"""Two crosscoders at the input of one MLP, one of them trained for one feature per token and neuron."""

import argparse

import xtalk

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", default="embedded", help="a folder or a hub name")
parser.add_argument("--text", default="embedded", help="a file, a folder or the name of a data set")
parser.add_argument("--hookpoint", default="blocks.1.ln2")
parser.add_argument("--latents", type=int, default=512)
parser.add_argument("--steps", type=int, default=500, help="thousands in earnest")
given = parser.parse_args()

model = xtalk.load_model(given.model)
kept = {}
for name, penalties in {"plain": {}, "sparse": {"keep_one": 2.0, "full_sum": 2.0}}.items():
    cc = xtalk.train(
        model,
        given.text,
        hookpoints=[given.hookpoint],
        d_sae=given.latents,
        k=16,
        steps=given.steps,
        penalties=penalties,
        seed=0,
    )
    cc.save(f"crosscoder-{name}")
    kept[name] = xtalk.fidelity(model, cc, given.text, tokens=2048)

print("crosscoder  all features  one per neuron")
for name, fidelity in kept.items():
    print(f"{name:10}  {fidelity['full'].value:12.2f}  {fidelity['keep_1'].value:14.2f}")

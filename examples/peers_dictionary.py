"""A dictionary that another tool wrote: what it is, which of its features interact, and its way back."""

import argparse

import xtalk
from xtalk.crosscoder.hub import folder_of
from xtalk.crosscoder.inspection import described, inspected

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("dictionary", help="a folder, or a hub name: OWNER/NAME[:FOLDER][@REVISION]")
parser.add_argument("--model", default="embedded", help="a folder or a hub name")
parser.add_argument("--text", default="embedded", help="a file, a folder or the name of a data set")
given = parser.parse_args()

print(described(inspected(folder_of(given.dictionary))))
model, cc = xtalk.load_model(given.model), xtalk.Crosscoder.load(given.dictionary)
for row in xtalk.pair_interactions(model, cc, given.text, tokens=4096).top(10):
    print(f"{row['i']:6} {row['j']:6}  {row['interaction']:.4f} +- {row['standard_error']:.4f}")
print(xtalk.fidelity(model, cc, given.text, tokens=2048))

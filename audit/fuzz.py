"""Feed the checker what atheris comes up with: no crash, and nothing false is accepted.

    python -m audit.fuzz --seconds 300 [--seed 1]

Needs the package atheris, which there is for Linux. A third of the inputs are bytes for the two parsers; the
others change a certificate, a specification or a container that is good, in up to three places. Exit code 0:
nothing was found.
"""

import argparse
import contextlib
import hashlib
import importlib
import json
import sys
from collections.abc import Callable, Sequence
from math import floor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "packages" / "xtalk-check" / "src"), str(ROOT / "tests")]
Json = dict[str, Any]
WORK = 300_000  # units, half a second; what would take longer is refused, and nothing is learned from waiting
LONGEST = 60  # seconds for one input, after which atheris calls it a hang
KEPT = ROOT / "build" / "fuzz"  # inputs that fail or are slow


def cases(reference: Any) -> list[tuple[Json, Json, bytes, int]]:
    """Good certificates of every theorem and form: certificate, specification, container, what is true.

    What is true is the largest number of inputs that may be claimed, or the least loss.
    """
    product, finite, attention, language = (
        reference(name) for name in ("product_space", "finite_data", "attention_space", "language_tail")
    )
    weights = product.container(product.solver(4))
    made = [
        (
            product.certificate(weights, "T3", 64, rest=product.codebook(range(4))),
            product.spec(),
            weights,
            64,
        ),
        (product.certificate(weights, "brute_force", 64), product.spec("brute_force"), weights, 64),
    ]
    for task in (
        {"arithmetic": "float32", "residual": True},
        {"activation": "gelu"},
        {"name": "majority", "activation": "gelu_tanh"},
        {"name": "modular_addition"},
        {"name": "lookup", "answers": 2, "classes": [0, 0, 0, 1, 1, 0, 1, 0], "residual": True},
    ):
        wanted = product.spec(**task)
        asked, tokens = wanted["task"], len(wanted["task"]["classes"])
        network = product.random_network(3, tokens, 2, 3, asked["answers"])
        right, total = product.count_right(network, asked)
        columns = [token // 2 for token in range(tokens)] if asked["name"] == "max" else None
        coarse = product.codebook(range(tokens // 2) if columns else [0] * tokens, columns)
        each = product.codebook(asked["classes"] if asked["name"] != "lookup" else range(tokens))
        rest = each if asked["name"] == "modular_addition" else coarse
        weights = product.container(network)
        given = product.certificate(weights, "T3", 0, total, anchor=each, rest=rest)
        made.append((given, wanted, weights, right))
    heads = product.container(attention.attention_solver(4))
    for arithmetic in ("real", "float32"):
        wanted = attention.attention_spec(arithmetic=arithmetic)
        made.append((attention.attention_certificate(heads, 64), wanted, heads, 64))
    placing = product.container(attention.positions_solver(4, 3))
    for arithmetic in ("real", "float32"):
        wanted = attention.positions_spec(arithmetic=arithmetic)
        made.append((attention.positions_certificate(placing, 64), wanted, placing, 64))
    tensors, labels = finite.random_problem(3), [0, 1, 2, 1, 0]
    found = [finite.logits(tensors, t, "gelu", True) for t in range(5)]
    right = sum(
        all(row[label] > other for c, other in enumerate(row) if c != label)
        for row, label in zip(found, labels, strict=True)
    )
    explained = finite.random_advice(3)
    forms: list[Json] = [
        {"form": "exact"},
        explained | {"form": "tables", "steps": [1, 7, 64, 300]},
        {"form": "charts", "bits": 8, "charts": [[0, 900, 0, 0], [1, 900, 9, -9]], "codes": [0, 1, 0, 1, 0]},
    ]
    spec = finite.finite_spec(tensors, labels, arithmetic="float32")
    for form in forms:
        given = finite.finite_certificate(tensors, 0, 5, **form)
        made.append((given, spec, product.container(tensors), right))
    (tail, features), targets = language.explained_tail(3), [0, 5, 2, 3, 5]
    loss = sum(language.loss(tail, t, target) for t, target in enumerate(targets)) / len(targets)
    least = floor(loss * 1e6 - 1e-3)  # micronats; the loops that found it work in float64
    for advice in (features, {"form": "exact"}):
        given = language.language_certificate(tail, 1 << 50, len(targets), **advice)
        made.append((given, language.language_spec(tail, targets), product.container(tail), least))
    return made


def is_true(claim: Json, right: int) -> bool:
    """Whether a claim about one of the cases is true."""
    return claim["micronats"] >= right if "micronats" in claim else claim["certified"] <= right


def places(value: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in items for place in ((*prefix, key), *places(inner, (*prefix, key)))]


def drawn(provider: Any, depth: int = 0) -> Any:
    """A JSON value of the fuzzer's choice."""
    kind = provider.ConsumeIntInRange(0, 7 if depth < 3 else 4)
    if kind == 0:
        return provider.ConsumeIntInRange(-3, 70)
    if kind == 1:
        return provider.ConsumeInt(8) * 10 ** provider.ConsumeIntInRange(0, 30)
    if kind == 2:
        return provider.PickValueInList(
            [None, True, False, "", "T1", "T3", "max", "lowest", "float32", "gelu_tanh"]
        )
    if kind == 3:
        return provider.ConsumeUnicode(8)
    if kind == 4:
        return provider.ConsumeFloat()
    if kind == 5:
        return {provider.ConsumeUnicode(4): drawn(provider, depth + 1)}
    return [drawn(provider, depth + 1) for _ in range(provider.ConsumeIntInRange(0, 6))]


def changed(provider: Any, good: Json) -> Json:
    """A copy with up to three values replaced, removed or repeated."""
    copy = json.loads(json.dumps(good))
    for _ in range(provider.ConsumeIntInRange(1, 3)):
        found = places(copy)
        if not found:
            return copy
        *inner, last = provider.PickValueInList(found)
        target = copy
        for key in inner:
            target = target[key]
        how = provider.ConsumeIntInRange(0, 4)
        if how == 0:
            del target[last]
        elif how == 1 and isinstance(target, list):
            target.append(target[last])
        else:
            target[last] = drawn(provider)
    return copy


def one_input(atheris: Any) -> Callable[[bytes], None]:
    """What is done with each input of the fuzzer; the checker is imported instrumented."""
    with atheris.instrument_imports(include=["xtalk_check"]):
        import xtalk_check
        from xtalk_check.errors import NotACertificate, Rejected
        from xtalk_check.reading import parse, parse_weights
        from xtalk_check.work import Budget
    budget = Budget(work=WORK)
    known = cases(lambda name: importlib.import_module(f"reference.{name}"))

    def verdict_on(certificate: bytes, specification: bytes, weights: bytes) -> xtalk_check.Verdict:
        verdict = xtalk_check.check(certificate, specification, weights, budget)
        assert verdict.exit_code == 0 or verdict.reason
        return verdict

    def one(data: bytes) -> None:
        provider = atheris.FuzzedDataProvider(data)
        which = provider.ConsumeIntInRange(0, 5)
        given, wanted, weights, right = provider.PickValueInList(known)
        if which < 2:
            content = provider.ConsumeBytes(1 << 12)
            with contextlib.suppress(Rejected, NotACertificate):
                parse_weights(content) if which else parse(content, "file")
            return
        certificate, specification = (json.dumps(part).encode() for part in (given, wanted))
        if which == 2:
            at = provider.ConsumeIntInRange(0, len(weights) - 1)
            noise = provider.ConsumeBytes(8)
            noisy = weights[:at] + noise + weights[at + len(noise) :]
            verdict = verdict_on(certificate, specification, noisy)
            assert verdict.verdict != "accepted" or noisy == weights
            if noisy != weights:  # and by its own name, for what is read of any weights
                named = given | {"weights": hashlib.sha256(noisy).hexdigest()}
                verdict_on(json.dumps(named).encode(), json.dumps(wanted | {"weights": None}).encode(), noisy)
            return
        if which == 3:
            verdict_on(certificate, json.dumps(changed(provider, wanted)).encode(), weights)
            return
        verdict = verdict_on(json.dumps(changed(provider, given)).encode(), specification, weights)
        claim: Any = verdict.claim
        assert verdict.exit_code or is_true(claim, right), verdict

    return one


def main(argv: Sequence[str] | None = None) -> int:
    """Fuzz for a while; atheris ends the process, with another code than 0 where something is found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    try:
        atheris: Any = importlib.import_module("atheris")
    except ImportError:
        print("atheris is not installed; expected it beside python-flint: pip install atheris python-flint")
        return 2
    KEPT.mkdir(parents=True, exist_ok=True)
    flags = [f"-max_total_time={options.seconds}", f"-seed={options.seed}", f"-timeout={LONGEST}"]
    flags += ["-max_len=4096", "-len_control=0", f"-artifact_prefix={KEPT}/"]
    atheris.Setup([sys.argv[0], *flags], one_input(atheris))
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Mutants of src/xtalk_check/t1_language.py, for audit/mutants.py."""

LEMMA = "bounds_on_norms_are_those_of_the_lemma"
TABLE = "length_of_a_table_is_that_of_the_formulas"
MOVED = "a_norm_moves_no_further_than_it_can"
REACHED = "logits_reach_as_far_as_the_unit_moves_them"
WORST = "cross_entropies_are_as_large_as_moved_logits_make_them"
TAIL = "claims_and_data_are_those_of_the_specification_of_the_tail"
PLAIN = "exact_losses_are_the_tails"
EXPLAINED = "features_that_explain_all_are_exact"
CROSSTALK = "crosstalk_is_charged_what_it_can_cost"
KNOTS = "knots_are_charged_what_they_can_cost"
GAINS = "knots_are_charged_by_gain_and_neuron"
ROUNDED = "rounding_is_charged_by_gain_and_neuron"
T1_LANGUAGE = [
    ("work.spend(hidden * (3 * size + 1))", "", TABLE),
    ("        self.work.spend(len(neurons))\n", "", TABLE),
    ("self.work.spend(2 * len(neurons))", "", TABLE),
    ("proven = -floor(-sum", "proven = floor(sum", TAIL),
    ("if claimed < proven:", "if claimed < proven - 1:", TAIL),
    ("len(losses)) != len(losses):", "len(losses)) > len(losses):", TAIL),
    ("* MILLION / len(losses)", "* MILLION / (len(losses) + 1)", TAIL),
    ("arb(task.integer", "0 * arb(task.integer", PLAIN),
    ("[a - mean for a in row]", "list(row)", PLAIN),
    ("/ len(row) + self.epsilon]", "+ self.epsilon]", PLAIN),
    ("a / scale * w + b for", "a / scale * w for", PLAIN),
    ("a / scale * w + b for", "a / scale + b for", PLAIN),
    ("(scale - error / arb(len(self.weight)).sqrt()).max(self.epsilon.sqrt())", "scale", MOVED),
    ("scale - error / arb", "scale + error / arb", MOVED),
    (".max(self.epsilon.sqrt())", ".max(1 + self.epsilon.sqrt())", MOVED),
    ("error / arb(len(self.weight)).sqrt()", "error / arb(len(self.weight))", LEMMA),
    (".max(self.epsilon.sqrt())", ".max(self.epsilon)", LEMMA),
    ("return error / (scale * least).sqrt()", "return error * 0", MOVED),
    ("moves.append(self.norm_out.moved(scale, error))", "moves.append(arb(0))", "errors_reach_the_loss"),
    (
        "targets = self.targets[t + 1 - len(chunk) : t + 1]",
        "targets = self.targets[: len(chunk)]",
        "losses_in_chunks_are_those_of_each_token",
    ),
    (" or t + 1 == len(self.x):", ":", PLAIN),
    ("u * w for u, w in zip(column", "u for u, w in zip(column", REACHED),
    (
        "directions.append([a - mean for a in weighted])",
        "directions.append([mean for a in weighted])",
        REACHED,
    ),
    ("[a - c for a, c in zip(row, common", "[0 * a for a, c in zip(row, common", REACHED),
    ("own = reach[target] * move - logits[target]", "own = -logits[target]", WORST),
    ("logit + width * move + own for", "logit + own for", WORST),
    ("sum(others, arb(1))", "sum(others, arb(0))", WORST),
    ("rises[:target] + rises[target + 1 :]", "rises[:target]", WORST),
    ("[h + b for h, b in zip(row, tail.b_in", "[h for h, b in zip(row, tail.b_in", PLAIN),
    ("yield [a + b + c for a, b, c in zip(x, out", "yield [b + c for a, b, c in zip(x, out", PLAIN),
    ("yield [a + b + c for a, b, c in zip(x, out", "yield [a + b for a, b, c in zip(x, out", PLAIN),
    ("zip(tail.x[start:], rows", "zip(tail.x, rows", "losses_in_chunks_are_those_of_each_token"),
    ("if not all(low < high for row in knots", "if not all(low <= high for row in knots", "knots_increase"),
    ("[w - gains[k] * r for w, r", "[0 * w for w, r", CROSSTALK),
    ("[w - gains[k] * r for w, r", "[w + gains[k] * r for w, r", EXPLAINED),
    (
        "crosstalk += sizes[k] * magnitude",
        "crosstalk = sizes[k] * magnitude",
        "crosstalk_of_several_neurons_adds_up",
    ),
    ("crosstalk += sizes[k] * magnitude", "crosstalk += magnitude", CROSSTALK),
    ("crosstalk=steepest * crosstalk", "crosstalk=crosstalk", CROSSTALK),
    ("errors = [features.crosstalk * magnitude(n) for", "errors = [features.crosstalk for", CROSSTALK),
    ("[unit * entry for", "[entry for", EXPLAINED),
    (".slope.abs_upper()", ".slope.mid()", CROSSTALK),
    ("if not 0 <= place < len(knots) - 1:", "if not place < len(knots) - 1:", "readings_lie_between_knots"),
    ("if not 0 <= place < len(knots) - 1:", "if not 0 <= place:", "readings_lie_between_knots"),
    ("arb(reading - knots[place]) /", "arb(knots[place + 1] - reading) /", "chords_lean_to_the_nearer_knot"),
    ("arb_mat([[1 - share, share]])", "arb_mat([[share, 1 - share]])", "chords_lean_to_the_nearer_knot"),
    ("bend * share * (1 - share)", "arb(0)", KNOTS),
    ("bend * share * (1 - share)", "bend * share * (1 - share) / 2", KNOTS),
    ("bend * share * (1 - share)", "bend * share**2", "chords_lean_to_the_nearer_knot"),
    ("self.tail.b_in[k] + features.gains[k] * reading for", "features.gains[k] * reading for", EXPLAINED),
    ("self._inputs(place + 1), strict", "self._inputs(place - 1), strict", "bends_are_those_between_knots"),
    ("self._inputs(place + 1), strict", "self._inputs(1), strict", "bends_are_those_between_knots"),
    ('task.integers("targets", 0,', 'task.integers("targets", -1,', TAIL),
    (
        "[a.union(b) for a, b in zip(self._inputs(place),",
        "[b for a, b in zip(self._inputs(place),",
        "bends_are_those_between_knots",
    ),
    ("features.sizes[k] * features.gains[k] ** 2 * bend", "features.gains[k] ** 2 * bend", KNOTS),
    (
        "features.sizes[k] * features.gains[k] ** 2 * bend",
        "features.sizes[k] * features.gains[k] * bend",
        GAINS,
    ),
    ("features.gains[k] ** 2 * bend for", "features.gains[neurons[0]] ** 2 * bend for", GAINS),
    ("(features.unit * (high - low)) ** 2 / 2", "(features.unit * (high - low)) ** 2 / 4", KNOTS),
    (
        "zip(x, tail.b_out, strict=True)]]) for x in tail.x]",
        "zip(x, x, strict=True)]]) for x in tail.x]",
        EXPLAINED,
    ),
    ("features.sizes[k] * abs(features.gains[k]) for", "features.sizes[k] * features.gains[k] for", ROUNDED),
    ("features.sizes[k] * abs(features.gains[k]) for", "features.sizes[k] for", ROUNDED),
    ("slope = features.steepest * sum", "slope = sum", ROUNDED),
    ("error + slope * abs(row[i] - features.unit * reading)", "error", ROUNDED),
    ("errors[t] += error +", "errors[t] += 0 * error +", KNOTS),
    ("ball).abs_upper(), between", "ball).upper(), between", "bends_may_be_negative"),
    ("streams[t] += effect", "streams[t] = effect", EXPLAINED),
]

"""Mutants of what checks theorem T1, each with its test; see mutants.py."""

BESIDE = "residuals_beside_features_are_charged_what_they_can_cost"
LABELLED = "claims_and_data_are_those_of_the_specification"
ROUNDED = "rounding_of_data_is_that_of_the_formula"
PAIRS = "pairs_are_charged_what_they_can_cost"
RESIDUALS = "residuals_are_charged_what_they_can_cost"
POINT = "margins_at_a_charts_point_are_exact"
BOUNDED = "margins_of_charts_are_bounded_below"
COST = "bends_are_charged_what_they_can_cost"
BENDS = "bends_hold_every_quotient_and_are_tight"
CHARTED = "inputs_outside_a_chart_are_not_certified"
EDGE_OF_CHART = "an_input_on_the_edge_of_a_chart_is_not_inside"
SIZED = "charges_are_those_of_any_size_and_sign"
FORMULAS = "length_is_that_of_the_formulas"

T1 = [
    ("margin > needed for", "margin > 0 for", "data_in_float32_asks_for_a_margin"),
    ("work.spend(len(codes[t]) * size)", "", FORMULAS),
    ("work.spend(len(images) * len(w_in))", "", FORMULAS),
    ("work.spend(place + 4 + 2 * len(logit))", "", FORMULAS),
    ("        work.spend(len(base))\n", "", FORMULAS),
    ("alone = [root(pairs[i][i])", "alone = [(pairs[i][i])", SIZED),
    ("abs(unit * other) * pairs", "(unit * other) * pairs", SIZED),
    ("alone[i] * size)", "size)", SIZED),
    ("pairs[i][i] * share * (1 - share)", "share * (1 - share)", SIZED),
    ("share * (1 - share)", "share * share", SIZED),
    ("share * (c - b)", "share * c", SIZED),
    (
        "sum(margin > needed for margin in least)",
        "sum(margin >= needed for margin in least)",
        "the_label_must_be_strictly_ahead",
    ),
    ("if wrong != label)", "if wrong == label)", LABELLED),
    ("e - scale * f for", "e + scale * f for", "full_codes_of_one_feature_are_exact"),
    ("sizes = [root(dot(row, image))", "sizes = [arb(0)", "residuals_are_charged_what_they_can_cost"),
    ("slopes = work.evaluate(network.phi.slope", "slopes = work.evaluate(network.phi.value", RESIDUALS),
    ("crosstalk = size**2 / 2\n", "crosstalk = size**2 / 4\n", "residuals_are_charged_what_they_can_cost"),
    ("crosstalk = size**2 / 2\n", "crosstalk = size**2\n", "residuals_are_charged_what_they_can_cost"),
    (", alone[i] * size)", ", arb(0))", BESIDE),
    ("abs(unit * other) * pairs[i][j] for", "abs(unit * other) * pairs[i][j] / 2 for", PAIRS),
    ("in code[:place])", "in code[place:])", PAIRS),
    (
        "in code[:place])",
        "in code[max(place - 1, 0) : place])",
        "many_pairs_and_neurons_are_charged_together",
    ),
    ("crosstalk += abs(unit * strength) * others", "crosstalk -= abs(unit * strength) * others", PAIRS),
    ("* share * (1 - share) *", "* 0 *", "interpolation_is_charged_what_it_can_cost"),
    ("(unit * steps[i]) ** 2 / 2", "(unit * steps[i]) ** 2 / 4", "interpolation_is_charged_what_it_can_cost"),
    ("a + b + share * (c - b)", "a + c", "interpolation_is_charged_what_it_can_cost"),
    ("network.labels[t], bend * crosstalk", "network.labels[t], crosstalk * 0", PAIRS),
    ("value - rest for value, rest", "value for value, rest", "full_codes_of_one_feature_are_exact"),
    ("bend, unit = curvature(network.phi, EVERYWHERE).abs_upper()", "bend, unit = arb(0.4)", PAIRS),
    ("logits[label] - other - charge", "logits[label] - other + charge", PAIRS),
]
FINITE = [
    ("            residual=residual,", "            residual=False,", ROUNDED),
    ("x = rounding.largest(self.x), error", "x = rounding.largest(self.x), error * 0", ROUNDED),
    ("x = rounding.largest(self.x), error", "x = self.x, error", ROUNDED),
    ('"embed", "b_embed", 1', '"embed", "b_embed", -2', ROUNDED),
    (
        'task.integers("labels", 0, unembed.ncols() - 1, total)',
        'task.integers("labels", 0, unembed.ncols(), total)',
        LABELLED,
    ),
    ('task.integers("labels", 0,', 'task.integers("labels", -1,', LABELLED),
    ("path=unembed if residual else unembed * 0", "path=unembed", POINT),
    ("work.product(x - arb_mat([rows(self.x)[0]]), self.path)", "work.product(x, self.path)", POINT),
    ("(x if residual else x * 0)", "(x if not residual else x * 0)", "exact_margins_are_the_networks"),
    ("top - low)", "top)", "margins_are_bounded_below_whatever_the_advice"),
    ("self.w_in) + self.b_in).entries()", "self.w_in)).entries()", POINT),
    ("scaled(rows(self.w_in), slopes, work)", "self.w_in", BOUNDED),
    ("(self.path + work.product", "(work.product", BOUNDED),
    ("resting[label] - other + move for", "move for", POINT),
    ("[lead(row, label) for", "[row for", POINT),
    ("[a - b for a, b in zip(linear[label]", "[b - a for a, b in zip(linear[label]", BOUNDED),
    ("if unembed.ncols() < 2:", "if unembed.ncols() < 1:", "a_single_class_is_refused"),
]
CHARTS = [
    ("(1 + (a < b)) * v * w", "v * w", "pairs_of_coordinates_are_tabled"),
    ("label == chart.label and dot", "dot", CHARTED),
    (" and dot(e, e) <= chart.radius**2", "", CHARTED),
    ("<= chart.radius**2", "<= 2 * chart.radius**2", CHARTED),
    ("dot(e, e) <= chart.radius**2", "not dot(e, e) > chart.radius**2", EDGE_OF_CHART),
    ("e = [a - b for", "e = [b - a for", BOUNDED),
    ("or row[1] < 0:", "or row[1] > 9:", "negative_radii_are_refused"),
    ("radius * magnitude(column), work", "radius, work", "bends_are_those_that_a_neuron_reads"),
    (
        "not 0 <= label < network.out.ncols()",
        "not label < network.out.ncols()",
        "bad_labels_of_charts_are_refused",
    ),
    (
        "radius * magnitude(column)",
        "0 * magnitude(column)",
        "bends_are_those_of_the_whole_ball",
    ),
    (
        "(ahead[answer] * ball / 2).lower()",
        "(ahead[answer] * ball / 2).upper()",
        "bends_are_those_of_the_whole_ball",
    ),
    ("(ahead[answer] * ball / 2).lower()", "(ahead[answer] * ball).lower()", COST),
    ("(ahead[answer] * ball / 2).lower()", "(ahead[answer] * ball / 4).lower()", COST),
    ("2 * (LAYERS - layer) + 1", "2 * (LAYERS - layer) + 2", BENDS),
    ("/ LAYERS**2", "/ LAYERS", BENDS),
    ("* reach * layer / LAYERS)", "* reach * (layer - 1) / LAYERS)", BENDS),
    ("arb(0, 1) * reach", "arb(0.5, 0.5) * reach", BENDS),
    ("work.spend(evaluations=LAYERS)\n", "", "length_of_charts_is_counted"),
    ("work.spend(len(pairs) + size)", "work.spend(size)", "length_of_charts_is_counted"),
]
DATA = [
    (".hexdigest() != digest:", ".hexdigest() == digest * 2:", LABELLED),
    ("return root(dot(row, row))", "return dot(row, row)", "crosstalk_of_several_neurons_adds_up"),
    ("return square.upper().max(arb(0)).sqrt()", "return square.max(arb(0))", RESIDUALS),
    ("return square.upper().max", "return square.mid().max", "roots_are_above_the_ball"),
    ("return square.upper().max", "return square.lower().max", "roots_are_above_the_ball"),
    (".upper().max(arb(0)).sqrt()", ".upper().sqrt()", "roots_are_above_the_ball"),
    ("if bend is None:", "if bend is None and over > 0:", "kinks_are_refused"),
]

"""Mutants of what checks theorems about data and regions, each with its test; see mutants.py."""

CLOPPER = "population_accuracy_is_clopper_and_pearsons"
BESIDE = "residuals_beside_features_are_charged_what_they_can_cost"
DATA = "claims_and_data_are_those_of_the_specification"
DOMINANT = "what_is_not_dominant_is_charged_what_it_can_cost"
PAIRS = "pairs_are_charged_what_they_can_cost"
RESIDUALS = "residuals_are_charged_what_they_can_cost"
HUNTED = "hill_climbing_inside_regions_finds_no_counterexample"
INSIDE = "inputs_count_where_they_lie_in_a_region_of_their_label"
CHARGED = "tangents_and_curvature_are_charged_what_they_can_cost"
POINT = "a_point_is_bounded_exactly"
BOUNDED = "margins_of_charts_are_bounded_below"
COST = "bends_are_charged_what_they_can_cost"
BENDS = "bends_hold_every_quotient_and_are_tight"
CHARTED = "inputs_outside_a_chart_are_not_certified"
EDGE_OF_CHART = "an_input_on_the_edge_of_a_chart_is_not_inside"
EDGE_OF_REGION = "an_input_on_the_edge_of_a_region_is_not_inside"
REACHED = "curvature_is_that_of_the_whole_reach"
SIZED = "charges_are_those_of_any_size_and_sign"
FORMULAS = "length_is_that_of_the_formulas"
RAMP = "ramp_losses_are_those_of_the_margins"
FORMULA = "mean_bounds_are_those_of_the_formula"

T2 = [
    ("work.spend(len(x) * (len(strengths) + 1))", "", "length_of_codes_is_counted"),
    ("if not least[number] > 0:", "if not least[number] > -9:", INSIDE),
    ("if not least[number] > 0:", "if not least[number] >= 0:", "a_tie_makes_no_region"),
    ("if not least[number] > 0:", "if least[number] <= 0:", "a_tie_makes_no_region"),
    (
        "moved = regions[code[0]], [a - b for",
        "moved = regions[code[0]], [a for",
        "regions_are_around_the_base",
    ),
    ("+ [arb(-1)] * (len(codes) - len(proven))", "", "the_population_is_that_of_all_inputs"),
    ("[arb(-1)] * (len(codes)", "[arb(1)] * (len(codes)", "the_populations_loss_is_that_of_the_regions"),
    (
        "claim, len(proven), margins, work)",
        "claim, len(codes), margins, work)",
        "the_population_is_that_of_all_inputs",
    ),
    ("proven.append(least[code[0]])", "proven.append(arb(9))", "the_populations_loss_is_that_of_the_regions"),
    ("dot(x, x) <= self.radius**2", "not dot(x, x) > self.radius**2", EDGE_OF_REGION),
    ("if wrong != region.label)", "if wrong == region.label)", INSIDE),
    ("region.label == label and region.holds", "region.holds", INSIDE),
    (" and region.holds(moved, code[1:], features, work)", "", INSIDE),
    ("if not 0 <= code[0] < len(regions):", "if not code[0] < len(regions):", "bad_codes_are_refused"),
    ("if len(codes) != len(network.labels):", "if len(codes) > 99:", "bad_codes_are_refused"),
    ("return in_box and dot", "return dot", INSIDE),
    ("<= self.radius**2", "<= 2 * self.radius**2 + 1", INSIDE),
    ("x = [a - f * (self.unit * strength)", "x = [a + f * (self.unit * strength)", INSIDE),
    ("(low + high) / 2", "low", HUNTED),
    ("(high - low) / 2", "(high - low) / 4", HUNTED),
    ("reach = [self.radius * magnitude(row) for", "reach = [0 * norm(row) for", CHARGED),
    ("r + abs(move) for", "r for", CHARGED),
    ("self.radius * magnitude(row) for row", "self.radius for row", REACHED),
    ("centre + arb(0, 1) * width) * width**2", "centre + arb(0, 1) * width).abs_upper() * width**2", REACHED),
    (
        "curvature(network.phi, centre + arb(0, 1) * width)",
        "curvature(network.phi, arb(0, 1) * width)",
        REACHED,
    ),
    ("centre + arb(0, 1) * width)", "centre + arb(0, 1))", REACHED),
    ("centre + arb(0, 1) * width)", "centre + arb(-1, 1) * width)", REACHED),
    ("low <= s <= high for s", "low <= s for s", INSIDE),
    ("low <= s <= high for s", "s <= high for s", INSIDE),
    ("arb(0, 1) * width) * width**2 / 2).union(arb(0))", "arb(0, 1) * width) * width**2 / 4)", CHARGED),
    (" * width**2 / 2).union(arb(0))", " * width**2 / 2)", HUNTED),
    (
        "curvature(network.phi, centre + arb(0, 1) * width)",
        "curvature(network.phi, centre)",
        "bends_are_those_within_reach",
    ),
    ("margin - self._swing", "margin + 0 * self._swing", HUNTED),
    ("return self.radius * magnitude(direction) +", "return", HUNTED),
    ("(abs(dot(direction, span)) for span in spans)", "()", HUNTED),
    ("or row[1] < 0\n", "\n", "regions_of_negative_radius_are_refused"),
    ("all(low <= high for low, high in ends)", "all(True for low, high in ends)", "empty_boxes_are_refused"),
    ("(len(spans) + 1) * len(direction)", "0", "length_of_a_region_is_counted"),
]
T1 = [
    ("work.spend(len(codes[t]) * size)", "", FORMULAS),
    ("work.spend(len(images) * len(w_in))", "", FORMULAS),
    ("work.spend(place + 4 + 2 * len(logit))", "", FORMULAS),
    ("        work.spend(len(base))\n", "", FORMULAS),
    ("work.spend(hidden * (len(code) + 2))", "", FORMULAS),
    ("alone = [root(pairs[i][i])", "alone = [(pairs[i][i])", SIZED),
    ("abs(unit * other) * pairs", "(unit * other) * pairs", SIZED),
    ("alone[i] * size)", "size)", SIZED),
    ("pairs[i][i] * share * (1 - share)", "share * (1 - share)", SIZED),
    ("share * (1 - share)", "share * share", SIZED),
    ("share * (c - b)", "share * c", SIZED),
    ("s * p * p for s, p", "p * p for s, p", SIZED),
    ("by_size or [[]] * hidden", "by_size", SIZED),
    (
        "sum(margin > 0 for margin in least)",
        "sum(margin >= 0 for margin in least)",
        "the_label_must_be_strictly_ahead",
    ),
    ("if wrong != label)", "if wrong == label)", DATA),
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
    ("rests.append([abs(sum(p[kept:]", "rests.append([0 * abs(sum(p[kept:]", DOMINANT),
    (
        "(spanned * size + size**2 / 2)",
        "(size**2 / 2)",
        BESIDE,
    ),
    ("margin - slope * loss", "margin + slope * loss", DOMINANT),
    (".slope.abs_upper()", ".slope.mid()", DOMINANT),
    ("bend, unit = curvature(network.phi, EVERYWHERE).abs_upper()", "bend, unit = arb(0.4)", PAIRS),
    ("bend = curvature(network.phi, EVERYWHERE).abs_upper()\n", "bend = arb(0.4)\n", BESIDE),
    ("logits[label] - other - charge", "logits[label] - other + charge", PAIRS),
]
FINITE = [
    (
        'task.integers("labels", 0, unembed.ncols() - 1, total)',
        'task.integers("labels", 0, unembed.ncols(), total)',
        DATA,
    ),
    ('task.integers("labels", 0,', 'task.integers("labels", -1,', DATA),
    ("path=unembed if residual else unembed * 0", "path=unembed", POINT),
    ("work.product(x - arb_mat([rows(self.x)[0]]), self.path)", "work.product(x, self.path)", POINT),
    ("(x if residual else x * 0)", "(x if not residual else x * 0)", "exact_margins_are_the_networks"),
    ("top - low)", "top)", "margins_are_bounded_below_whatever_the_advice"),
    ("self.w_in) + self.b_in).entries()", "self.w_in)).entries()", POINT),
    ("scaled(rows(self.w_in), slopes, work)", "self.w_in", HUNTED),
    ("(self.path + work.product", "(work.product", HUNTED),
    ("resting[label] - other + move for", "move for", POINT),
    ("[row[label] - weight for", "[weight - row[label] for", POINT),
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
POPULATION = [
    ("work.spend(3 * (total - right + 1))", "", FORMULAS),
    ("work.spend(2 * total)", "", FORMULAS),
    (
        "not _tail(arb(accuracy) / MILLION, right, total) <= arb",
        "_tail(arb(accuracy) / MILLION, right, total) > arb",
        "what_balls_cannot_decide_is_not_proven",
    ),
    ('task.integer("risk", 1,', 'task.integer("risk", 0,', "risks_are_chances"),
    ("MILLION - 1)", "MILLION)", "risks_are_chances"),
    ("(1 - m / ramp).max(arb(0)) if m > 0 else arb(1)", "(1 - m / ramp).max(arb(0))", RAMP),
    ("(1 - m / ramp).max(arb(0))", "(1 - m / ramp)", RAMP),
    ("/ 1000\n", "/ 1001\n", RAMP),
    ("-floor(-bound * MILLION, 0)", "floor(bound * MILLION, 0)", RAMP),
    ("if loss < proven:", "if loss < proven - 1:", RAMP),
    ("min(MILLION, -floor", "min(2 * MILLION, -floor", "a_loss_of_one_is_always_true"),
    ('if not task.null("ramp"):', 'if task.null("ramp") is None:', "a_loss_needs_a_risk"),
    ("arb(SLOPES * MILLION) / risk", "arb(MILLION) / risk", FORMULA),
    ("(-(1 - slope).log() - slope) * squares", "slope * slope / 2 * squares", FORMULA),
    ("(total + ((", "(((", FORMULA),
    (" + doubt) / slope", ") / slope", FORMULA),
    ("range(total, right, -1)", "range(total, right + 1, -1)", CLOPPER),
    ("odds * k / (total - k + 1)", "odds", CLOPPER),
    ("<= arb(risk) / MILLION:", "<= arb(2 * risk) / MILLION:", CLOPPER),
    ("(1 - accuracy) / accuracy", "1 / accuracy", CLOPPER),
]

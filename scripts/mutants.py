"""Change one line of the checker at a time, and see the test that is named beside it fail.

`python scripts/mutants.py` applies each mutant to a copy of src/xtalk_check, imports the copy, and runs the
named test against it; the same tests must pass on the copy as it is. Exit code 1 if a mutant survives.
"""

import contextlib
import importlib
import importlib.util
import io
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from hypothesis import Phase, settings
from mutants_language import T1_LANGUAGE

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "xtalk_check"
CLOPPER = "population_accuracy_is_clopper_and_pearsons"
DENOMINATOR = "margins_times_the_denominator_are_bounded_below"
OWN = "tokens_of_their_own_prove_all_that_is_true"
SUPPORTED = "only_tasks_of_two_parts_are_supported"
ALIKE = "columns_of_tokens_alike_lose_nothing"
BESIDE = "residuals_beside_features_are_charged_what_they_can_cost"
DATA = "claims_and_data_are_those_of_the_specification"
DOMINANT = "what_is_not_dominant_is_charged_what_it_can_cost"
PAIRS = "pairs_are_charged_what_they_can_cost"
RESIDUALS = "residuals_are_charged_what_they_can_cost"
SECONDS = 30  # for one test; a mutant that runs for longer counts as caught


ACTIVATIONS = [
    ("return x.max(arb(0))", "return x", "values_and_slopes"),
    ("arb(0) if x < 0 else arb(0).union(arb(1))", "arb(0)", "relu_at_its_kink"),
    ("arb(0) if x > 0 or x < 0 else None", "arb(0)", "relu_at_its_kink"),
    (".erf() + 1) * arb(0.5)", ".erf() + 1) * arb(0.25)", "values_and_slopes"),
    ("arb(44715) / 1000000", "arb(44714) / 1000000", "values_and_slopes"),
    ("((u * -2).exp() + 1)", "((u * 2).exp() + 1)", "values_and_slopes"),
    ("tail + 1])", "tail])", "tails"),
    (
        "[tail, *(_evaluate(bend, CELL) for bend in curvatures), tail]",
        "[tail] * (len(slopes) + 2)",
        "global_constants",
    ),
    (
        "arb(0, arb(1) / (2 * PIECES))",
        "arb(0, arb(1) / (4 * PIECES))",
        "ranges_over_one_piece_reach_its_ends",
    ),
    ("[i * coefficient for i", "[coefficient for i", "global_constants"),
    ("[over_piece[TERMS - 1]]", "[at_centre[TERMS - 1]]", "remainders_hold_over_their_piece"),
    (
        "arb(2 * piece + 1) / (2 * PIECES)",
        "arb(2 * piece + 2) / (2 * PIECES)",
        "ranges_over_one_piece_reach_its_ends",
    ),
    (
        "return int(piece) + REACH * PIECES + 1",
        "return int(piece) + REACH * PIECES",
        "ranges_hold_every_derivative_and_are_tight",
    ),
    (
        "_row(x.lower()), _row(x.upper())",
        "_row(x.mid()), _row(x.mid())",
        "ranges_hold_every_derivative_and_are_tight",
    ),
    ("other = last + 1 - (1 << level)", "other = first", "ranges_hold_every_derivative_and_are_tight"),
    (" and x.rad() <= CELL.rad():", ":", "slopes_of_wide_and_far_balls"),
    ("if abs(x) < REACH and x.rad()", "if x.rad()", "slopes_of_wide_and_far_balls"),
    (
        "(end * PIECES).floor()",
        "((end + REACH) * PIECES - REACH * PIECES).floor()",
        "ranges_beside_the_edge_of_a_piece",
    ),
    ("if piece is None:", "if piece is None and end > 0:", "what_is_not_finite_is_refused"),
]
WORK = [
    ("(ball.lower() * _unit(bits))", "(ball.mid() * _unit(bits))", "floors_are_below_the_ball"),
    ("(ball.lower() * _unit(bits))", "(ball.upper() * _unit(bits))", "floors_are_below_the_ball"),
    (".lower().floor()", ".lower().ceil()", "floors_are_below_the_ball"),
    ("if integer is None:", "if integer is None and ball < 0:", "floors_are_below_the_ball"),
    ("return reduce(arb.union, balls)", "return next(iter(balls))", "hulls_hold_all_balls"),
    ("return reduce(arb.min, balls)", "return next(iter(balls))", "hulls_hold_all_balls"),
    ("return square.upper().max(arb(0)).sqrt()", "return square.max(arb(0))", RESIDUALS),
    ("left.nrows() * left.ncols() * right.ncols()", "right.ncols()", "length_is_counted_where_work_is_done"),
    ("self.evaluations += len(values)", "self.evaluations += 1", "length_is_counted_where_work_is_done"),
]
WINNING = [
    ("else 2 * rounding_error", "else rounding_error", "slack_is_twice_the_error"),
    ('== "real"', '!= "none"', "float32_asks_for_a_margin"),
    ("wrong < answer", "wrong > answer", "ties_lose_or_go_to_the_lowest"),
    ('self.ties == "lose" or ', "", "ties_lose_or_go_to_the_lowest"),
    ("(exact + carried) * _gamma(terms)", "(exact + carried) * 0", "rounding_bound_by_hand"),
    ("return exact, carried + ", "return exact, carried * 0 + ", "rounding_bound_by_hand"),
    ("h_error * slope + ", "", "rounding_bound_by_hand"),
    (" + reached * ACTIVATION_ERROR", "", "rounding_bound_by_hand"),
    ("ACTIVATION_ERROR = arb(2) ** -20", "ACTIVATION_ERROR = arb(2) ** -21", "rounding_bound_by_hand"),
    ("UNIT = arb(2) ** -24", "UNIT = arb(2) ** -25", "rounding_bound_by_hand"),
    ("y_error = y_error + x_error + ", "y_error = y_error + ", "rounding_bound_by_hand"),
    (" + (x + x_error) * _gamma(hidden + 2)", "", "rounding_bound_by_hand"),
    ("* _gamma(n) + _tiny(size)", "* _gamma(n)", "underflow_counts_at_every_stage"),
    ("* ACTIVATION_ERROR + _tiny(hidden)", "* ACTIVATION_ERROR", "underflow_counts_at_every_stage"),
    ("* _gamma(terms) + _tiny(w.ncols())", "* _gamma(terms)", "underflow_counts_at_every_stage"),
    ("if terms >= 1 << 23:", "if terms >= 1 << 25:", "sums_without_a_useful_bound_are_refused"),
    ("x_error = x * _gamma(n)", "x_error = x * _gamma(1)", "rounding_bound_by_hand"),
    ("y = y + x\n", "y = y\n", "rounding_bound_by_hand"),
    (
        "largest = [a.max(abs(network.embed[token, d]))",
        "largest = [a",
        "rounding_is_that_of_the_largest_token",
    ),
    ("if claimed > certified:", "if claimed > certified + 1:", "claims_must_follow"),
    ("if claimed_total != total:", "if claimed_total > total:", "claims_must_follow"),
]
COUNTING = [
    ("s + best >= least", "s + best > least", "counts_on_the_edge"),
    ("needed = least - sum", "needed = least - 1 - sum", "counts_on_the_edge"),
    ("+= tokens\n", "+= 1\n", "counts_on_the_edge"),
    ("for _ in range(slot.copies):", "for _ in range(1):", "counts_on_the_edge"),
    ("range(max(needed, 0), len(ways))", "range(max(needed - 1, 0), len(ways))", "counts_on_the_edge"),
    ("if needed > WIDEST:", "if needed > 2 * WIDEST:", "scores_of_too_wide_a_range_are_refused"),
]
TASKS = [
    ("arrangements * comb(self.n, copies)", "arrangements", "cells_partition_the_space"),
    ("place < (sign * answer, block)", "place <= (sign * answer, block)", "cells_partition_the_space"),
    ("if other != answer)", "if other >= 0)", "cells_partition_the_space"),
    ("range(self.n // 2 + 1 if", "range(self.n // 2 if", "cells_partition_the_space"),
    (
        "for copies in range(self.n // 2 + 1, self.n + 1)",
        "for copies in range(self.n // 2, self.n + 1)",
        "answers_and_totals",
    ),
    ("sum(slot.tokens) ** slot.copies", "sum(slot.tokens)", "cells_partition_the_space"),
    ('-1 if self.name == "min" else 1', "1", "cells_partition_the_space"),
    ("% self.answers\n                yield", "\n                yield", "cells_partition_the_space"),
    (
        "self._columns.setdefault(partition.block(token)",
        "self._columns.setdefault(0",
        "columns_count_only_the_tokens_that_are_allowed",
    ),
    ("factorial(sum(numbers)) // ", "factorial(sum(numbers)) * ", "answers_and_totals"),
    (
        "if of_block.setdefault(pure.block(token), answer) != answer:",
        "if answer < 0:",
        "blocks_of_several_classes_are_refused",
    ),
    ("return classes[1 + tokens[0]]", "return classes[1]", "answers_and_totals"),
    ("2 * copies > self.n", "2 * copies >= self.n", "answers_and_totals"),
    ("max(answer, other) if", "min(answer, other) if", "tokens_of_their_own_prove_all_that_is_true"),
    ("(answer + other) % self.answers", "(answer + other)", "tokens_of_their_own_prove_all_that_is_true"),
    ("for group in groups if group is not own]", "for group in groups]", "cells_partition_the_space"),
]
T3 = [
    (" - winning.slack", "", "float32_asks_for_a_margin"),
    ("+ network.b_logit[right] - network.b_logit[wrong]", "", "margins_are_bounded_below"),
    ("term + logit[right] - logit[wrong] for", "term for", "margins_are_bounded_below"),
    ("(value - here) * weight", "(value - here) * weight * weight", "neurons_lie_between_the_ends"),
    ("[g / weight if weight > 0 else g for", "[g for", "neurons_lie_between_the_ends"),
    ("tangents = [slope * g for", "tangents = [slope * g * 2 for", "neurons_lie_between_the_ends"),
    ("tangents = [slope * g for", "tangents = [-slope * g for", "neurons_lie_between_the_ends"),
    ("g * further / 2", "g * further / 4", "where_phi_bends_both_ways"),
    ("(a - concave * bend)", "a", "where_phi_bends_both_ways"),
    ("(b + concave * bend)", "(b)", "where_phi_bends_both_ways"),
    ("(a - concave * bend)", "(a + concave * bend)", "where_phi_bends_both_ways"),
    ("(b + concave * bend)", "(b - concave * bend)", "where_phi_bends_both_ways"),
    ("chords, tangents, convex\n", "tangents, chords, convex\n", "where_phi_bends_both_ways"),
    ("(-curvature).upper()", "(-curvature).upper() / 2", "where_phi_bends_both_ways"),
    ("curvature.upper().max", "curvature.lower().max", "where_phi_bends_both_ways"),
    (
        "curvature is None or curvature >= 0",
        "curvature is None or curvature.upper() >= 0",
        "where_phi_bends_both_ways",
    ),
    ("phi.ranges(centre + hull([arb(0), *ahead]))", "phi.ranges(centre)", "where_phi_bends_both_ways"),
    ("term + slope * box", "term", "neurons_lie_between_the_ends"),
    ("slope = phi.ranges(reach).slope", "slope = phi.slope(centre)", "neurons_lie_between_the_ends"),
    (" + hull([arb(0), *slot.boxes])", "", "slopes_are_those_within_reach"),
    ("hull([arb(0), *slot.deviations]) + hull", "hull", "slopes_are_those_within_reach"),
    ("*slot.boxes])) * slot.copies", "*slot.boxes]))", "slopes_are_those_within_reach"),
    ("if moves) <= 1:", "if moves) <= 2:", "neurons_lie_between_the_ends"),
    ("total = sum((w * slot.copies for", "total = sum((w for", "neurons_lie_between_the_ends"),
    ("(slot.centre * slot.copies for slot", "(slot.centre for slot", "neurons_lie_between_the_ends"),
    ("slot.copies * smallest(s) for", "slot.copies * s[-1] for", "no_more_is_proven_than_is_true"),
    ("slot.copies * smallest(s) for", "smallest(s) for", "ties_between_sums_of_scores"),
    ("        > 0\n", "        >= 0\n", "ties_between_sums_of_scores"),
    (
        "certified -= cell.fillings - wins",
        "certified = wins",
        "fillings_are_counted_with_scores_rounded_down",
    ),
    (
        "[floor(score, bits) for score",
        "[floor(score, bits) + 1 for score",
        "fillings_are_counted_with_scores_rounded_down",
    ),
    (
        "needed - floor(bound.base, bits)",
        "needed - floor(bound.base, bits) - 1",
        "fillings_are_counted_with_scores_rounded_down",
    ),
    (
        "score + bound.base / positions for",
        "score + bound.base / (2 * positions) for",
        "fillings_are_counted_with_scores_rounded_down",
    ),
    ("map(smallest, zip(*of_slot", "map(max, zip(*of_slot", "fillings_are_counted_with_scores_rounded_down"),
    (
        "bounds.append(Bound(wrong, base, scores))",
        "bounds = [Bound(wrong, base, scores)]",
        "no_more_is_proven_than_is_true",
    ),
]
HUNTED = "hill_climbing_inside_regions_finds_no_counterexample"
INSIDE = "inputs_count_where_they_lie_in_a_region_of_their_label"
CHARGED = "tangents_and_curvature_are_charged_what_they_can_cost"
POINT = "a_point_is_bounded_exactly"
T2 = [
    ("if not least[number] > 0:", "if not least[number] > -9:", INSIDE),
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
    ("reach = [self.radius * root(dot(row, row)) for", "reach = [0 * root(dot(row, row)) for", CHARGED),
    ("r + abs(move) for", "r for", CHARGED),
    ("arb(0, 1) * width) * width**2 / 2).union(arb(0))", "arb(0, 1) * width) * width**2 / 4)", CHARGED),
    (" * width**2 / 2).union(arb(0))", " * width**2 / 2)", HUNTED),
    (
        "curvature(network.phi, centre + arb(0, 1) * width)",
        "curvature(network.phi, centre)",
        "bends_are_those_within_reach",
    ),
    ("margin - self._swing", "margin + 0 * self._swing", HUNTED),
    ("return self.radius * root(dot(direction, direction)) +", "return", HUNTED),
    ("(abs(dot(direction, span)) for span in spans)", "()", HUNTED),
    ("or row[1] < 0\n", "\n", "regions_of_negative_radius_are_refused"),
    ("all(low <= high for low, high in ends)", "all(True for low, high in ends)", "empty_boxes_are_refused"),
    ("(len(spans) + 1) * len(direction)", "0", "length_of_a_region_is_counted"),
]
T1 = [
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
BOUNDED = "margins_of_charts_are_bounded_below"
FINITE = [
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
    ("if bend is None:", "if bend is None and over > 0:", "kinks_are_refused"),
]
COST = "bends_are_charged_what_they_can_cost"
BENDS = "bends_hold_every_quotient_and_are_tight"
CHARTED = "inputs_outside_a_chart_are_not_certified"
CHARTS = [
    ("(1 + (a < b)) * v * w", "v * w", "pairs_of_coordinates_are_tabled"),
    ("label == chart.label and dot", "dot", CHARTED),
    (" and dot(e, e) <= chart.radius**2", "", CHARTED),
    ("<= chart.radius**2", "<= 2 * chart.radius**2", CHARTED),
    ("e = [a - b for", "e = [b - a for", BOUNDED),
    ("or row[1] < 0:", "or row[1] > 9:", "negative_radii_are_refused"),
    (
        "not 0 <= label < network.out.ncols()",
        "not label < network.out.ncols()",
        "bad_labels_of_charts_are_refused",
    ),
    (
        "radius * root(dot(column, column))",
        "0 * root(dot(column, column))",
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
    ("work.evaluations += LAYERS\n", "", "length_of_charts_is_counted"),
    ("work.multiply_adds += len(pairs) + size", "work.multiply_adds += size", "length_of_charts_is_counted"),
]
RAMP = "ramp_losses_are_those_of_the_margins"
FORMULA = "mean_bounds_are_those_of_the_formula"
POPULATION = [
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
    ("range(right, total + 1)", "range(right + 1, total + 1)", CLOPPER),
    ("comb(total, k) *", "1 *", CLOPPER),
    ("<= risk * MILLION**total", "<= 2 * risk * MILLION**total", CLOPPER),
    ("wrong = MILLION - accuracy", "wrong = MILLION", CLOPPER),
]
NETWORK = [
    (
        "b_logit=b_logit.entries()",
        'b_logit=weights.vector("b_unembed", classes)',
        "brute_force_counts_what_is_right",
    ),
    (
        'b_hidden=weights.vector("b_in", w_in.ncols())',
        "b_hidden=[arb(0)] * w_in.ncols()",
        "brute_force_counts_what_is_right",
    ),
    ("unembed=unembed if residual else None", "unembed=None", "rounding_bound_by_hand"),
    ("[[a - b for a, b in zip(right", "[[b - a for a, b in zip(right", "margins_are_bounded_below"),
    (
        "direct=rows(work.product(embed, unembed))",
        "direct=rows(work.product(embed, unembed) * 2)",
        "brute_force_counts_what_is_right",
    ),
]
CODEBOOK = [
    ("else ball - centre", "else arb(0)", "margins_are_bounded_below"),
    ("hull(entries) for entries", "entries[0] for entries", "margins_are_bounded_below"),
    ("if len(set(columns)) < len(blocks):", "if not blocks:", "codebooks_are_partitions"),
    ("    advice.done()\n", "", "codebooks_are_partitions"),
]
BRUTE_FORCE = [
    ("margin > 0 if winning.least", "margin >= 0 if winning.least", "ties_lose_or_go_to_the_lowest"),
    ("certified += orders", "certified += 1", "brute_force_counts_what_is_right"),
    (" - winning.slack for other", " for other", "float32_asks_for_a_margin"),
    ("if answer is not None and _wins", "if _wins", "brute_force_counts_what_is_right"),
    ("work.multiply_adds += len(tokens) * len(h)", "", "the_length_of_brute_force"),
]
READING = [
    (".hexdigest() != digest:", ".hexdigest() == digest * 2:", DATA),
    ("if len(set(keys)) < len(keys):", "if not keys:", "json_that_is_refused"),
    ("parse_float=refuse,", "", "json_that_is_refused"),
    ("parse_constant=refuse,", "", "json_that_is_refused"),
    ("LONGEST_INTEGER = 60", "LONGEST_INTEGER = 61", "json_that_is_refused"),
    ("if type(value) is not int:", "if not isinstance(value, int):", "fields_of_the_wrong_kind_are_refused"),
    ("if not low <= value <= high:", "if not low <= value:", "fields_of_the_wrong_kind_are_refused"),
    ("return self._left.pop(name)", "return self._left[name]", "fields_are_read_once_and_counted"),
    ("self._work.reads += len(values)", "self._work.reads += 1", "fields_are_read_once_and_counted"),
    ("if name <= last:", "if name < last:", "containers_that_are_refused"),
    ("map(math.isfinite, values)", "map(math.isfinite, values[1:])", "containers_that_are_refused"),
    ("if at < len(content):", "if at > len(content):", "containers_that_are_refused"),
    ("NAME.fullmatch(name)", "NAME.match(name)", "containers_that_are_refused"),
    (
        "if isinstance(value, list | dict) else json.dumps",
        "if value is None else json.dumps",
        "what_is_nested_too_deeply_to_be_quoted",
    ),
    ("if 0 in shape:", "if 0 in shape[1:]:", "containers_that_are_refused"),
    ("wanted not in (None, size) for", "wanted == 0 for", "shapes_and_names_are_those_asked_for"),
]
MAIN = [
    ('given.digest("weights") != network.sha256', 'given.digest("weights") == ""', "identity_is_checked"),
    (
        'expected.digest("weights") != network.sha256',
        'expected.digest("weights") == ""',
        "identity_is_checked",
    ),
    ("for fields in (task, advice, claim):", "for fields in (task, claim):", "identity_is_checked"),
    ("    network.done()\n", "", "identity_is_checked"),
    ('given.choice("theorem", theorem)', 'given.choice("theorem", *THEOREMS)', "identity_is_checked"),
    ("    given.done()\n", "", "identity_is_checked"),
]
ATTENTION = [
    ("before = Task(question.name, question.n - 1,", "before = Task(question.name, question.n,", OWN),
    ("question.joined(cell.answer, *asked)", "cell.answer", OWN),
    ("if len(asked) > 1:", "if not asked:", "query_columns_are_of_one_class"),
    ("len(asking) * cell.arrangements * fillings", "cell.arrangements * fillings", ALIKE),
    ("len(asking) * cell.arrangements * fillings", "len(asking) * fillings", OWN),
    (", w_query), keys)", ", w_key), keys)", DENOMINATOR),
    ("resting + work.product(embed, unembed) if residual", "resting if residual", DENOMINATOR),
    ("b_logit = work.product(b_out, unembed) + arb_mat", "b_logit = arb_mat", DENOMINATOR),
    ("hull(entries) for entries", "entries[0] for entries", DENOMINATOR),
    ("hull(score - shift for score, shift", "max(score - shift for score, shift", DENOMINATOR),
    ("hull(score - shift for score", "hull(score for score", DENOMINATOR),
    ("[hull(shifted[t] for t in members) for", "[shifted[members[0]] for", DENOMINATOR),
    ("own = [of_query[q] - shift for", "own = [of_query[q] for", DENOMINATOR),
    ("both = [a + b for", "both = [a for", DENOMINATOR),
    ("[weight * margin for margin in _ahead(both", "[margin for margin in _ahead(both", DENOMINATOR),
    ("[smallest(of_answer) for", "[of_answer[0] for", DENOMINATOR),
    ("[weight * (a + b) for", "[weight * a for", DENOMINATOR),
    ("[weight * (a + b) for", "[a + b for", DENOMINATOR),
    ("hull(margins)\n", "margins[0]\n", DENOMINATOR),
    ("[logits[right] - logit for", "[logit - logits[right] for", DENOMINATOR),
    ("unit = 1 / largest if", "unit = -1 / largest if", "bounds_are_scaled_by_one_positive_number"),
    ("[[score * unit for", "[[score for", "bounds_are_scaled_by_one_positive_number"),
    ('not in ("max", "min", "modular_addition") or question.n < 2', "is None", SUPPORTED),
    ("len(terms) * len(terms[0])", "0", "length_is_counted"),
    ("len(ahead) * len(resting)", "0", "length_is_counted"),
]
# (what stands once in the file, what stands there instead, the test that must notice), by file
MUTANTS = {
    "activations.py": ACTIVATIONS,
    "attention.py": ATTENTION,
    "brute_force.py": BRUTE_FORCE,
    "charts.py": CHARTS,
    "codebook.py": CODEBOOK,
    "counting.py": COUNTING,
    "finite.py": FINITE,
    "main.py": MAIN,
    "network.py": NETWORK,
    "reading.py": READING,
    "population.py": POPULATION,
    "t1.py": T1,
    "t1_language.py": T1_LANGUAGE,
    "t2.py": T2,
    "t3.py": T3,
    "tasks.py": TASKS,
    "winning.py": WINNING,
    "work.py": WORK,
}


def main() -> int:
    settings.register_profile(
        "mutants", derandomize=True, deadline=None, database=None, max_examples=40, phases=[Phase.generate]
    )
    settings.load_profile("mutants")
    tests = {
        name: file
        for file in sorted((ROOT / "tests" / "xtalk_check").glob("test_*.py"))
        for name in re.findall(r"^def test_(\w+)\(\)", file.read_text(), re.MULTILINE)
    }
    start, complaints, passing = time.process_time(), [], {}
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "xtalk_check"
        shutil.copytree(PACKAGE, copy)
        sys.path[:0] = [folder, str(ROOT / "tests")]
        for file, mutants in MUTANTS.items():
            text = (PACKAGE / file).read_text()
            for old, new, test in mutants:
                if text.count(old) != 1 or test not in tests:
                    complaints.append(
                        f"{file}: {old!r} stands {text.count(old)} times; {test} must be a test"
                    )
                    continue
                if test not in passing:
                    passing[test] = passes(tests[test], test)
                    if not passing[test]:
                        complaints.append(f"{test} fails without a mutant")
                (copy / file).write_text(text.replace(old, new))
                if passes(tests[test], test):
                    complaints.append(f"{file}: {old!r} -> {new!r} survives {test}")
                (copy / file).write_text(text)
    print(*complaints, sep="\n", end="\n" * bool(complaints))
    count = sum(map(len, MUTANTS.values()))
    print(f"{count} mutants, {len(complaints)} complaints, {time.process_time() - start:.0f} s")
    return int(bool(complaints))


def passes(file: Path, test: str) -> bool:
    """Whether a test passes on the copy as it stands, imported anew."""
    for name in [name for name in sys.modules if name.split(".")[0] == "xtalk_check"]:
        del sys.modules[name]
    importlib.invalidate_caches()
    spec = importlib.util.spec_from_file_location(f"mutants_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            spec.loader.exec_module(module)
            getattr(module, f"test_{test}")()
    except KeyboardInterrupt:
        raise
    except BaseException:  # pytest's failures are no Exceptions
        return False
    finally:
        signal.alarm(0)
    return True


def too_long(*_) -> None:
    raise TimeoutError


if __name__ == "__main__":
    signal.signal(signal.SIGALRM, too_long)
    sys.dont_write_bytecode = True
    sys.exit(main())

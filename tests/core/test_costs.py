"""Costs against counts made here: by hand, or by walking through the definition of an operation one product at a time.

Element by element operations, windows and algorithms: `test_cost_rules.py`.
"""

import itertools
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchlens_core import cost_rules
from torchlens_core.cost_rules import algorithms, elements, products, spatial
from torchlens_core.costs import Cost, CostQuery, UnknownCost, cost, register_cost_rule, total
from torchlens_core.vocabulary import canonical_type

SIDE = st.integers(1, 6)


def ask(type_, in_shapes, out_shape, **args):
    return cost(CostQuery(type_, tuple(in_shapes), (out_shape,), args))


def macs(type_, in_shapes, out_shape, **args):
    """MACs of an operation that computes nothing else."""
    known = ask(type_, in_shapes, out_shape, **args)
    assert known.flops == 2 * known.macs
    return known.macs


# -- the interface -----------------------------------------------------------------------------------------------------


def test_unknown_is_none_and_nothing_is_zero():
    assert ask("eigvals", [(4, 4)], (4,)) is None
    assert ask("view", [(4, 4)], (16,)) == Cost(flops=0, macs=0)


def test_a_total_says_how_many_are_unknown():
    assert total([Cost(10, 4), None, Cost(5, 0), None]) == (Cost(15, 4), 2)
    assert total([]) == (Cost(0, 0), 0)


@pytest.mark.parametrize(
    ("type_", "in_shapes", "out_shapes", "args"),
    [
        ("linear", (), ((3, 4),), {}),
        ("linear", ((),), ((3, 4),), {}),
        ("relu", ((3,),), (), {}),
        ("conv2d", ((1, 3, 8, 8),), ((1, 4, 8, 8),), {}),
        ("einsum", ((2, 3), (3, 4)), ((2, 4),), {}),
        ("einsum", ((2, 3), (3, 4)), ((2, 4),), {"equation": "ij,jk,kl->il"}),
        ("einsum", ((2, 3, 1), (3, 4)), ((2, 4),), {"equation": "ij,jk->ik"}),
        ("maxpool2d", ((1, 3, 8, 8),), ((1, 3, 4, 4),), {}),
        ("maxpool2d", ((1, 3, 8, 8),), ((1, 3, 4, 4),), {"kernel_size": (2, 2, 2)}),
        ("sort", ((4, 5),), ((4, 5),), {"dim": 2}),
        ("lstm", ((7, 2, 5),), ((7, 2, 3),), {}),
        ("multiheadattentionforward", ((5, 2, 8),) * 3, ((5, 2, 8),), {}),
    ],
)
def test_a_rule_that_lacks_what_it_needs_says_unknown(type_, in_shapes, out_shapes, args):
    assert cost(CostQuery(type_, in_shapes, out_shapes, args)) is None


@pytest.fixture
def table():
    """The table of rules, as it was afterwards."""
    before = dict(cost_rules.RULES)
    yield cost_rules.RULES
    cost_rules.RULES.clear()
    cost_rules.RULES.update(before)


def test_a_registered_rule_is_asked_whatever_the_spelling(table):
    def rule(query):
        if "window" not in query.args:
            raise UnknownCost("window")
        return Cost(query.args["window"] * prod(query.out_shapes[0]), 0)

    register_cost_rule("my_windowed_op_", rule)
    assert ask("mywindowedop", [(2, 3)], (2, 3), window=7) == Cost(42, 0)
    assert ask("mywindowedop", [(2, 3)], (2, 3)) is None


def test_a_registered_rule_replaces_the_one_there(table):
    register_cost_rule("relu", lambda query: Cost(1, 0))
    assert ask("relu", [(100,)], (100,)) == Cost(1, 0)


def test_every_rule_stands_under_a_canonical_type_and_under_one_alone():
    assert [type_ for type_ in cost_rules.RULES if canonical_type(type_) != type_] == []
    assert sum(len(family.RULES) for family in (products, elements, spatial, algorithms)) == len(cost_rules.RULES)


# -- matrix products ---------------------------------------------------------------------------------------------------


def test_linear():
    # 8 rows, each 10 sums of 64 products; the bias is what the sums start from.
    assert ask("linear", [(8, 64), (10, 64), (10,)], (8, 10)) == Cost(flops=2 * 8 * 10 * 64, macs=8 * 10 * 64)
    assert macs("linear", [(64,), (10, 64)], (10,)) == 640
    assert macs("linear", [(2, 3, 64), (10, 64)], (2, 3, 10)) == 2 * 3 * 640


@pytest.mark.parametrize(
    ("type_", "in_shapes", "out_shape", "expected"),
    [
        ("mm", [(2, 3), (3, 5)], (2, 5), 2 * 3 * 5),
        ("matmul", [(2, 3), (3,)], (2,), 2 * 3),
        ("matmul", [(3,), (3, 5)], (5,), 3 * 5),
        ("matmul", [(7, 1, 2, 3), (4, 3, 5)], (7, 4, 2, 5), 7 * 4 * 2 * 3 * 5),
        ("bmm", [(4, 2, 3), (4, 3, 5)], (4, 2, 5), 4 * 2 * 3 * 5),
        ("mv", [(2, 3), (3,)], (2,), 2 * 3),
        ("dot", [(9,), (9,)], (), 9),
        ("vdot", [(9,), (9,)], (), 9),
        ("inner", [(2, 3), (5, 3)], (2, 5), 2 * 5 * 3),
        ("vecdot", [(2, 1, 3), (5, 3)], (2, 5), 2 * 5 * 3),
        ("addmm", [(5,), (2, 3), (3, 5)], (2, 5), 2 * 3 * 5),
        ("addmv", [(2,), (2, 3), (3,)], (2,), 2 * 3),
        ("baddbmm", [(4, 2, 5), (4, 2, 3), (4, 3, 5)], (4, 2, 5), 4 * 2 * 3 * 5),
        ("addbmm", [(2, 5), (4, 2, 3), (4, 3, 5)], (2, 5), 4 * 2 * 3 * 5),
        ("addr", [(2, 5), (2,), (5,)], (2, 5), 2 * 5),
        ("tensordot", [(2, 3, 4), (4, 3, 5)], (2, 5), 2 * 5 * 3 * 4),
        ("tensordot", [(2, 3), (4, 5)], (2, 3, 4, 5), 2 * 3 * 4 * 5),
        ("tensordot", [(0, 3), (3, 5)], (0, 5), 0),
        ("bilinear", [(8, 3), (8, 4), (6, 3, 4), (6,)], (8, 6), 8 * 6 * (3 * 4 + 4)),
        # Rows 0..6 shared out among two matrices; columns likewise; matrices one to one; inner axis shared out.
        ("groupedmm", [(7, 3), (2, 3, 5), (2,)], (7, 5), 7 * 3 * 5),
        ("groupedmm", [(2, 4, 3), (3, 7), (2,)], (4, 7), 4 * 3 * 7),
        ("groupedmm", [(2, 4, 3), (2, 3, 5)], (2, 4, 5), 2 * 4 * 3 * 5),
        ("groupedmm", [(4, 7), (7, 5), (2,)], (2, 4, 5), 4 * 7 * 5),
    ],
)
def test_matrix_products(type_, in_shapes, out_shape, expected):
    assert macs(type_, in_shapes, out_shape) == expected


def test_a_product_over_other_axes_than_the_last_states_its_terms():
    assert macs("matmul", [(3, 2), (3, 5)], (2, 5), contracted=3) == 2 * 3 * 5


def test_an_outer_product_adds_nothing_up():
    assert ask("outer", [(2,), (5,)], (2, 5)) == Cost(10, 0)


def test_a_chain_is_multiplied_in_the_cheapest_order():
    # (A B) C: 10 100 5 + 10 5 50 = 7500. A (B C) would be 75000.
    assert macs("multidot", [(10, 100), (100, 5), (5, 50)], (10, 50)) == 7500
    assert macs("chainmatmul", [(5, 50), (50, 10), (10, 100)], (5, 100)) == 5 * 50 * 10 + 5 * 10 * 100
    # A row, two matrices, a column: from the right 4 5 + 3 4 + 3. From the left it would be 3 4 + 4 5 + 5.
    assert macs("multidot", [(3,), (3, 4), (4, 5), (5,)], ()) == 20 + 12 + 3
    assert ask("chainmatmul", [(5, 50)], (5, 50)) == Cost(0, 0)


def cheapest_order(sides):
    """Multiplications of the best of all orders, tried one after the other."""
    if len(sides) == 2:
        return 0
    cuts = range(1, len(sides) - 1)
    return min(cheapest_order(sides[:cut] + sides[cut + 1 :]) + prod(sides[cut - 1 : cut + 2]) for cut in cuts)


@given(st.lists(SIDE, min_size=3, max_size=6))
def test_a_chain_costs_what_the_best_order_costs(sides):
    assert macs("multidot", list(itertools.pairwise(sides)), (sides[0], sides[-1])) == cheapest_order(sides)


@given(SIDE, SIDE, SIDE, SIDE)
def test_bmm_is_that_many_mm(batch, rows, inner, columns):
    one = ask("mm", [(rows, inner), (inner, columns)], (rows, columns))
    all_ = ask("bmm", [(batch, rows, inner), (batch, inner, columns)], (batch, rows, columns))
    assert total([one] * batch) == (all_, 0)


# -- einsum ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("equation", "shapes", "out_shape", "expected"),
    [
        ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)], (2, 3, 5), Cost(2 * 120, 120)),
        ("b i j, b j k -> b i k", [(2, 3, 4), (2, 4, 5)], (2, 3, 5), Cost(2 * 120, 120)),
        ("ij,jk", [(3, 4), (4, 5)], (3, 5), Cost(2 * 60, 60)),
        ("bhid,bhjd->bhij", [(2, 3, 4, 6), (2, 3, 5, 6)], (2, 3, 4, 5), Cost(2 * 720, 720)),
        ("...id,...jd->...ij", [(2, 3, 4, 6), (1, 3, 5, 6)], (2, 3, 4, 5), Cost(2 * 720, 720)),
        ("...id,jd", [(2, 3, 4, 6), (5, 6)], (2, 3, 4, 5), Cost(2 * 720, 720)),
        ("i,j->ij", [(3,), (4,)], (3, 4), Cost(12, 0)),  # multiplications only
        ("bi,bi->bi", [(3, 4), (3, 4)], (3, 4), Cost(12, 0)),
        ("i,i->", [(7,), (7,)], (), Cost(14, 7)),
        ("ij->ji", [(3, 4)], (4, 3), Cost(0, 0)),
        ("ij->i", [(3, 4)], (3,), Cost(12 - 3, 0)),  # additions only
        ("ii->i", [(4, 4)], (4,), Cost(0, 0)),
        ("ii", [(4, 4)], (), Cost(3, 0)),
        # From left to right: ij,jk -> ik (2 3 4 products), then ik,kl -> il (2 4 5).
        ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)], (2, 5), Cost(2 * (24 + 40), 24 + 40)),
        # i,j -> ij first (6 multiplications), then the sum over i and j with the matrix.
        ("i,j,ij->", [(2,), (3,), (2, 3)], (), Cost(6 + 2 * 6, 6)),
        ("ij,jk->ik", [(0, 3), (3, 4)], (0, 4), Cost(0, 0)),
        ("ij,jk->ik", [(2, 1), (3, 4)], (2, 4), Cost(2 * 24, 24)),  # j = 1 is broadcast
    ],
)
def test_einsum(equation, shapes, out_shape, expected):
    assert ask("einsum", shapes, out_shape, equation=equation) == expected


@given(st.lists(SIDE, min_size=4, max_size=4), st.permutations("abcd"), st.integers(0, 4))
def test_einsum_of_two_counts_every_combination_of_indices(sides, letters, kept):
    extent = dict(zip("abcd", sides, strict=True))
    left, right, result = letters[:3], letters[1:], letters[:kept]
    shapes = [tuple(extent[letter] for letter in term) for term in (left, right)]
    combinations = sum(1 for _ in itertools.product(*map(range, sides)))
    expected = Cost(combinations, 0) if kept == 4 else Cost(2 * combinations, combinations)
    equation = f"{''.join(left)},{''.join(right)}->{''.join(result)}"
    assert ask("einsum", shapes, tuple(extent[letter] for letter in result), equation=equation) == expected


# -- convolution -------------------------------------------------------------------------------------------------------


def products_of_convolution(in_channels, out_channels, kernel, out_size, groups):
    """Count of the products in the definition of a convolution without padding."""
    count = 0
    for _ in itertools.product(*map(range, out_size)):
        for channel in range(out_channels):
            group = channel * groups // out_channels
            inputs = [c for c in range(in_channels) if c * groups // in_channels == group]
            count += len(inputs) * sum(1 for _ in itertools.product(*map(range, kernel)))
    return count


@pytest.mark.parametrize("kernel", [(3,), (3, 2), (1, 2, 3)])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_convolutions_count_the_products_of_their_definition(kernel, groups):
    axes = len(kernel)
    image, out_size = tuple(5 + k for k in range(axes)), tuple(6 + k - width for k, width in enumerate(kernel))
    expected = 3 * products_of_convolution(4, 8, kernel, out_size, groups)
    arrays = [(3, 4, *image), (8, 4 // groups, *kernel), (8,)]
    assert macs(f"conv{axes}d", arrays, (3, 8, *out_size), groups=groups) == expected
    assert macs("convolution", arrays, (3, 8, *out_size), transposed=False) == expected
    # The transposed convolution with the same weight runs the same products the other way.
    arrays = [(3, 8, *out_size), (8, 4 // groups, *kernel), (4,)]
    assert macs(f"convtranspose{axes}d", arrays, (3, 4, *image), groups=groups) == expected
    assert macs("convolution", arrays, (3, 4, *image), transposed=True) == expected


def test_layouts_with_channels_last_state_their_channels():
    expected = macs("conv2d", [(2, 3, 8, 8), (6, 3, 5, 5)], (2, 6, 4, 4))
    assert macs("conv2d", [(2, 8, 8, 3), (5, 5, 3, 6)], (2, 4, 4, 6), out_channels=6) == expected
    expected = macs("convtranspose2d", [(2, 6, 4, 4), (6, 3, 5, 5)], (2, 3, 8, 8))
    assert macs("convtranspose2d", [(2, 4, 4, 6), (5, 5, 3, 6)], (2, 8, 8, 3), in_channels=6) == expected


def test_convolution_of_time_batch_channels():
    # kernel 3 over 10 steps: 8 sums of 3 x 4 products for each of 2 sequences and 5 channels
    assert macs("convtbc", [(10, 2, 4), (3, 4, 5), (5,)], (8, 2, 5)) == 8 * 2 * 5 * 3 * 4


@given(SIDE, SIDE, SIDE, SIDE, SIDE)
def test_a_convolution_of_kernel_one_is_a_matrix_product(batch, in_channels, out_channels, height, width):
    shape = (batch, out_channels, height, width)
    pointwise = ask("conv2d", [(batch, in_channels, height, width), (out_channels, in_channels, 1, 1)], shape)
    rows = batch * height * width
    assert pointwise == ask("matmul", [(rows, in_channels), (in_channels, out_channels)], (rows, out_channels))


# -- attention ---------------------------------------------------------------------------------------------------------


def test_attention():
    # Each of 2 x 3 heads: 5 x 7 scores, 4 products each before and 6 after; scale 1, softmax 5 for each score.
    scores = 2 * 3 * 5 * 7
    arrays = [(2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 6)]
    plain = ask("scaleddotproductattention", arrays, (2, 3, 5, 6))
    assert plain == Cost(flops=2 * scores * (4 + 6) + scores * 6, macs=scores * (4 + 6))
    assert ask("scaleddotproductattention", arrays, (2, 3, 5, 6), is_causal=True) == plain
    masked = ask("scaleddotproductattention", [*arrays, (5, 7)], (2, 3, 5, 6), attn_mask=(5, 7))
    assert masked == Cost(plain.flops + scores, plain.macs)


def test_grouped_queries_cost_what_as_many_key_heads_cost():
    grouped = ask("scaleddotproductattention", [(2, 6, 5, 4), (2, 3, 7, 4), (2, 3, 7, 4)], (2, 6, 5, 4))
    full = ask("scaleddotproductattention", [(2, 6, 5, 4), (2, 6, 7, 4), (2, 6, 7, 4)], (2, 6, 5, 4))
    assert grouped == full


def test_attention_with_heads_after_the_length_states_the_length():
    usual = ask("scaleddotproductattention", [(2, 3, 5, 4), (2, 3, 7, 4), (2, 3, 7, 4)], (2, 3, 5, 4))
    swapped = [(2, 5, 3, 4), (2, 7, 3, 4), (2, 7, 3, 4)]
    assert ask("scaleddotproductattention", swapped, (2, 5, 3, 4), kv_length=7) == usual


@pytest.mark.parametrize("batch_first", [False, True])
def test_multi_head_attention_is_its_projections_and_its_heads(batch_first):
    length, source, batch, width, heads, kdim, vdim = 5, 7, 2, 12, 3, 8, 10
    q, k, v = ((n, batch, features) for n, features in ((length, width), (source, kdim), (source, vdim)))
    if batch_first:
        q, k, v = ((shape[1], shape[0], shape[2]) for shape in (q, k, v))
    parts = [
        ask("linear", [(length, batch, width), (width, width)], (length, batch, width)),
        ask("linear", [(source, batch, kdim), (width, kdim)], (source, batch, width)),
        ask("linear", [(source, batch, vdim), (width, vdim)], (source, batch, width)),
        ask(
            "scaleddotproductattention",
            [(batch, heads, length, width // heads), *[(batch, heads, source, width // heads)] * 2],
            (batch, heads, length, width // heads),
        ),
        ask("linear", [(length, batch, width), (width, width)], (length, batch, width)),
    ]
    whole = ask("multiheadattentionforward", [q, k, v], q, num_heads=heads, batch_first=batch_first)
    assert total(parts) == (whole, 0)


# -- recurrent layers --------------------------------------------------------------------------------------------------

# Type of the layer and of the cell, gates, states, and FLOPs of one hidden unit beside the sums of products:
CELLS = {
    "lstm": ("lstmcell", 4, 2, 3 + 2 + 3 + 1),  # sigmoids, tanh; products f c, i g, o tanh(c); the sum of c
    "gru": ("grucell", 3, 1, 2 + 1 + 2 + 4),  # sigmoids, tanh; product and sum with r; 1 - z, two products, a sum
    "rnntanh": ("rnntanhcell", 1, 1, 1),
    "rnnrelu": ("rnnrelucell", 1, 1, 1),
}


@pytest.mark.parametrize("layer", CELLS)
def test_a_recurrent_cell(layer):
    cell, gates, states, flops = CELLS[layer]
    batch, features, units = 2, 5, 3
    arrays = [(batch, features), *[(batch, units)] * states, (gates * units, features), (gates * units, units)]
    sums = batch * gates * units * (features + units)
    assert ask(cell, arrays, (batch, units)) == Cost(2 * sums + batch * units * flops, sums)


@pytest.mark.parametrize("layer", CELLS)
def test_a_recurrent_layer_is_its_cell_at_every_step_layer_and_direction(layer):
    cell, gates, states, _ = CELLS[layer]
    steps, batch, features, units, layers = 7, 2, 5, 3, 2

    def weights(inputs):
        return [(gates * units, inputs), (gates * units, units), (gates * units,), (gates * units,)]

    arrays = [(steps, batch, features), *[(layers * 2, batch, units)] * states]
    arrays += 2 * weights(features) + 2 * weights(2 * units)
    whole = ask(layer, arrays, (steps, batch, 2 * units))
    parts = [
        ask(cell, [(batch, inputs), *[(batch, units)] * states, *weights(inputs)], (batch, units))
        for inputs in (features, features, 2 * units, 2 * units)
    ]
    assert total(parts * steps) == (whole, 0)
    packed = [(steps * batch, features), (steps,), *arrays[1:]]
    assert ask(layer, packed, (steps * batch, 2 * units)) == whole
    without_states = [shape for shape in arrays if len(shape) != 3 or shape == arrays[0]]
    assert ask(layer, without_states, (steps, batch, 2 * units)) == whole


@pytest.mark.parametrize(("mode", "layer"), list(enumerate(["rnnrelu", "rnntanh", "lstm", "gru"])))
def test_a_recurrent_kernel_is_one_layer(mode, layer):
    _, gates, states, _ = CELLS[layer]
    weights = [(gates * 3, 5), (gates * 3, 3), (gates * 3,), (gates * 3,)]
    whole = ask(layer, [(7, 2, 5), *[(1, 2, 3)] * states, *weights], (7, 2, 3))
    kernel = [(7, 2, 5), *weights, (2, 3), (2, 3)]
    assert ask("mkldnnrnnlayer", kernel, (7, 2, 3), mode=mode) == whole
    assert ask("mkldnnrnnlayer", kernel, (7, 2, 3), mode=9) is None


def test_an_lstm_with_projection():
    # 4 gates of 3 units over 5 inputs and the 2 of the projected state, then 2 x 3 for the projection; 9 for each unit.
    steps = 7 * 2
    arrays = [(7, 2, 5), (1, 2, 2), (1, 2, 3), (12, 5), (12, 2), (12,), (12,), (2, 3)]
    sums = steps * (12 * 5 + 12 * 2 + 2 * 3)
    assert ask("lstm", arrays, (7, 2, 2)) == Cost(2 * sums + steps * 3 * 9, sums)


# -- of all types ------------------------------------------------------------------------------------------------------

BATCHED = [
    ("linear", lambda n: [(n, 4), (5, 4), (5,)], lambda n: (n, 5), {}),
    ("conv2d", lambda n: [(n, 4, 9, 9), (6, 4, 3, 3), (6,)], lambda n: (n, 6, 7, 7), {}),
    ("convtranspose2d", lambda n: [(n, 6, 7, 7), (6, 4, 3, 3)], lambda n: (n, 4, 9, 9), {}),
    ("bmm", lambda n: [(n, 2, 3), (n, 3, 4)], lambda n: (n, 2, 4), {}),
    ("einsum", lambda n: [(n, 2, 3), (4, 3)], lambda n: (n, 2, 4), {"equation": "bij,kj->bik"}),
    ("scaleddotproductattention", lambda n: [(n, 2, 5, 4)] * 3, lambda n: (n, 2, 5, 4), {}),
    ("gru", lambda n: [(7, n, 5), (1, n, 3), (9, 5), (9, 3), (9,), (9,)], lambda n: (7, n, 3), {}),
    ("gelu", lambda n: [(n, 5)], lambda n: (n, 5), {}),
    ("mean", lambda n: [(n, 5)], lambda n: (n,), {"dim": 1}),
    ("var", lambda n: [(n, 5)], lambda n: (n,), {"dim": 1}),
    ("softmax", lambda n: [(n, 5)], lambda n: (n, 5), {"dim": 1}),
    ("layernorm", lambda n: [(n, 5), (5,), (5,)], lambda n: (n, 5), {}),
    ("batchnorm", lambda n: [(n, 5), *[(5,)] * 4], lambda n: (n, 5), {"training": True}),
    ("maxpool2d", lambda n: [(n, 4, 9, 9)], lambda n: (n, 4, 4, 4), {"kernel_size": 3}),
    ("adaptiveavgpool2d", lambda n: [(n, 4, 9, 9)], lambda n: (n, 4, 4, 2), {}),
    ("interpolate", lambda n: [(n, 4, 3, 3)], lambda n: (n, 4, 6, 6), {"mode": "bicubic"}),
    ("gridsample", lambda n: [(n, 4, 3, 3), (n, 6, 5, 2)], lambda n: (n, 4, 6, 5), {}),
    ("crossentropy", lambda n: [(n, 4), (n,)], lambda n: (n,), {}),
    ("cdist", lambda n: [(n, 4, 3), (n, 5, 3)], lambda n: (n, 4, 5), {}),
    ("rfft", lambda n: [(n, 8)], lambda n: (n, 5), {}),
    ("topk", lambda n: [(n, 8)], lambda n: (n, 2), {}),
]


@pytest.mark.parametrize(("type_", "arrays", "out_shape", "args"), BATCHED, ids=[row[0] for row in BATCHED])
@given(batch=st.integers(1, 50))
def test_twice_the_batch_is_twice_the_cost(type_, arrays, out_shape, args, batch):
    one = ask(type_, arrays(batch), out_shape(batch), **args)
    assert one.flops > 0
    assert total([one, one]) == (ask(type_, arrays(2 * batch), out_shape(2 * batch), **args), 0)
    assert ask(type_, arrays(0), out_shape(0), **args) == Cost(0, 0)


# -- a whole model -----------------------------------------------------------------------------------------------------


def test_alexnet():
    calls = []

    def after(image, kernel, stride, padding):
        return tuple((side + 2 * padding - kernel) // stride + 1 for side in image)

    image, channels = (224, 224), 3
    for out_channels, kernel, stride, padding, pooled in (
        (64, 11, 4, 2, True),
        (192, 5, 1, 2, True),
        (384, 3, 1, 1, False),
        (256, 3, 1, 1, False),
        (256, 3, 1, 1, True),
    ):
        weight, shape = (out_channels, channels, kernel, kernel), (1, channels, *image)
        image, channels = after(image, kernel, stride, padding), out_channels
        calls.append(("conv2d", [shape, weight, (channels,)], (1, channels, *image), {}))
        calls.append(("relu", [(1, channels, *image)], (1, channels, *image), {}))
        if pooled:
            shape, image = (1, channels, *image), after(image, 3, 2, 0)
            calls.append(("maxpool2d", [shape], (1, channels, *image), {"kernel_size": 3, "stride": 2}))
    calls.append(("adaptiveavgpool2d", [(1, 256, 6, 6)], (1, 256, 6, 6), {}))
    calls.append(("flatten", [(1, 256, 6, 6)], (1, 9216), {}))
    for inputs, outputs in ((9216, 4096), (4096, 4096)):
        calls.append(("dropout", [(1, inputs)], (1, inputs), {"p": 0.5, "training": True}))
        calls.append(("linear", [(1, inputs), (outputs, inputs), (outputs,)], (1, outputs), {}))
        calls.append(("relu", [(1, outputs)], (1, outputs), {}))
    calls.append(("linear", [(1, 4096), (1000, 4096), (1000,)], (1, 1000), {}))

    whole, unknown = total(ask(type_, arrays, out_shape, **args) for type_, arrays, out_shape, args in calls)
    assert (len(calls), unknown) == (22, 0)
    assert whole.macs == 714_188_480
    assert f"{whole.flops / 1e9:.1f} G" == "1.4 G"
    relus = 64 * 55**2 + 192 * 27**2 + (384 + 256 + 256) * 13**2 + 2 * 4096
    maxima = 8 * (64 * 27**2 + 192 * 13**2 + 256 * 6**2)
    averages_and_dropouts = 256 * 6**2 + 2 * (9216 + 4096)
    assert whole.flops == 2 * 714_188_480 + relus + maxima + averages_and_dropouts

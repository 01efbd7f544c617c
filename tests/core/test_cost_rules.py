"""Costs that hold no multiply-accumulates: elements, windows, algorithms. Expected counts are made here, by hand.

Matrix products, convolution, attention and recurrent layers: `test_costs.py`.
"""

from itertools import product
from math import ceil, floor, inf, log2

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torchlens_core.costs import Cost, CostQuery, cost
from torchlens_core.vocabulary import canonical_type


def flops(type_, in_shapes, out_shape, **args):
    known = cost(CostQuery(type_, tuple(in_shapes), (out_shape,), args))
    if known is None:
        return None
    assert known.macs == 0
    return known.flops


# -- element by element ------------------------------------------------------------------------------------------------


NO_ARITHMETIC = """
    view reshape flatten permute transpose expand __getitem__ __setitem__ chunk cat stack pad clone contiguous to float
    index_select gather embedding one_hot zeros arange randn bernoulli_ pixel_shuffle roll tril triu detach
"""

OF_ONE_ARRAY = """
    relu relu_ leaky_relu gelu silu sigmoid tanh exp log sqrt rsqrt erf softplus abs neg __neg__ floor clamp round
    __invert__ logical_not isnan hardswish mish cumsum cumprod masked_fill_
"""

OF_TWO_ARRAYS = """
    add __iadd__ sub __rsub__ mul __truediv__ __floordiv__ remainder pow __rpow__ maximum minimum max min eq __ne__ lt
    ge __and__ bitwise_or logical_xor __lshift__ atan2 where prelu
"""


@pytest.mark.parametrize("func_name", NO_ARITHMETIC.split())
def test_moving_indexing_casting_and_creating_is_no_arithmetic(func_name):
    assert flops(canonical_type(func_name), [(4, 6)], (4, 6)) == 0


@pytest.mark.parametrize("func_name", OF_ONE_ARRAY.split())
def test_a_function_of_one_array_is_one_for_each_element(func_name):
    assert flops(canonical_type(func_name), [(3, 4)], (3, 4)) == 12


@pytest.mark.parametrize("func_name", OF_TWO_ARRAYS.split())
def test_a_function_of_two_arrays_is_one_for_each_element_of_the_result(func_name):
    assert flops(canonical_type(func_name), [(3, 1), (1, 4)], (3, 4)) == 12


def test_a_factor_other_than_one_is_a_product_more():
    assert flops("add", [(12,), (12,)], (12,), alpha=1) == 12
    assert flops("add", [(12,), (12,)], (12,), alpha=-0.1) == 24
    assert flops("addcmul", [(12,)] * 3, (12,)) == 24
    assert flops("addcdiv", [(12,)] * 3, (12,), value=0.5) == 36


def test_functions_of_several_steps():
    assert flops("lerp", [(12,), (12,)], (12,), weight=0.1) == 3 * 12  # a + w (b - a)
    assert flops("cross", [(4, 3), (4, 3)], (4, 3)) == 4 * 3 * 3  # x = a b' - b a', three times
    assert flops("glu", [(5, 8)], (5, 4)) == 2 * 20  # a sigmoid(b)
    assert flops("diff", [(12,)], (11,)) == 11
    assert flops("diff", [(12,)], (10,), n=2) is None


def test_dropout_costs_in_training_alone():
    assert flops("dropout", [(3, 4)], (3, 4), p=0.5, training=True) == 24
    assert flops("dropout", [(3, 4)], (3, 4), p=0.5) == 24
    assert flops("dropout", [(3, 4)], (3, 4), p=0.5, training=False) == 0
    assert flops("nativedropout", [(3, 4)], (3, 4), p=0.5, train=False) == 0
    assert flops("alphadropout", [(3, 4)], (3, 4), training=True) == 48


# -- reductions --------------------------------------------------------------------------------------------------------

# Of 4 rows of 6 elements to one result for each row.
ADDITIONS = 4 * 5


@pytest.mark.parametrize(
    ("type_", "expected"),
    [
        ("sum", ADDITIONS),
        ("prod", ADDITIONS),
        ("max", ADDITIONS),
        ("amin", ADDITIONS),
        ("argmax", ADDITIONS),
        ("any", ADDITIONS),
        ("aminmax", 2 * ADDITIONS),
        ("mean", ADDITIONS + 4),
        ("countnonzero", 24 + ADDITIONS),
        ("nansum", 2 * 24 + ADDITIONS),
        ("var", (ADDITIONS + 4) + 24 + 24 + (ADDITIONS + 4)),  # mean, differences, squares, mean of them
        ("std", (ADDITIONS + 4) + 24 + 24 + (ADDITIONS + 4) + 4),
        ("logsumexp", ADDITIONS + 24 + 24 + ADDITIONS + 4 + 4),  # max, difference, exp, sum, log, sum
        ("norm", 24 + ADDITIONS + 4),  # squares, sums, roots
        ("vectornorm", 24 + ADDITIONS + 4),
    ],
)
def test_reductions(type_, expected):
    assert flops(type_, [(4, 6)], (4,), dim=1) == expected


def test_reductions_of_everything_and_of_nothing():
    assert flops("sum", [(4, 6)], ()) == 23
    assert flops("mean", [(4, 6)], ()) == 24
    assert flops("sum", [(4, 6)], (4, 6), dim=()) == 0
    assert flops("sum", [(0,)], ()) == 0


def test_norms_by_singular_values_are_unknown():
    assert flops("norm", [(4, 6)], (), ord=2) is None
    assert flops("norm", [(4, 6)], (), p="nuc") is None
    assert flops("norm", [(3, 4, 6)], (3,), ord=2, dim=(1, 2)) is None
    assert flops("matrixnorm", [(3, 4, 6)], (3,), ord=-2) is None
    assert flops("matrixnorm", [(3, 4, 6)], (3,), ord="fro") == 2 * 72
    assert flops("norm", [(4, 6)], (4,), ord=2, dim=1) == 2 * 24
    assert flops("norm", [(4, 6)], (), p=2) == 2 * 24


# -- softmax, normalisations, losses -----------------------------------------------------------------------------------


def test_softmax_is_five_steps():
    assert flops("softmax", [(4, 6)], (4, 6), dim=1) == 5 * 24
    assert flops("logsoftmax", [(4, 6)], (4, 6), dim=1) == 5 * 24
    assert flops("softmin", [(4, 6)], (4, 6), dim=1) == 6 * 24
    assert flops("gumbelsoftmax", [(4, 6)], (4, 6)) == 9 * 24


X, CHANNELS = (2, 3, 5), (3,)
SUM, DIFFERENCE, SQUARE, SQUARES, SCALE, WEIGHT, BIAS = [30] * 7


@pytest.mark.parametrize(
    ("type_", "arrays", "args", "expected"),
    [
        ("layernorm", [X], {}, SUM + DIFFERENCE + SQUARE + SQUARES + SCALE),
        ("layernorm", [X, (5,), (5,)], {}, SUM + DIFFERENCE + SQUARE + SQUARES + SCALE + WEIGHT + BIAS),
        ("layernorm", [X, (5,)], {"weight": (5,), "bias": None}, SUM + DIFFERENCE + SQUARE + SQUARES + SCALE + WEIGHT),
        ("groupnorm", [X, (3,), (3,)], {}, SUM + DIFFERENCE + SQUARE + SQUARES + SCALE + WEIGHT + BIAS),
        ("rmsnorm", [X, (5,)], {"weight": (5,)}, SQUARE + SQUARES + SCALE + WEIGHT),
        ("rmsnorm", [X], {"weight": None}, SQUARE + SQUARES + SCALE),
        ("batchnorm", [X, *[CHANNELS] * 4], {"training": False}, SCALE + BIAS),
        ("batchnorm", [X, *[CHANNELS] * 2], {}, SCALE + BIAS),
        ("batchnorm", [X, *[CHANNELS] * 4], {"training": True}, 7 * 30),
        ("batchnorm", [X], {"training": True}, 5 * 30),
        ("batchnorm", [X, *[CHANNELS] * 2], {"training": True}, None),  # kept statistics, or weight and bias?
        ("batchnorm", [X, *[CHANNELS] * 2], {"training": True, "weight": CHANNELS, "bias": CHANNELS}, 7 * 30),
        ("batchnorm", [X, *[CHANNELS] * 2], {"training": True, "weight": None, "bias": None}, 5 * 30),
        ("instancenorm", [X], {}, 5 * 30),
        ("instancenorm", [X, *[CHANNELS] * 2], {"use_input_stats": False}, SCALE + BIAS),
        ("normalize", [X], {}, SQUARE + SUM + SCALE),
        # x / (2 + 0.1 / 5 . sum of 5 squares) ^ 0.75: square, 4 sums, product, sum, power, division
        ("localresponsenorm", [X], {"size": 5}, (1 + 4 + 1 + 1 + 1 + 1) * 30),
        ("localresponsenorm", [X], {}, None),
    ],
)
def test_normalisations(type_, arrays, args, expected):
    assert flops(type_, arrays, X, **args) == expected


@pytest.mark.parametrize(
    ("type_", "steps"),
    [
        ("mseloss", 2),
        ("l1loss", 2),
        ("kldiv", 3),
        ("softmarginloss", 4),
        ("smoothl1loss", 6),
        ("binarycrossentropy", 8),
        ("binarycrossentropywithlogits", 8),
    ],
)
def test_losses_of_each_element(type_, steps):
    assert flops(type_, [(4, 6), (4, 6)], (4, 6), reduction="none") == steps * 24
    assert flops(type_, [(4, 6), (4, 6)], (), reduction="mean") == (steps + 1) * 24


def test_cross_entropy():
    assert flops("nllloss", [(4, 6), (4,)], (4,)) == 4
    assert flops("nllloss", [(4, 6), (4,)], ()) == 4 + 4
    assert flops("crossentropy", [(4, 6), (4,)], ()) == 5 * 24 + 4 + 4
    assert flops("crossentropy", [(2, 6, 7), (2, 7)], (2, 7)) == 5 * 84 + 14
    assert flops("crossentropy", [(4, 6), (4, 6)], ()) == 5 * 24 + 2 * 24  # targets are probabilities


# -- windows and grids -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "for_each_output"),
    [("maxpool2d", 6 - 1), ("avgpool2d", 6 - 1 + 1), ("lppool2d", 6 + (6 - 1) + 1), ("fractionalmaxpool2d", 5)],
)
def test_pools(type_, for_each_output):
    assert flops(type_, [(2, 4, 9, 9)], (2, 4, 3, 4), kernel_size=(3, 2)) == for_each_output * 2 * 4 * 3 * 4


def test_a_kernel_size_may_be_one_number():
    assert flops("maxpool1d", [(4, 9)], (4, 3), kernel_size=3) == 2 * 12
    assert flops("maxpool3d", [(1, 4, 8, 8, 8)], (1, 4, 4, 4, 4), kernel_size=2) == 7 * 256
    assert flops("avgpool3d", [(1, 4, 8, 8, 8)], (1, 4, 4, 4, 4), kernel_size=[2]) == 8 * 256


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=3), st.integers(1, 3))
def test_adaptive_pools_count_every_element_of_every_window(sides, channels):
    windows = [
        [range(floor(i * n / m), ceil((i + 1) * n / m)) for i in range(m)] for n, m in sides
    ]  # of each axis, one for each output
    elements = outputs = 0
    for window in product(*windows):
        elements += channels * sum(1 for _ in product(*window))
        outputs += channels
    shapes = [(channels, *(n for n, _ in sides))], (channels, *(m for _, m in sides))
    assert flops(f"adaptivemaxpool{len(sides)}d", *shapes) == elements - outputs
    assert flops(f"adaptiveavgpool{len(sides)}d", *shapes) == elements


def test_an_adaptive_average_of_everything_is_the_mean():
    pooled = flops("adaptiveavgpool2d", [(2, 4, 7, 7)], (2, 4, 1, 1))
    assert pooled == flops("mean", [(2, 4, 7, 7)], (2, 4, 1, 1), dim=(2, 3))


@pytest.mark.parametrize(
    ("mode", "axes", "for_each_output"),
    [
        ("nearest", 2, 0),
        ("nearest-exact", 1, 0),
        ("linear", 1, 2 * 2),
        ("bilinear", 2, 2 * 4),
        ("trilinear", 3, 2 * 8),
        ("bicubic", 2, 2 * 16),
    ],
)
def test_interpolation_is_a_weighted_sum_of_neighbours(mode, axes, for_each_output):
    arrays, out_shape = [(1, 2, *[3] * axes)], (1, 2, *[5] * axes)
    assert flops("interpolate", arrays, out_shape, mode=mode) == for_each_output * 2 * 5**axes


def test_interpolation_in_other_modes():
    assert flops("interpolate", [(1, 2, 3, 3)], (1, 2, 6, 6), scale_factor=2) == 0
    area = flops("interpolate", [(1, 2, 7, 7)], (1, 2, 3, 3), mode="area")
    assert area == flops("adaptiveavgpool2d", [(1, 2, 7, 7)], (1, 2, 3, 3))
    assert flops("interpolate", [(1, 2, 9, 9)], (1, 2, 3, 3), mode="bilinear", antialias=True) is None
    assert flops("interpolate", [(1, 2, 9, 9)], (1, 2, 3, 3), mode="lanczos") is None


def test_grid_sampling():
    # 1 x 4 x 5 places of 2 coordinates in an image of 3 channels.
    arrays, out_shape = [(1, 3, 8, 8), (1, 4, 5, 2)], (1, 3, 4, 5)
    places = 20
    to_place, rounding, fraction_and_complement = 4, 1, 2
    coordinates = 2 * (to_place + rounding + fraction_and_complement)
    corner_weights, corner_sums = 4 * 1, 3 * 4 * 2
    assert flops("gridsample", arrays, out_shape) == places * (coordinates + corner_weights + corner_sums)
    assert flops("gridsample", arrays, out_shape, mode="nearest") == places * 2 * (to_place + rounding)
    assert flops("gridsample", arrays, out_shape, mode="bicubic") is None


def test_an_affine_grid_is_a_matrix_product():
    # Each of 4 x 5 places (x, y, 1) times a matrix of 2 x 3.
    grid = cost(CostQuery("affinegrid", ((2, 2, 3),), ((2, 4, 5, 2),), {}))
    assert grid == Cost(flops=2 * 2 * 20 * 6, macs=2 * 20 * 6)
    assert grid == cost(CostQuery("bmm", ((2, 20, 3), (2, 3, 2)), ((2, 20, 2),), {}))


def test_patches_are_copied_apart_and_added_together():
    assert flops("unfold", [(1, 2, 5, 5)], (1, 18, 9), kernel_size=3) == 0
    assert flops("fold", [(1, 18, 9)], (1, 2, 5, 5), kernel_size=3) == 18 * 9


# -- algorithms --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "in_shape", "out_shape", "args", "expected"),
    [
        ("fft", (3, 8), (3, 8), {}, 3 * 5 * 8 * 3),
        ("ifft", (3, 8), (3, 8), {"dim": 0}, 8 * 5 * 3 * log2(3)),
        ("fft", (3, 5), (3, 16), {"n": 16}, 3 * 5 * 16 * 4),
        ("fft2", (3, 8, 4), (3, 8, 4), {}, 3 * 5 * 32 * 5),
        ("fftn", (2, 8, 4), (2, 8, 4), {}, 5 * 64 * 6),
        ("fftn", (2, 8, 4), (2, 8, 4), {"dim": (1, 2)}, 2 * 5 * 32 * 5),
        ("rfft", (3, 8), (3, 5), {}, 3 * 2.5 * 8 * 3),
        ("rfft", (3, 8), (3, 9), {"n": 16}, 3 * 2.5 * 16 * 4),
        ("irfft", (3, 5), (3, 8), {}, 3 * 2.5 * 8 * 3),
        ("rfft2", (3, 8, 4), (3, 8, 3), {}, 3 * 2.5 * 32 * 5),
        ("fft", (3, 1), (3, 1), {}, 0),
        ("fftn", (4, 4), (8, 8), {"s": (8, 8)}, None),
        ("c2c", (2, 8, 4), (2, 8, 4), {"dim": [1, 2]}, 2 * 5 * 32 * 5),
        ("r2c", (3, 8), (3, 5), {"dim": [1]}, 3 * 2.5 * 8 * 3),
        ("c2r", (3, 5), (3, 8), {"dim": [1]}, 3 * 2.5 * 8 * 3),
        ("c2c", (2, 8, 4), (2, 8, 4), {}, None),
        ("fftshift", (3, 8), (3, 8), {}, 0),
    ],
)
def test_fourier_transforms(type_, in_shape, out_shape, args, expected):
    assert flops(type_, [in_shape], out_shape, **args) == (expected if expected is None else round(expected))


def test_order():
    assert flops("sort", [(4, 8)], (4, 8)) == 4 * 8 * 3
    assert flops("argsort", [(4, 8)], (4, 8), dim=0) == 8 * 4 * 2
    assert flops("sort", [()], ()) == 0
    assert flops("topk", [(4, 8)], (4, 1), k=1) == flops("max", [(4, 9)], (4,))  # 8 comparisons each
    assert flops("topk", [(4, 8)], (4, 4), k=4) == 4 * 8 * (1 + 2)
    assert flops("topk", [(4, 8)], (2, 8), k=2, dim=0) == 8 * 4 * (1 + 1)
    # 7 boundaries make 8 places, three comparisons apart.
    assert flops("searchsorted", [(7,), (5, 6)], (5, 6)) == 30 * 3
    assert flops("bucketize", [(5, 6), (7,)], (5, 6)) == 30 * 3


def test_distances():
    difference_square_sum = 3
    assert flops("cdist", [(2, 4, 6), (2, 5, 6)], (2, 4, 5)) == 2 * 4 * 5 * 6 * difference_square_sum
    assert flops("cdist", [(4, 6), (5, 6)], (4, 5), p=inf) == 4 * 5 * 6 * 3
    assert flops("cdist", [(4, 6), (5, 6)], (4, 5), p=3) == 4 * 5 * 6 * 4
    assert flops("pdist", [(4, 6)], (6,)) == (3 + 2 + 1) * 6 * difference_square_sum
    assert flops("dist", [(4, 6), (6,)], ()) == 24 * difference_square_sum
    assert flops("pairwisedistance", [(4, 6), (4, 6)], (4,)) == 24 * (difference_square_sum + 1)
    dot = 6 + 5
    assert flops("cosinesimilarity", [(4, 6), (4, 6)], (4,)) == 4 * (dot + 2 * (dot + 1) + 2)
    assert flops("cosinesimilarity", [(4, 1, 6), (5, 6)], (4, 5), dim=-1) == 20 * (dot + 2 * (dot + 1) + 2)


def test_scattering_costs_where_it_combines():
    assert flops("scatteradd", [(9,), (5,), (7,)], (9,)) == 5
    assert flops("scatterreduce", [(9,), (5,), (5,)], (9,), reduce="amax") == 5
    assert flops("indexadd", [(9, 2), (5,), (5, 2)], (9, 2)) == 10
    assert flops("scatter", [(9,), (5,), (5,)], (9,)) == 0
    assert flops("scatter", [(9,), (5,), (5,)], (9,), reduce="add") == 5
    assert flops("indexput", [(9,), (5,), (5,)], (9,)) == 0
    assert flops("indexput", [(9,), (5,), (5,)], (9,), accumulate=True) is None


def test_linear_systems():
    cube = 9**3
    assert flops("cholesky", [(2, 9, 9)], (2, 9, 9)) == 2 * cube / 3
    assert flops("det", [(2, 9, 9)], (2,)) == 2 * 2 * cube / 3
    assert flops("inv", [(9, 9)], (9, 9)) == 2 * cube
    assert flops("solve", [(9, 9), (9, 4)], (9, 4)) == 2 * cube / 3 + 4 * 2 * 81
    assert flops("solve", [(2, 9, 9), (2, 9)], (2, 9)) == 2 * (2 * cube / 3 + 2 * 81)
    assert flops("solvetriangular", [(9, 9), (9, 4)], (9, 4)) == 4 * 81


@pytest.mark.parametrize("type_", ["svd", "eigh", "unique", "median", "quantile", "embeddingbag", "ctcloss"])
def test_what_hangs_on_the_values_is_unknown(type_):
    assert flops(type_, [(4, 4)], (4,)) is None

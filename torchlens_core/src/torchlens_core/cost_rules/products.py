"""Sums of products: matrix multiplication, convolution, attention, recurrent layers. Only they have MACs.

A sum of K products is K multiply-accumulates, 2 K FLOPs. Exactly it is K multiplications and K - 1 additions; the one
more is where the sum starts from, and stands for a bias or an added matrix (``linear``, ``addmm``), which therefore
cost nothing further (Golub and Van Loan, *Matrix Computations*, 4th ed., 1.1: 2mnp flops for the update C = C + AB).
Scale factors of ``addmm`` and its like are not counted.
"""

from __future__ import annotations

from math import isqrt

from .query import (
    Cost,
    CostQuery,
    Rule,
    UnknownCost,
    arithmetic,
    array,
    broadcast,
    integer,
    output,
    products,
    rule_table,
    share,
    size,
)

# Maximum, subtraction, exponential, sum, division.
SOFTMAX_FLOPS = 5


# -- matrix products ---------------------------------------------------------------------------------------------------


def _matrix_product(left: int) -> Rule:
    """Each output element is a sum over the last axis of the left factor, the array argument at place ``left``."""

    def rule(query: CostQuery) -> Cost:
        factor = array(query, left, min_rank=1)
        return products(size(output(query)) * integer(query, "contracted", default=factor[-1]))

    return rule


def _summed_batch(query: CostQuery) -> Cost:
    """``addbmm(input, a, b)``: the products of all pairs of matrices, added up."""
    return products(size(array(query, 1)) * array(query, 2, min_rank=1)[-1])


def _grouped_product(query: CostQuery) -> Cost:
    """Each row (or column) of one factor meets the one matrix of the other that belongs to its group."""
    left, right = array(query, 0, min_rank=2), array(query, 1, min_rank=2)
    macs = size(left) * right[-1]
    if len(left) == 3 and len(right) == 2:  # columns of the right factor are shared out among the left matrices
        macs = share(macs, left[0])
    return products(macs)


def _inner_products(query: CostQuery) -> Cost:
    """``vecdot``: one multiply-accumulate for each element of the factors, broadcast."""
    return products(size(broadcast(array(query, 0), array(query, 1))))


def _tensordot(query: CostQuery) -> Cost:
    """The factors have M x K and K x N elements, the result M x N; K follows, whichever axes were contracted."""
    elements = size(output(query))
    if not elements:
        return products(0)
    contracted = isqrt(size(array(query, 0)) * size(array(query, 1)) // elements)
    return products(elements * contracted)


def _outer_sum(query: CostQuery) -> Cost:
    """``addr(input, a, b)``: one multiply-accumulate for each element."""
    return products(size(output(query)))


def _outer(query: CostQuery) -> Cost:
    """One multiplication for each element, and nothing to add it to."""
    return arithmetic(size(output(query)))


def _bilinear(query: CostQuery) -> Cost:
    """For each output ``x1 . W . x2``: I1 x I2 for ``x1 . W``, then I2 (weight: outputs x I1 x I2)."""
    _, i1, i2 = array(query, 2, min_rank=3)
    return products(size(output(query)) * (i1 * i2 + i2))


def _matrix_chain(query: CostQuery) -> Cost:
    """In the cheapest order (Cormen et al., *Introduction to Algorithms*, matrix-chain multiplication)."""
    shapes = [array(query, index, min_rank=1) for index in range(len(query.in_shapes))]
    if len(shapes) < 2:
        return arithmetic(0)
    if len(shapes[0]) == 1:
        shapes[0] = (1, *shapes[0])
    if len(shapes[-1]) == 1:
        shapes[-1] = (*shapes[-1], 1)
    sides = [shapes[0][0], *(shape[-1] for shape in shapes)]
    cheapest = [[0] * len(shapes) for _ in shapes]
    for length in range(1, len(shapes)):
        for first in range(len(shapes) - length):
            last = first + length
            cheapest[first][last] = min(
                cheapest[first][cut] + cheapest[cut + 1][last] + sides[first] * sides[cut + 1] * sides[last + 1]
                for cut in range(first, last)
            )
    return products(cheapest[0][-1])


# -- einsum ------------------------------------------------------------------------------------------------------------


def _einsum(query: CostQuery) -> Cost:
    """Two operands at a time, from left to right.

    A pair costs the product of the sizes of all its indices: multiply-accumulates if some of them are summed away with
    it, otherwise multiplications (as ``flop_count`` of opt_einsum). A lone operand costs the additions of its sum.
    """
    terms, result = _einsum_indices(query)
    extent: dict[str, int] = {}
    for term, shape in zip(terms, query.in_shapes, strict=True):
        for index, length in zip(term, shape, strict=True):
            if extent.get(index, 1) == 1:  # an axis of length 1 is broadcast
                extent[index] = length

    def volume(indices: set[str]) -> int:
        return size(tuple(extent[index] for index in indices))

    if len(terms) == 1:
        return arithmetic(max(volume(set(terms[0])) - volume(set(result)), 0))
    flops = macs = 0
    kept = set(terms[0])
    for place, term in enumerate(terms[1:], start=2):
        indices = kept.union(term)
        kept = indices.intersection(set(result).union(*terms[place:]))
        if kept == indices:
            flops += volume(indices)
        else:
            macs += volume(indices)
    return products(macs, flops)


def _einsum_indices(query: CostQuery) -> tuple[list[list[str]], list[str]]:
    """The indices of each operand and of the result, one for each axis; an ellipsis becomes the indices ``.1 .0``."""
    equation = query.args.get("equation")
    if not isinstance(equation, str):
        raise UnknownCost(f"{query.type}: argument 'equation' is not known")
    left, arrow, right = equation.replace(" ", "").partition("->")
    operands = left.split(",")
    if len(operands) != len(query.in_shapes):
        raise UnknownCost(f"{query.type}: {equation!r} is not for {len(query.in_shapes)} operands")
    widths = [len(shape) - len(term.replace("...", "")) for term, shape in zip(operands, query.in_shapes, strict=True)]
    if any(width < 0 or (width and "..." not in term) for term, width in zip(operands, widths, strict=True)):
        raise UnknownCost(f"{query.type}: {equation!r} does not fit shapes {query.in_shapes}")
    if not arrow:
        letters = left.replace("...", "").replace(",", "")
        right = "..." * ("..." in left) + "".join(
            sorted(letter for letter in set(letters) if letters.count(letter) == 1)
        )

    def spread(term: str, width: int) -> list[str]:
        before, ellipsis, after = term.partition("...")
        return [*before, *(f".{axis}" for axis in reversed(range(width)) if ellipsis), *after]

    terms = [spread(term, width) for term, width in zip(operands, widths, strict=True)]
    return terms, spread(right, max(widths))


# -- convolution -------------------------------------------------------------------------------------------------------


def _convolution(query: CostQuery) -> Cost:
    """Each output element is a sum over the weights of its channel, those that fall on padding included.

    The weight is (output channels, input channels / groups, *kernel), see Dumoulin and Visin, arXiv:1603.07285.
    """
    if query.args.get("transposed"):
        return _transposed_convolution(query)
    weight = array(query, 1, min_rank=3)
    return products(size(output(query)) * share(size(weight), integer(query, "out_channels", default=weight[0])))


def _transposed_convolution(query: CostQuery) -> Cost:
    """Each input element meets the weights of its channel: (input channels, output channels / groups, *kernel)."""
    weight = array(query, 1, min_rank=3)
    return products(size(array(query, 0)) * share(size(weight), integer(query, "in_channels", default=weight[0])))


def _time_batch_convolution(query: CostQuery) -> Cost:
    """``conv_tbc``: the weight is (kernel, input channels, output channels)."""
    width, in_channels, _ = array(query, 1, min_rank=3)
    return products(size(output(query)) * width * in_channels)


# -- attention ---------------------------------------------------------------------------------------------------------


def _attention(query: CostQuery) -> Cost:
    """``softmax(q . k / scale + mask) . v`` of q (..., L, E), k (..., S, E), v (..., S, V): Vaswani et al. 2017.

    For each of the L x S scores of each head: E multiply-accumulates before and V after, one division by the scale,
    the softmax, and one addition where there is a mask array. Key heads shared by several query heads (grouped
    queries) save no arithmetic. A causal mask is counted as full attention: that half is skipped is up to the kernel.
    """
    key, value = array(query, 1, min_rank=2), array(query, 2, min_rank=2)
    rows = share(size(output(query, min_rank=2)), value[-1])
    scores = rows * integer(query, "kv_length", default=key[-2])
    masked = len(query.in_shapes) > 3
    return products(scores * (key[-1] + value[-1]), scores * (1 + SOFTMAX_FLOPS + masked))


def _multi_head_attention(query: CostQuery) -> Cost:
    """Projections of q (L, N, E), k (S, N, ·) and v (S, N, ·) to E, attention, projection of the result to E.

    With ``batch_first`` (N, L, E). Heads share E among them, so their number matters to the softmax alone.
    """
    q, k, v = (array(query, index, min_rank=2) for index in range(3))
    heads = integer(query, "num_heads")
    length_axis = -2 if query.args.get("batch_first") else 0
    width = q[-1]
    scores = share(size(q), width) * k[length_axis]
    projections = (2 * size(q) + size(k) + size(v)) * width
    return products(projections + 2 * scores * width, scores * heads * (1 + SOFTMAX_FLOPS))


# -- recurrent layers --------------------------------------------------------------------------------------------------

# Arithmetic for each hidden unit and step, apart from the matrix products, whose sums the biases start.
_LSTM_FLOPS = 9  # three sigmoids, two tanh; c' = f c + i g and h' = o tanh(c'): Hochreiter and Schmidhuber 1997
_GRU_FLOPS = 9  # two sigmoids, tanh; W x + r (U h) and h' = (1 - z) n + z h: Cho et al., arXiv:1406.1078
_RNN_FLOPS = 1  # its activation


def _recurrent_layers(gates: int, unit_flops: int) -> Rule:
    """A recurrent network run over a sequence in one call: input, states (layers, batch, units), weights, biases.

    Every two-dimensional weight, of whichever layer and direction, multiplies one vector for each step of each
    sequence. The input is (steps, batch, features), (batch, steps, features), or packed (all steps, features).
    """

    def rule(query: CostQuery) -> Cost:
        features = array(query, 0, min_rank=2)
        steps = share(size(features), features[-1])
        arrays = query.in_shapes[1:]
        weights = [shape for shape in arrays if len(shape) == 2]
        states = [shape for shape in arrays if len(shape) == 3]
        if not weights:
            raise UnknownCost(f"{query.type}: no weights among the arguments")
        # The last state is as wide as the cell, also where the first is projected to another width.
        units = states[-1][0] * states[-1][-1] if states else sum(rows for rows, _ in weights) // (2 * gates)
        return products(steps * sum(map(size, weights)), steps * units * unit_flops)

    return rule


def _recurrent_cell(states: int, unit_flops: int) -> Rule:
    """One step: input (batch, features), ``states`` arrays (batch, units), weight of the input, weight of the state."""

    def rule(query: CostQuery) -> Cost:
        features = array(query, 0, min_rank=1)
        batch = share(size(features), features[-1])
        weights = size(array(query, 1 + states, min_rank=2)) + size(array(query, 2 + states, min_rank=2))
        return products(batch * weights, size(array(query, 1)) * unit_flops)

    return rule


def _recurrent_kernel(query: CostQuery) -> Cost:
    """One layer in one direction: input (steps, batch, features), its two weights, biases, states (batch, units)."""
    unit_flops = {0: _RNN_FLOPS, 1: _RNN_FLOPS, 2: _LSTM_FLOPS, 3: _GRU_FLOPS}.get(integer(query, "mode"))
    if unit_flops is None:
        raise UnknownCost(f"{query.type}: mode {query.args['mode']} has no rule")
    features = array(query, 0, min_rank=1)
    steps = share(size(features), features[-1])
    of_input, of_state = array(query, 1, min_rank=2), array(query, 2, min_rank=2)
    return products(steps * (size(of_input) + size(of_state)), steps * of_state[-1] * unit_flops)


RULES = rule_table(
    (_matrix_product(left=0), "linear matmul mm bmm mv dot vdot inner intmm scaledmm"),
    (_matrix_product(left=1), "addmm addmv baddbmm"),
    (_summed_batch, "addbmm"),
    (_grouped_product, "groupedmm"),
    (_inner_products, "vecdot"),
    (_tensordot, "tensordot"),
    (_outer_sum, "addr"),
    (_outer, "outer kron"),
    (_bilinear, "bilinear"),
    (_matrix_chain, "chainmatmul multidot"),
    (_einsum, "einsum"),
    (_convolution, "conv1d conv2d conv3d convolution cudnnconvolution mkldnnconvolution convdepthwise2d"),
    (_transposed_convolution, "convtranspose1d convtranspose2d convtranspose3d"),
    (_time_batch_convolution, "convtbc"),
    (_attention, "scaleddotproductattention scaleddotproductflashattention scaleddotproductflashattentionforcpu"),
    (_attention, "scaleddotproductefficientattention scaleddotproductcudnnattention scaleddotproductattentionmath"),
    (_multi_head_attention, "multiheadattentionforward"),
    (_recurrent_layers(4, _LSTM_FLOPS), "lstm"),
    (_recurrent_layers(3, _GRU_FLOPS), "gru"),
    (_recurrent_layers(1, _RNN_FLOPS), "rnntanh rnnrelu"),
    (_recurrent_cell(2, _LSTM_FLOPS), "lstmcell"),
    (_recurrent_cell(1, _GRU_FLOPS), "grucell"),
    (_recurrent_cell(1, _RNN_FLOPS), "rnntanhcell rnnrelucell"),
    (_recurrent_kernel, "mkldnnrnnlayer"),
)

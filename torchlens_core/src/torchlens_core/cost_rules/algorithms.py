"""What is computed by an algorithm of known length: transforms, sorting, distances, scattering, linear systems.

Iterative algorithms (eigenvalues, singular values) and those whose length hangs on the values (``unique``, ``median``)
have no rule: their cost is unknown.
"""

from __future__ import annotations

from math import log2

from .query import (
    Cost,
    CostQuery,
    Rule,
    UnknownCost,
    arithmetic,
    array,
    axes,
    broadcast,
    integer,
    output,
    rule_table,
    size,
)

# -- Fourier transforms ------------------------------------------------------------------------------------------------


def _fourier(dims: tuple[int, ...] | None, *, real: str = "") -> Rule:
    """5 N log2 N for a complex transform of N points, half of it for a real one, whatever the algorithm.

    It is the count that FFT libraries are compared by (Frigo and Johnson, http://www.fftw.org/speed/method.html),
    which is that of the radix-2 algorithm of Cooley and Tukey.

    Args:
        dims: axes that are transformed where the call does not say it; None for all, () where it always says it.
        real: the side of a real transform that holds the real numbers and so has all N points: ``in`` or ``out``.
    """

    def rule(query: CostQuery) -> Cost:
        if query.args.get("s") is not None:
            raise UnknownCost(f"{query.type}: padding and cutting of several axes has no rule")
        if dims == () and query.args.get("dim") is None:
            raise UnknownCost(f"{query.type}: argument 'dim' is not known")
        points = list(array(query, 0, min_rank=1) if real == "in" else output(query, min_rank=1))
        transformed = axes(query, len(points), tuple(range(len(points))) if dims is None else dims)
        if real == "in":
            points[transformed[-1]] = integer(query, "n", default=points[transformed[-1]])
        length = size(tuple(points[axis] for axis in transformed))
        return arithmetic(round((2.5 if real else 5) * size(tuple(points)) * log2(length)) if length else 0)

    return rule


# -- order -------------------------------------------------------------------------------------------------------------


def _halvings(count: int) -> int:
    """ceil(log2(count)): comparisons that find one of so many places."""
    return max(count - 1, 0).bit_length()


def _sort(query: CostQuery) -> Cost:
    """L log2 L comparisons for each line of L elements, the count of ``HandleSort`` in XLA's ``HloCostAnalysis``."""
    shape = array(query, 0)
    if not shape:
        return arithmetic(0)
    (axis,) = axes(query, len(shape), (-1,))
    return arithmetic(size(shape) * _halvings(shape[axis]))


def _top_k(query: CostQuery) -> Cost:
    """A comparison of each element with the worst of a heap of the k best, and log2 k to put it there."""
    shape = array(query, 0)
    if not shape:
        return arithmetic(0)
    (axis,) = axes(query, len(shape), (-1,))
    return arithmetic(size(shape) * (1 + _halvings(output(query, min_rank=len(shape))[axis])))


def _bisection(boundaries: int) -> Rule:
    """log2(L + 1) comparisons find the place of each value among L boundaries, the array argument at that place."""

    def rule(query: CostQuery) -> Cost:
        return arithmetic(size(output(query)) * _halvings(array(query, boundaries, min_rank=1)[-1] + 1))

    return rule


# -- distances ---------------------------------------------------------------------------------------------------------


def _pair_distances(query: CostQuery) -> Cost:
    """For each distance and axis of the space: subtraction, modulus or square, sum; another power is one step more."""
    p = query.args.get("p", 2)
    steps = 3 if p in (0, 1, 2, float("inf")) else 4
    return arithmetic(steps * size(output(query)) * array(query, 0, min_rank=2)[-1])


def _distance(steps: int) -> Rule:
    """For each pair of elements, broadcast: subtraction, power, sum, and what else the operation does there."""

    def rule(query: CostQuery) -> Cost:
        return arithmetic(steps * size(broadcast(array(query, 0), array(query, 1))))

    return rule


def _cosine_similarity(query: CostQuery) -> Cost:
    """Three sums of products; then for each output two roots, a product and a division."""
    elements, results = size(broadcast(array(query, 0), array(query, 1))), size(output(query))
    return arithmetic(3 * (2 * elements - results) + 4 * results if elements else 0)


# -- scattering --------------------------------------------------------------------------------------------------------


def _combined(index: int) -> Rule:
    """Each element of the array argument at that place is combined with what lies at its target."""

    def rule(query: CostQuery) -> Cost:
        return arithmetic(size(array(query, index)))

    return rule


def _scatter(query: CostQuery) -> Cost:
    """Values put in place; with ``reduce`` combined with what lies there."""
    return arithmetic(size(array(query, 1)) if query.args.get("reduce") else 0)


def _index_put(query: CostQuery) -> Cost | None:
    """Values put in place; how many an accumulation adds is for the indices to say."""
    return None if query.args.get("accumulate") else arithmetic(0)


# -- linear systems ----------------------------------------------------------------------------------------------------


def _on_matrix(thirds: int) -> Rule:
    """``thirds`` / 3 n^3 for each matrix (n, n): Golub and Van Loan, *Matrix Computations*, 4th ed., 3.2 and 4.2."""

    def rule(query: CostQuery) -> Cost:
        matrices = array(query, 0, min_rank=2)
        return arithmetic(thirds * size(matrices) * matrices[-1] // 3)

    return rule


def _solve(query: CostQuery) -> Cost:
    """LU decomposition, then n^2 forwards and n^2 backwards for each right-hand side."""
    matrices = array(query, 0, min_rank=2)
    return arithmetic(2 * size(matrices) * matrices[-1] // 3 + 2 * size(output(query)) * matrices[-1])


def _solve_triangular(query: CostQuery) -> Cost:
    """n^2 for each right-hand side."""
    return arithmetic(size(output(query)) * array(query, 0, min_rank=2)[-1])


RULES = rule_table(
    (_fourier((-1,)), "fft ifft"),
    (_fourier((-2, -1)), "fft2 ifft2"),
    (_fourier(None), "fftn ifftn"),
    (_fourier((-1,), real="in"), "rfft ihfft"),
    (_fourier((-2, -1), real="in"), "rfft2 ihfft2"),
    (_fourier(None, real="in"), "rfftn ihfftn"),
    (_fourier((-1,), real="out"), "irfft hfft"),
    (_fourier((-2, -1), real="out"), "irfft2 hfft2"),
    (_fourier(None, real="out"), "irfftn hfftn"),
    (_fourier(()), "c2c"),  # kernels
    (_fourier((), real="in"), "r2c"),
    (_fourier((), real="out"), "c2r"),
    (_sort, "sort argsort"),
    (_top_k, "topk"),
    (_bisection(0), "searchsorted"),
    (_bisection(1), "bucketize"),
    (_pair_distances, "cdist cdistforward pdist pdistforward"),
    (_distance(3), "dist"),
    (_distance(4), "pairwisedistance"),  # an epsilon is added to the difference
    (_cosine_similarity, "cosinesimilarity"),
    (_combined(1), "scatteradd scatterreduce"),  # as many elements as there are indices
    (_combined(2), "indexadd indexreduce"),
    (_scatter, "scatter"),
    (_index_put, "indexput"),
    (_on_matrix(1), "cholesky choleskyex"),
    (_on_matrix(2), "lufactor lufactorex det slogdet logdet"),
    (_on_matrix(6), "inv invex"),
    (_solve, "solve solveex"),
    (_solve_triangular, "solvetriangular"),
)

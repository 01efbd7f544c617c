"""Windows and grids: pooling, resampling. Windows count whole, also where they reach into the padding."""

from __future__ import annotations

from math import ceil, floor

from .query import Cost, CostQuery, Rule, UnknownCost, arithmetic, array, integers, output, products, rule_table, size

# -- pooling -----------------------------------------------------------------------------------------------------------


def _pool(axes: int, before: int = 0, after: int = 0) -> Rule:
    """Each output combines a window of K elements, in K - 1 FLOPs.

    ``before`` and ``after``: further FLOPs for each element of the window and for each output.
    """

    def rule(query: CostQuery) -> Cost:
        window = size(integers(query, "kernel_size", axes))
        return arithmetic((before * window + window - 1 + after) * size(output(query, min_rank=axes)))

    return rule


def _adaptive_pool(axes: int, after: int = 0) -> Rule:
    """Of m outputs from n inputs the i-th combines the inputs from floor(i n / m) to ceil((i + 1) n / m)."""

    def rule(query: CostQuery) -> Cost:
        full, pooled = array(query, 0, min_rank=axes), output(query, min_rank=axes)
        covered = size(pooled[:-axes])
        for inputs, outputs in zip(full[-axes:], pooled[-axes:], strict=True):
            covered *= sum(ceil((i + 1) * inputs / outputs) - floor(i * inputs / outputs) for i in range(outputs))
        return arithmetic(covered + (after - 1) * size(pooled))

    return rule


# -- resampling --------------------------------------------------------------------------------------------------------

# Neighbours along each axis that a sample is the weighted sum of: a product and a sum for each.
_NEIGHBOURS = {"linear": 2, "bilinear": 2, "trilinear": 2, "bicubic": 4}


def _weighted(neighbours: int, axes: int) -> Rule:
    def rule(query: CostQuery) -> Cost:
        return arithmetic(2 * neighbours**axes * size(output(query)))

    return rule


def _interpolate(query: CostQuery) -> Cost | None:
    """Copies of the nearest element, weighted neighbours, or (``area``) adaptive averages."""
    mode = query.args.get("mode", "nearest")
    axes = len(array(query, 0, min_rank=3)) - 2
    if mode in ("nearest", "nearest-exact"):
        return arithmetic(0)
    if mode == "area":
        return _adaptive_pool(axes, after=1)(query)
    if mode in _NEIGHBOURS and not query.args.get("antialias"):
        return _weighted(_NEIGHBOURS[mode], axes)(query)
    raise UnknownCost(f"{query.type}: mode {mode!r} has no rule")


def _grid_sample(query: CostQuery) -> Cost:
    """Samples of (N, C, *in) at a grid (N, *out, axes), in modes ``bilinear`` and ``nearest``.

    For each coordinate four steps from [-1, 1] to a place in the array and one rounding; ``bilinear`` for each
    coordinate also the fraction and its complement, for each of the 2^axes corners the product of these, and for each
    output the weighted sum of the corners.
    """
    grid = array(query, 1, min_rank=1)
    axes = grid[-1]
    mode = query.args.get("mode", query.args.get("interpolation_mode", "bilinear"))
    if mode in ("nearest", 1):
        return arithmetic(5 * size(grid))
    if mode not in ("bilinear", 0):
        raise UnknownCost(f"{query.type}: mode {mode!r} has no rule")
    corners = 2**axes
    return arithmetic(7 * size(grid) + (axes - 1) * corners * size(grid[:-1]) + 2 * corners * size(output(query)))


def _affine_grid(query: CostQuery) -> Cost:
    """Each place, with a 1 appended, times the matrix: axes + 1 multiply-accumulates for each coordinate."""
    grid = output(query, min_rank=1)
    return products(size(grid) * (grid[-1] + 1))


def _fold(query: CostQuery) -> Cost:
    """Every element of the patches is added to its place."""
    return arithmetic(size(array(query, 0)))


RULES = rule_table(
    *((_pool(axes), f"maxpool{axes}d fractionalmaxpool{axes}d") for axes in (1, 2, 3)),
    *((_pool(axes, after=1), f"avgpool{axes}d") for axes in (1, 2, 3)),  # division
    *((_pool(axes, before=1, after=1), f"lppool{axes}d") for axes in (1, 2, 3)),  # powers, root
    *((_adaptive_pool(axes), f"adaptivemaxpool{axes}d") for axes in (1, 2, 3)),
    *((_adaptive_pool(axes, after=1), f"adaptiveavgpool{axes}d") for axes in (1, 2, 3)),
    (_interpolate, "interpolate upsample"),
    (_weighted(2, 1), "upsamplelinear1d"),
    (_weighted(2, 2), "upsamplebilinear2d upsamplebilinear"),
    (_weighted(2, 3), "upsampletrilinear3d"),
    (_weighted(4, 2), "upsamplebicubic2d"),
    (_grid_sample, "gridsample gridsampler gridsampler2d gridsampler3d"),
    (_affine_grid, "affinegrid affinegridgenerator"),
    (_fold, "fold col2im"),
)

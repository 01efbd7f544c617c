"""What is counted element by element: nothing at all, pointwise functions, reductions, normalisations, losses.

The conventions, which are those of the profilers in use:

- A pointwise function of any kind (an addition, a comparison, a choice, ``exp``, ``gelu``) is one FLOP for each element
  of its output: elementwise operations of XLA's ``HloCostAnalysis`` (which keeps transcendental functions in a column
  of their own), activations of the DeepSpeed profiler.
- A reduction of n elements to m is n - m combinations, a mean m divisions more: ``HandleReduce`` of XLA,
  ``_reduction_op_flops`` of the profilers' ``flops_registry``.
- What is defined by a formula (softmax, normalisations, losses) is the sum of its steps for each element; steps that
  are taken once for a row or a channel (an epsilon, a square root) are left out. Softmax is 5, as in that registry:
  maximum, subtraction, exponential, sum, division.
- Data types are not looked at: an operation on integers or complex numbers is one operation. Moving, choosing by
  position, creating, casting and drawing random numbers is no arithmetic.
"""

from __future__ import annotations

from .products import SOFTMAX_FLOPS
from .query import Cost, CostQuery, Rule, UnknownCost, arithmetic, array, counted, integer, output, rule_table, size


def _nothing(query: CostQuery) -> Cost:
    return arithmetic(0)


# -- pointwise ---------------------------------------------------------------------------------------------------------


def _pointwise(flops: int) -> Rule:
    def rule(query: CostQuery) -> Cost:
        return arithmetic(flops * size(output(query)))

    return rule


def _with_factor(flops: int, name: str) -> Rule:
    """One more where the argument of this name is a factor other than 1: ``x + alpha y``, ``x + value y z``."""

    def rule(query: CostQuery) -> Cost:
        return arithmetic((flops + (query.args.get(name, 1) != 1)) * size(output(query)))

    return rule


def _difference(query: CostQuery) -> Cost:
    """Of neighbours, taken once."""
    if integer(query, "n", default=1) != 1:
        raise UnknownCost(f"{query.type}: repeated differences have no rule")
    return arithmetic(size(output(query)))


def _dropout(flops: int) -> Rule:
    """In training; otherwise nothing. A call that doesn't say which is in training: the default of the functions."""

    def rule(query: CostQuery) -> Cost:
        training = query.args.get("training", query.args.get("train", True))
        return arithmetic(flops * size(output(query)) if training else 0)

    return rule


# -- reductions --------------------------------------------------------------------------------------------------------


def _reduced(query: CostQuery, before: int = 0, combine: int = 1, after: int = 0) -> Cost:
    elements, results = size(array(query, 0)), size(output(query))
    return arithmetic(before * elements + combine * max(elements - results, 0) + after * results)


def _reduction(before: int = 0, combine: int = 1, after: int = 0) -> Rule:
    """``before`` FLOPs for each input element, ``combine`` for each combination of two, ``after`` for each output."""

    def rule(query: CostQuery) -> Cost:
        return _reduced(query, before, combine, after)

    return rule


def _extremum(query: CostQuery) -> Cost:
    """``max`` and ``min`` are reductions of one array and pointwise functions of two."""
    if len(query.in_shapes) > 1:
        return arithmetic(size(output(query)))
    return _reduced(query)


def _norm(query: CostQuery) -> Cost:
    """Power or modulus, sum or maximum: 2 for each element. Norms by singular values are unknown."""
    order, dim = query.args.get("ord"), query.args.get("dim")
    of_matrix = len(dim) == 2 if isinstance(dim, (tuple, list)) else dim is None and len(array(query, 0)) == 2
    by_singular_values = (2, -2) if of_matrix or query.type == "matrixnorm" else ()
    if order in by_singular_values or "nuc" in (order, query.args.get("p")):
        raise UnknownCost(f"{query.type}: the order asks for singular values")
    return arithmetic(2 * size(array(query, 0)))


def _over_inputs(flops: int) -> Rule:
    """So many FLOPs for each element of the first array, whatever the shape of the result."""

    def rule(query: CostQuery) -> Cost:
        return arithmetic(flops * size(array(query, 0)))

    return rule


# -- normalisations ----------------------------------------------------------------------------------------------------

# Sum for the mean, subtraction, square, sum for the variance, scaling.
_STANDARDISE_FLOPS = 5
# Square, sum, scaling.
_RMS_FLOPS = 3


def _normalisation(flops: int) -> Rule:
    """Over the input's own statistics, then one FLOP for the weight and one for the bias where there is one.

    Layers: Ba et al., arXiv:1607.06450. Groups: Wu and He, arXiv:1803.08494. RMS: Zhang and Sennrich, arXiv:1910.07467.
    """

    def rule(query: CostQuery) -> Cost:
        affine = counted(query, ("weight", "bias"))
        if affine is None:
            affine = len(query.in_shapes) - 1
        return arithmetic((flops + affine) * size(array(query, 0)))

    return rule


def _channel_normalisation(statistics_argument: str, default: bool) -> Rule:
    """Batch and instance normalisation: Ioffe and Szegedy, arXiv:1502.03167; Ulyanov et al., arXiv:1607.08022.

    By kept statistics, they, weight and bias are one scale and one shift for each channel: 2 for each element.
    """

    def rule(query: CostQuery) -> Cost:
        elements = size(array(query, 0))
        if not query.args.get(statistics_argument, default):
            return arithmetic(2 * elements)
        affine = counted(query, ("weight", "bias"))
        if affine is None:
            # By position come the two kept statistics, then weight and bias. Two arrays may be either pair.
            if len(query.in_shapes) == 3:
                raise UnknownCost(f"{query.type}: arguments 'weight' and 'bias' are not known")
            affine = max(len(query.in_shapes) - 3, 0)
        return arithmetic((_STANDARDISE_FLOPS + affine) * elements)

    return rule


def _local_response_norm(query: CostQuery) -> Cost:
    """X / (k + alpha / size . sum of squares)^beta: square, sum of the window, product, sum, power, division."""
    return arithmetic((integer(query, "size") + 4) * size(array(query, 0)))


# -- losses ------------------------------------------------------------------------------------------------------------


def _loss(flops: int) -> Rule:
    """So many FLOPs for each element, and one more where they are added up. Weights of classes are not counted."""

    def rule(query: CostQuery) -> Cost:
        elements = size(array(query, 0))
        return arithmetic((flops + (size(output(query)) < elements)) * elements)

    return rule


def _nll_loss(query: CostQuery) -> Cost:
    """For each target the change of sign, and one more where they are added up."""
    targets = size(array(query, 1))
    return arithmetic((1 + (size(output(query)) < targets)) * targets)


def _cross_entropy(query: CostQuery) -> Cost:
    """Log-softmax, then the loss of class numbers; or, for targets that are probabilities, product and sum."""
    scores, target = array(query, 0), array(query, 1)
    if scores == target:
        return arithmetic((SOFTMAX_FLOPS + 2) * size(scores))
    return arithmetic(SOFTMAX_FLOPS * size(scores) + _nll_loss(query).flops)


# -- tables ------------------------------------------------------------------------------------------------------------

_NO_ARITHMETIC = """
    input output buffer identity
    view viewas reshape reshapeas unsafeview flatten unflatten ravel squeeze unsqueeze expand expandas broadcast
    broadcastto broadcasttensors permute transpose t mt h mh adjoint movedim rot90 flip fliplr flipud roll
    narrow select slice getitem setitem split splitwithsizes unsafesplit tensorsplit hsplit vsplit dsplit chunk unbind
    diagonal diag diagflat diagembed asstrided unfold real imag viewasreal viewascomplex conj resolveconj resolveneg
    atleast1d atleast2d atleast3d data alias detach requiresgrad retaingrad
    clone copy contiguous to tocopy type typeas cpu cuda pinmemory float double half bfloat16 int long short char byte
    bool cfloat cdouble chalf lift liftfresh tensor astensor scalartensor fromnumpy numpy complex
    cat stack hstack vstack dstack columnstack blockdiag repeat repeatinterleave tile meshgrid cartesianprod
    combinations pad constantpadnd reflectionpad1d reflectionpad2d reflectionpad3d replicationpad1d replicationpad2d
    replicationpad3d im2col pixelshuffle pixelunshuffle channelshuffle nativechannelshuffle triu tril
    triuindices trilindices resize resizeas
    indexselect index indexfill indexcopy gather selectscatter slicescatter diagonalscatter
    asstridedscatter take takealongdim put maskedselect maskedscatter embedding onehot
    maxunpool1d maxunpool2d maxunpool3d upsamplenearest upsamplenearest1d upsamplenearest2d upsamplenearest3d
    fftshift ifftshift
    zeros ones full empty zeroslike oneslike fulllike emptylike newzeros newones newfull newempty newtensor
    emptystrided newemptystrided zero fill filldiagonal arange range linspace logspace eye
    hannwindow hammingwindow blackmanwindow bartlettwindow fftfreq rfftfreq
    rand randn randint randperm randlike randnlike randintlike normal uniform bernoulli exponential geometric cauchy
    lognormal random poisson multinomial binomial
"""

_POINTWISE = """
    mul div floordiv remainder fmod pow floatpower neg positive abs sign sgn signbit copysign reciprocal square
    sqrt rsqrt exp exp2 expm1 log log2 log10 log1p logaddexp logaddexp2 hypot ldexp frexp frac
    sin cos tan asin acos atan atan2 sinh cosh tanh asinh acosh atanh sinc deg2rad rad2deg
    erf erfc erfinv erfcx lgamma digamma polygamma mvlgamma igamma igammac i0 i0e i1 i1e ndtr ndtri logndtr entr
    xlogy xlog1py zeta angle polar conjphysical
    floor ceil round trunc clamp clampmin clampmax maximum minimum fmax fmin nantonum nextafter heaviside
    gcd lcm and or xor invert lshift rshift logicaland logicalor logicalxor logicalnot
    eq ne lt le gt ge isclose isnan isinf isfinite isposinf isneginf isreal where maskedfill
    relu relu6 leakyrelu prelu prelukernel rrelu elu celu selu gelu silu mish sigmoid logsigmoid hardsigmoid hardswish
    hardtanh hardshrink softshrink tanhshrink softplus softsign threshold logit
    cumsum cumprod cummax cummin logcumsumexp
"""

RULES = rule_table(
    (_nothing, _NO_ARITHMETIC),
    (_pointwise(1), _POINTWISE),
    (_with_factor(1, "alpha"), "add sub"),
    (_with_factor(2, "value"), "addcmul addcdiv"),
    (_pointwise(2), "glu"),  # for each output: sigmoid, product
    (_pointwise(3), "lerp cross"),  # difference, product, sum; two products, difference
    (_difference, "diff"),
    (_dropout(2), "dropout dropout1d dropout2d dropout3d featuredropout nativedropout"),  # product with mask, scaling
    (_dropout(4), "alphadropout featurealphadropout"),  # product with mask, saturation added, scaling, shift
    (_reduction(), "sum sumtosize prod amax amin argmax argmin all any"),
    (_extremum, "max min"),
    (_reduction(combine=2), "aminmax"),
    (_reduction(after=1), "mean"),
    (_reduction(before=1), "countnonzero"),  # comparison
    (_reduction(before=2), "nansum"),  # test, choice
    (_reduction(before=2, combine=2, after=2), "var varmean"),  # two means, and between them subtraction and square
    (_reduction(before=2, combine=2, after=3), "std stdmean"),
    (_reduction(before=2, combine=2, after=2), "logsumexp"),  # maximum, subtraction, exponential, sum, log, addition
    (_norm, "norm matrixnorm"),
    (_over_inputs(2), "vectornorm"),
    (_over_inputs(3), "normalize"),  # norm, division
    (_over_inputs(1), "nonzero argwhere bincount"),
    (_over_inputs(SOFTMAX_FLOPS), "softmax logsoftmax safesoftmax"),
    (_over_inputs(SOFTMAX_FLOPS + 1), "softmin"),
    (_over_inputs(SOFTMAX_FLOPS + 4), "gumbelsoftmax"),  # logarithm, change of sign, sum, temperature
    (_normalisation(_STANDARDISE_FLOPS), "layernorm nativelayernorm groupnorm nativegroupnorm"),
    (_normalisation(_RMS_FLOPS), "rmsnorm fusedrmsnorm"),
    (_channel_normalisation("training", default=False), "batchnorm nativebatchnorm nativebatchnormlegit"),
    (_channel_normalisation("training", default=False), "nativebatchnormlegitnotraining cudnnbatchnorm"),
    (_channel_normalisation("use_input_stats", default=True), "instancenorm"),
    (_local_response_norm, "localresponsenorm"),
    (_loss(2), "mseloss l1loss"),
    (_loss(3), "kldiv"),  # logarithm or exponential of the target, subtraction, product
    (_loss(4), "softmarginloss"),  # product, change of sign, exponential, logarithm of 1 + it
    (_loss(6), "smoothl1loss huberloss"),  # subtraction, modulus, comparison; square and two factors where it is small
    (_loss(8), "binarycrossentropy"),  # two each of logarithm, complement and product; sum, change of sign
    (_loss(8), "binarycrossentropywithlogits"),  # max(x, 0) - x t + log(1 + exp(-|x|))
    (_nll_loss, "nllloss nllloss2d nlllossnd nlllossforward nllloss2dforward"),
    (_cross_entropy, "crossentropy crossentropyloss"),
)

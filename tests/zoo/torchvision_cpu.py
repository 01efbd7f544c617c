"""Import torchvision on a CPU build of torch.

The torchvision wheels of PyPI are built for CUDA: on a CPU build of torch their compiled operators do not load, and
the import fails where it describes operators that nobody declared. ``import_torchvision`` declares them first and
gives kernels to the two that the detection models call, ``nms`` and ``roi_align``. The others have a schema only and
raise when called.
"""

import sys
from collections.abc import Callable
from types import ModuleType

import torch

_ROI = "Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width"
_ROI_GRAD = "float spatial_scale, SymInt pooled_height, SymInt pooled_width"
_ROI_SHAPE = "SymInt batch_size, SymInt channels, SymInt height, SymInt width"
_DEFORM = (
    "Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, SymInt stride_h, SymInt stride_w, "
    "SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w, SymInt groups, SymInt offset_groups, "
    "bool use_mask"
)

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "box_iou_rotated(Tensor boxes1, Tensor boxes2) -> Tensor",
    f"roi_align({_ROI}, int sampling_ratio, bool aligned) -> Tensor",
    f"_roi_align_backward(Tensor grad, Tensor rois, {_ROI_GRAD}, {_ROI_SHAPE}, int sampling_ratio, bool aligned)"
    " -> Tensor",
    "qroi_align(Tensor input, Tensor rois, float input_scale, int input_zero_point, float rois_scale, "
    "int rois_zero_point, float spatial_scale, SymInt pooled_height, SymInt pooled_width, int sampling_ratio, "
    "bool aligned) -> Tensor",
    f"roi_pool({_ROI}) -> (Tensor, Tensor)",
    f"_roi_pool_backward(Tensor grad, Tensor rois, Tensor argmax, {_ROI_GRAD}, {_ROI_SHAPE}) -> Tensor",
    f"ps_roi_align({_ROI}, int sampling_ratio) -> (Tensor, Tensor)",
    f"_ps_roi_align_backward(Tensor grad, Tensor rois, Tensor channel_mapping, {_ROI_GRAD}, int sampling_ratio, "
    f"{_ROI_SHAPE}) -> Tensor",
    f"ps_roi_pool({_ROI}) -> (Tensor, Tensor)",
    f"_ps_roi_pool_backward(Tensor grad, Tensor rois, Tensor channel_mapping, {_ROI_GRAD}, {_ROI_SHAPE}) -> Tensor",
    f"deform_conv2d({_DEFORM}) -> Tensor",
    f"_deform_conv2d_backward(Tensor grad, {_DEFORM}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    "_cuda_version() -> int",
)

_library: torch.library.Library | None = None  # the declarations live as long as this object does


def import_torchvision() -> ModuleType:
    """Return torchvision, with its operators declared here where its own compiled ones do not fit this torch."""
    global _library
    if "torchvision" not in sys.modules and torch.version.cuda is None:
        _library = torch.library.Library("torchvision", "DEF")
        for schema in SCHEMAS:
            _library.define(schema)
        _library.impl("nms", _nms, "CPU")
        _library.impl("roi_align", _roi_align, "CPU")
        _library.impl("_cuda_version", lambda: -1, "CompositeImplicitAutograd")
        load, torch.ops.load_library = torch.ops.load_library, _skipping_compiled_operators(torch.ops.load_library)
        try:
            import torchvision
        finally:
            torch.ops.load_library = load
    import torchvision

    return torchvision


def _skipping_compiled_operators(load: Callable[[str], None]) -> Callable[[str], None]:
    """Torchvision asks for its operators by ``load_library``: they are declared already, other libraries load."""

    def load_library(path: str) -> None:
        if "torchvision" not in path:
            load(path)

    return load_library


def _nms(dets: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Greedy non-maximum suppression of boxes ``(n, 4)`` as x1, y1, x2, y2: the kept indices, best score first."""
    order = scores.argsort(descending=True, stable=True)
    boxes = dets[order]
    size = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    corner = torch.minimum(boxes[:, None, 2:], boxes[:, 2:]) - torch.maximum(boxes[:, None, :2], boxes[:, :2])
    shared = corner.clamp(min=0).prod(2)
    overlapping = shared / (size[:, None] + size - shared) > iou_threshold
    kept = torch.ones_like(order, dtype=torch.bool)
    for best in range(len(order)):
        if kept[best]:
            kept[best + 1 :] &= ~overlapping[best, best + 1 :]
    return order[kept]


def _roi_align(
    input: torch.Tensor,
    rois: torch.Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> torch.Tensor:
    """Torchvision's own formula in plain torch, without the ``torch.compile`` that it wraps around it."""
    formula = sys.modules["torchvision.ops.roi_align"]._roi_align.__wrapped__
    return formula(input, rois, spatial_scale, pooled_height, pooled_width, sampling_ratio, aligned)

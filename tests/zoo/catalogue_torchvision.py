"""Architectures of torchvision: classification, segmentation, detection, video, optical flow."""

from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import torch
from torch import nn

from tests.zoo.catalogue_entry import Arguments, Entry, clip, floats, image
from tests.zoo.torchvision_cpu import import_torchvision

models = import_torchvision().models

Row = tuple[str, str, str, Callable[[], Arguments], dict[str, Any]]


def _photograph() -> Arguments:
    """What the detection models take: a list of images, values from 0 to 1; here a single one."""
    return ([torch.rand(3, 64, 64)],), {}


def _photographs() -> Arguments:
    """Two images of different sizes."""
    return ([torch.rand(3, 64, 64), torch.rand(3, 48, 64)],), {}


PLAIN = {"weights": None, "num_classes": 10}
NO_AUXILIARY = PLAIN | {"aux_logits": False, "init_weights": False}
DENSE = PLAIN | {"weights_backbone": None}
DETECTION = {"weights": None, "weights_backbone": None, "num_classes": 5, "min_size": 64, "max_size": 64}
TWO_STAGES = DETECTION | {"rpn_pre_nms_top_n_test": 30, "rpn_post_nms_top_n_test": 10, "box_score_thresh": 0.0}
TWO_STAGES |= {"box_detections_per_img": 4}
ONE_STAGE = DETECTION | {"topk_candidates": 20, "score_thresh": 0.0}
SSD = {"weights": None, "weights_backbone": None, "num_classes": 5, "topk_candidates": 20, "score_thresh": 0.0}
TINY_VIT = {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64}
TINY_SWIN = {"embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4], "num_classes": 10}
MVIT_BLOCK = partial(
    models.video.mvit.MSBlockConfig, output_channels=32, kernel_q=[3] * 3, kernel_kv=[3] * 3, stride_kv=[1, 2, 2]
)
TINY_MVIT = {
    "spatial_size": (32, 32),
    "temporal_size": 4,
    "block_setting": [
        MVIT_BLOCK(num_heads=1, input_channels=16, stride_q=[1, 1, 1]),
        MVIT_BLOCK(num_heads=2, input_channels=32, stride_q=[1, 2, 2]),
    ],
    "residual_pool": True,
    "residual_with_cls_embed": False,
    "rel_pos_embed": True,
    "proj_after_attn": True,
    "num_classes": 10,
}
TINY_MAXVIT = {"input_size": (56, 56), "stem_channels": 16, "partition_size": 7, "block_channels": [16, 32]}

# constructor below torchvision.models, family, kind, inputs, options
ROWS: list[Row] = [
    ("alexnet", "alexnet", "cnn", image(64), PLAIN),
    ("vgg11", "vgg", "cnn", image(32), PLAIN),
    ("resnet18", "resnet", "cnn", image(64), PLAIN),
    ("resnet50", "resnet", "cnn", image(64), PLAIN),
    ("resnext50_32x4d", "resnext", "cnn", image(64), PLAIN),
    ("wide_resnet50_2", "wide resnet", "cnn", image(64), PLAIN),
    ("densenet121", "densenet", "cnn", image(64), PLAIN),
    ("inception_v3", "inception", "cnn", image(96), NO_AUXILIARY),
    ("googlenet", "googlenet", "cnn", image(64), NO_AUXILIARY),
    ("mobilenet_v2", "mobilenet v2", "cnn", image(64), PLAIN),
    ("mobilenet_v3_small", "mobilenet v3", "cnn", image(64), PLAIN),
    ("mobilenet_v3_large", "mobilenet v3", "cnn", image(64), PLAIN),
    ("shufflenet_v2_x0_5", "shufflenet", "cnn", image(64), PLAIN),
    ("squeezenet1_0", "squeezenet", "cnn", image(64), PLAIN),
    ("squeezenet1_1", "squeezenet", "cnn", image(64), PLAIN),
    ("mnasnet0_5", "mnasnet", "cnn", image(64), PLAIN),
    ("efficientnet_b0", "efficientnet", "cnn", image(64), PLAIN),
    ("efficientnet_v2_s", "efficientnet v2", "cnn", image(64), PLAIN),
    ("regnet_x_400mf", "regnet", "cnn", image(64), PLAIN),
    ("regnet_y_400mf", "regnet", "cnn", image(64), PLAIN),
    ("convnext_tiny", "convnext", "cnn", image(64), PLAIN),
    ("VisionTransformer", "vit", "vit", image(32), TINY_VIT | {"num_classes": 10}),
    (
        "SwinTransformer",
        "swin",
        "vit",
        image(64),
        TINY_SWIN | {"patch_size": [4, 4], "window_size": [4, 4]},
    ),
    (
        "SwinTransformer",
        "swin v2",
        "vit",
        image(64),
        TINY_SWIN
        | {
            "patch_size": [4, 4],
            "window_size": [4, 4],
            "block": models.swin_transformer.SwinTransformerBlockV2,
            "downsample_layer": models.swin_transformer.PatchMergingV2,
        },
    ),
    (
        "MaxVit",
        "maxvit",
        "vit",
        image(56),
        TINY_MAXVIT | {"block_layers": [1, 1], "head_dim": 8, "stochastic_depth_prob": 0.0, "num_classes": 10},
    ),
    ("segmentation.fcn_resnet50", "fcn", "segmentation", image(64), DENSE),
    ("segmentation.deeplabv3_mobilenet_v3_large", "deeplab v3", "segmentation", image(64), DENSE),
    ("segmentation.deeplabv3_resnet50", "deeplab v3", "segmentation", image(64), DENSE),
    ("segmentation.lraspp_mobilenet_v3_large", "lraspp", "segmentation", image(64), DENSE),
    ("detection.fasterrcnn_mobilenet_v3_large_320_fpn", "faster r-cnn", "detection", _photographs, TWO_STAGES),
    ("detection.fasterrcnn_resnet50_fpn", "faster r-cnn", "detection", _photographs, TWO_STAGES),
    ("detection.maskrcnn_resnet50_fpn", "mask r-cnn", "detection", _photographs, TWO_STAGES),
    ("detection.keypointrcnn_resnet50_fpn", "keypoint r-cnn", "detection", _photographs, TWO_STAGES),
    ("detection.retinanet_resnet50_fpn", "retinanet", "detection", _photograph, ONE_STAGE),
    ("detection.fcos_resnet50_fpn", "fcos", "detection", _photograph, ONE_STAGE),
    ("detection.ssdlite320_mobilenet_v3_large", "ssd", "detection", _photograph, SSD),
    ("video.r3d_18", "r3d", "video", clip(4, 32), PLAIN),
    ("video.mc3_18", "mc3", "video", clip(4, 32), PLAIN),
    ("video.r2plus1d_18", "r(2+1)d", "video", clip(4, 32), PLAIN),
    ("video.s3d", "s3d", "video", clip(14, 224), PLAIN),
    (
        "video.SwinTransformer3d",
        "swin3d",
        "video",
        clip(4, 32),
        TINY_SWIN | {"patch_size": [2, 4, 4], "window_size": [2, 4, 4]},
    ),
    ("video.MViT", "mvit", "video", clip(4, 32), TINY_MVIT),
    ("optical_flow.raft_small", "raft", "optical flow", floats((1, 3, 128, 128), (1, 3, 128, 128)), {"weights": None}),
]

_BATCH = "images and regions of each scale are written, one after the other, into one array"
RECURRENT = {
    "optical_flow.raft_small": "twelve updates of the flow by one recurrent unit",
    "detection.fasterrcnn_mobilenet_v3_large_320_fpn": _BATCH,
    "detection.fasterrcnn_resnet50_fpn": _BATCH,
    "detection.maskrcnn_resnet50_fpn": _BATCH,
    "detection.keypointrcnn_resnet50_fpn": _BATCH,
}


def _build(constructor: str, options: dict[str, Any]) -> nn.Module:
    return reduce(getattr, constructor.split("."), models)(**options)


def _entry(constructor: str, family: str, kind: str, inputs: Callable[[], Arguments], options: dict[str, Any]) -> Entry:
    name = constructor.split(".")[-1] + ("_v2" if family == "swin v2" else "")
    return Entry(
        f"torchvision/{name}",
        family,
        kind,
        partial(_build, constructor, options),
        inputs,
        constructor in RECURRENT,
        RECURRENT.get(constructor, ""),
    )


ENTRIES = [_entry(*row) for row in ROWS]

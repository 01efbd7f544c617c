"""Architectures of transformers that classify images or describe their points."""

import torch

from tests.zoo.catalogue_entry import Arguments
from tests.zoo.catalogue_hugging import Row, ids, large_picture, picture
from tests.zoo.tiny_configs import FEATURES, RESNET, SWIN, VIT


def two_pictures() -> Arguments:
    """A pair of images, to be matched."""
    return (), {"pixel_values": torch.rand(1, 2, 3, 64, 64)}


def pixels() -> Arguments:
    """An image of 8 by 8 as tokens."""
    return (), {"input_ids": ids(1, 64)}


# fmt: off
IMAGES: list[Row] = [
    ("ViTForImageClassification", "vit", picture, VIT),
    ("DeiTForImageClassificationWithTeacher", "deit", picture, VIT),
    ("BeitForImageClassification", "beit", picture, VIT | {"use_relative_position_bias": True}),
    ("Data2VecVisionForImageClassification", "data2vec vision", picture, VIT | {"out_indices": [1, 2]}),
    ("Dinov2ForImageClassification", "dinov2", picture, VIT),
    ("Dinov2WithRegistersForImageClassification", "dinov2 registers", picture, VIT),
    ("DINOv3ViTModel", "dinov3", picture, VIT),
    ("ViTMAEForPreTraining", "vit mae", picture, VIT | {"decoder_hidden_size": 32, "decoder_num_hidden_layers": 1,
     "decoder_num_attention_heads": 4, "decoder_intermediate_size": 48}),
    ("ViTMSNForImageClassification", "vit msn", picture, VIT),
    ("IJepaForImageClassification", "i-jepa", picture, VIT),
    ("VitDetModel", "vitdet", picture, VIT | {"window_block_indices": [0], "window_size": 2,
     "use_relative_position_embeddings": True}),
    ("ImageGPTForCausalImageModeling", "imagegpt", pixels, {"vocab_size": 99, "n_embd": 32, "n_layer": 2, "n_head":
     4, "n_positions": 64}),
    ("SwinForImageClassification", "swin", large_picture, SWIN),
    ("Swinv2ForImageClassification", "swin v2", large_picture, SWIN),
    ("Swin2SRForImageSuperResolution", "swin2sr", picture, {"image_size": 32, "embed_dim": 16, "depths": [1, 1],
     "num_heads": [2, 2], "window_size": 4}),
    ("HieraForImageClassification", "hiera", large_picture, {"image_size": [64, 64], "embed_dim": 16, "depths": [1]
     * 4, "num_heads": [1, 1, 2, 2]}),
    ("LevitForImageClassification", "levit", large_picture, {"image_size": 64, "hidden_sizes": [16, 32, 48],
     "num_attention_heads": [2, 4, 6], "depths": [1, 1, 1], "key_dim": [8, 8, 8]}),
    ("CvtForImageClassification", "cvt", large_picture, {"embed_dim": [16, 32, 48], "num_heads": [1, 2, 4], "depth":
     [1, 2, 3]}),
    ("PvtForImageClassification", "pvt", large_picture, FEATURES | {"image_size": 64, "num_attention_heads": [1, 1,
     2, 2]}),
    # dinat needs the compiled kernels of natten.
    ("FocalNetForImageClassification", "focalnet", large_picture, {"image_size": 64, "embed_dim": 16, "depths": [1,
     1], "focal_levels": [2, 2], "focal_windows": [3, 3]}),
    ("PoolFormerForImageClassification", "poolformer", large_picture, FEATURES),
    ("SwiftFormerForImageClassification", "swiftformer", large_picture, {"embed_dims": [8, 16, 16, 32], "depths":
     [1] * 4}),
    ("MobileViTForImageClassification", "mobilevit", large_picture, {"image_size": 64, "hidden_sizes": [16, 24, 32],
     "neck_hidden_sizes": [8, 8, 16, 16, 24, 24, 32]}),
    ("ConvNextForImageClassification", "convnext", large_picture, FEATURES),
    ("ConvNextV2ForImageClassification", "convnext v2", large_picture, FEATURES),
    ("ResNetForImageClassification", "resnet", large_picture, RESNET),
    ("RegNetForImageClassification", "regnet", large_picture, RESNET | {"layer_type": "y", "groups_width": 8}),
    ("BitForImageClassification", "bit", large_picture, {"embedding_size": 32, "hidden_sizes": [128] * 4, "depths":
     [1] * 4}),
    ("MobileNetV1ForImageClassification", "mobilenet v1", large_picture, {"depth_multiplier": 0.25}),
    ("EfficientNetForImageClassification", "efficientnet", large_picture, {"width_coefficient": 0.5,
     "depth_coefficient": 0.5, "hidden_dim": 640}),
    ("HGNetV2ForImageClassification", "hgnet", large_picture, {}),
    ("SuperPointForKeypointDetection", "superpoint", large_picture, {"encoder_hidden_sizes": [8, 8, 16, 16],
     "decoder_hidden_size": 16, "descriptor_decoder_dim": 16}),
    ("LightGlueForKeypointMatching", "lightglue", two_pictures, {}),
]
# fmt: on

KINDS = {"vision": IMAGES}
RECURRENT = {
    "HieraForImageClassification": "a loop of reshapes puts the patches in order, one stride after the other",
    "SuperPointForKeypointDetection": "maxima are suppressed in two rounds of one loop",
    "LightGlueForKeypointMatching": "superpoint finds its keypoints, by two rounds of one loop",
}

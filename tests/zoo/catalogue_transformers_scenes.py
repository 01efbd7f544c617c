"""Architectures of transformers that segment, detect, watch videos, or read images together with text."""

import torch

from tests.zoo.catalogue_entry import Arguments
from tests.zoo.catalogue_hugging import Row, ids, large_picture, picture
from tests.zoo.tiny_configs import (
    DEFORMABLE,
    DETR,
    FEATURES,
    FOUR_LAYERS,
    LLAMA,
    RESNET,
    RT_DETR,
    STAGES,
    SWIN4,
    TEXT,
    VIT,
    ZOE,
)


def frames() -> Arguments:
    """Four frames of 32 by 32."""
    return (), {"pixel_values": torch.randn(1, 4, 3, 32, 32)}


def captioned() -> Arguments:
    """An image of 32 by 32 and a sentence of 8 tokens."""
    return (), {"input_ids": ids(1, 8), "pixel_values": torch.randn(1, 3, 32, 32)}


def page() -> Arguments:
    """Twelve tokens and where they stand on a page."""
    corner = torch.randint(0, 400, (1, 12, 2))
    return (), {"input_ids": ids(1, 12), "bbox": torch.cat([corner, corner + 50], dim=-1)}


def regions() -> Arguments:
    """Eight tokens and the features of four regions of an image."""
    return (), {"input_ids": ids(1, 8), "visual_embeds": torch.randn(1, 4, 16)}


def large_captioned() -> Arguments:
    """An image of 64 by 64 and a sentence of 8 tokens."""
    return (), {"input_ids": ids(1, 8), "pixel_values": torch.randn(1, 3, 64, 64)}


def illustrated() -> Arguments:
    """A sentence whose first tokens, numbered 98, stand for the 16 patches of an image of 32 by 32."""
    sentence = torch.cat([torch.full((1, 16), 98), ids(1, 6).clamp(max=90)], dim=1)
    return (), {"input_ids": sentence, "pixel_values": torch.randn(1, 3, 32, 32)}


def pointed() -> Arguments:
    """An image of 64 by 64 and one point on it."""
    return (), {"pixel_values": torch.randn(1, 3, 64, 64), "input_points": torch.rand(1, 1, 1, 2) * 60}


def film() -> Arguments:
    """Four frames of 32 by 32, under the name that v-jepa gives them."""
    return (), {"pixel_values_videos": torch.randn(1, 4, 3, 32, 32)}


def masked_frames() -> Arguments:
    """Four frames of 32 by 32, half of their 32 tubes masked."""
    mask = torch.zeros(1, 32, dtype=torch.bool)
    mask[:, ::2] = True
    return (), {"pixel_values": torch.randn(1, 4, 3, 32, 32), "bool_masked_pos": mask}


def pictured_page() -> Arguments:
    """Twelve tokens, where they stand on a page, and the page's image."""
    args, kwargs = page()
    return args, kwargs | {"pixel_values": torch.randn(1, 3, 32, 32)}


def boxed_regions() -> Arguments:
    """Eight tokens, the features of four regions of an image and their boxes."""
    return (), {"input_ids": ids(1, 8), "visual_feats": torch.randn(1, 4, 16), "visual_pos": torch.rand(1, 4, 4)}


def painted() -> Arguments:
    """An image with a prompt image and the prompt's mask."""
    shape = (1, 3, 32, 32)
    return (), {
        "pixel_values": torch.randn(shape),
        "prompt_pixel_values": torch.randn(shape),
        "prompt_masks": torch.randn(shape),
    }


def trimap() -> Arguments:
    """An image with a fourth channel that marks what is known."""
    return (), {"pixel_values": torch.randn(1, 4, 32, 32)}


def captioned_page() -> Arguments:
    """An image, its patches flattened as pix2struct takes them, and the text so far."""
    row_and_column = torch.stack([torch.arange(12) // 4 + 1, torch.arange(12) % 4 + 1], dim=-1)
    patches = torch.cat([row_and_column.unsqueeze(0), torch.randn(1, 12, 48)], dim=-1)
    return (), {"flattened_patches": patches, "decoder_input_ids": ids(1, 6)}


# fmt: off
DENSE: list[Row] = [
    ("SegformerForSemanticSegmentation", "segformer", large_picture, FEATURES | {"num_attention_heads": [1, 1, 2,
     2], "decoder_hidden_size": 16}),
    ("MobileViTV2ForSemanticSegmentation", "mobilevit v2", large_picture, {"image_size": 64, "width_multiplier": 0.25}),
    ("DPTForDepthEstimation", "dpt", picture, VIT | {"num_hidden_layers": 4, "backbone_out_indices": [0, 1, 2, 3],
     "neck_hidden_sizes": [8, 8, 16, 16], "fusion_hidden_size": 16}),
    ("GLPNForDepthEstimation", "glpn", large_picture, FEATURES | {"num_attention_heads": [1, 1, 2, 2],
     "decoder_hidden_size": 16}),
    ("DepthAnythingForDepthEstimation", "depth anything", picture, {"backbone_config": FOUR_LAYERS | {"model_type":
     "dinov2"}, "patch_size": 8, "reassemble_hidden_size": 32, "neck_hidden_sizes": [8, 8, 16, 16],
     "fusion_hidden_size": 16}),
    ("ZoeDepthForDepthEstimation", "zoedepth", picture, ZOE),
    ("UperNetForSemanticSegmentation", "upernet", large_picture, {"backbone_config": RESNET | STAGES |
     {"model_type": "resnet"}, "hidden_size": 16, "auxiliary_in_channels": 32}),
    ("MaskFormerForInstanceSegmentation", "maskformer", large_picture, {"backbone_config": SWIN4 | STAGES |
     {"model_type": "swin"}, "decoder_config": DETR | {"model_type": "detr"}, "fpn_feature_size": 32,
     "mask_feature_size": 32, "num_attention_heads": 4}),
    ("Mask2FormerForUniversalSegmentation", "mask2former", large_picture, {"backbone_config": SWIN4 | STAGES |
     {"model_type": "swin"}, "hidden_dim": 32, "feature_size": 32, "mask_feature_size": 32, "encoder_layers": 1,
     "decoder_layers": 3, "num_attention_heads": 4, "num_queries": 6, "dim_feedforward": 48,
     "encoder_feedforward_dim": 48}),
    ("SegGptForImageSegmentation", "seggpt", painted, VIT | {"image_size": [64, 32],
     "intermediate_hidden_state_indices": [0, 1], "merge_index": 0, "pretrain_image_size": 32,
     "decoder_hidden_size": 16}),
    ("VitMatteForImageMatting", "vitmatte", trimap, {"backbone_config": VIT | {"model_type": "vitdet",
     "num_channels": 4, "patch_size": 16, "out_features": ["stage2"]}, "hidden_size": 32, "convstream_hidden_sizes":
     [8, 8, 16], "fusion_hidden_sizes": [32, 16, 16, 8]}),
    ("VitPoseForPoseEstimation", "vitpose", picture, {"backbone_config": VIT | {"model_type": "vitpose_backbone",
     "image_size": [32, 32], "patch_size": [8, 8], "out_features": ["stage2"]}, "use_simple_decoder": False}),
    ("SamModel", "sam", pointed, {"vision_config": VIT | {"image_size": 64, "output_channels": 16, "mlp_dim": 48,
     "num_pos_feats": 8, "global_attn_indexes": [1], "window_size": 2}, "prompt_encoder_config": {"hidden_size": 16,
     "image_size": 64, "patch_size": 8, "mask_input_channels": 4}, "mask_decoder_config": {"hidden_size": 16,
     "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16, "num_hidden_layers": 2}}),
]

DETECTION: list[Row] = [
    ("DetrForObjectDetection", "detr", large_picture, DETR),
    ("ConditionalDetrForObjectDetection", "conditional detr", large_picture, DETR | {"decoder_layers": 3}),
    ("DabDetrForObjectDetection", "dab-detr", large_picture, DETR | {"hidden_size": 32}),
    ("DeformableDetrForObjectDetection", "deformable detr", large_picture, DEFORMABLE | {"with_box_refine": True}),
    ("RTDetrForObjectDetection", "rt-detr", large_picture, RT_DETR),
    ("RTDetrV2ForObjectDetection", "rt-detr v2", large_picture, RT_DETR),
    ("DFineForObjectDetection", "d-fine", large_picture, RT_DETR),
    ("YolosForObjectDetection", "yolos", picture, VIT | {"image_size": [32, 32], "num_detection_tokens": 5}),
    ("OwlViTForObjectDetection", "owl-vit", captioned, {"text_config": TEXT, "vision_config": VIT, "projection_dim":
     32}),
    ("GroundingDinoForObjectDetection", "grounding dino", large_captioned, DEFORMABLE | {"text_config": TEXT |
     {"model_type": "bert"}, "max_text_len": 32}),
]

VIDEOS: list[Row] = [
    ("VideoMAEForPreTraining", "videomae", masked_frames, VIT | {"num_frames": 4, "decoder_hidden_size": 32,
     "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 4, "decoder_intermediate_size": 48}),
    ("TimesformerForVideoClassification", "timesformer", frames, VIT | {"num_frames": 4}),
    ("VivitForVideoClassification", "vivit", frames, VIT | {"num_frames": 4, "tubelet_size": [2, 8, 8]}),
    ("VJEPA2Model", "v-jepa 2", film, VIT | {"patch_size": 8, "crop_size": 32, "frames_per_clip": 4,
     "pred_hidden_size": 48, "pred_num_attention_heads": 4, "pred_num_hidden_layers": 1}),
]

BOTH: list[Row] = [
    ("CLIPModel", "clip", captioned, {"text_config": TEXT, "vision_config": VIT, "projection_dim": 32}),
    ("SiglipModel", "siglip", captioned, {"text_config": TEXT, "vision_config": VIT}),
    ("ChineseCLIPModel", "chinese clip", captioned, {"text_config": TEXT, "vision_config": VIT, "projection_dim": 32}),
    ("AltCLIPModel", "altclip", captioned, {"text_config": TEXT | {"project_dim": 32}, "vision_config": VIT,
     "projection_dim": 32}),
    ("CLIPSegForImageSegmentation", "clipseg", captioned, {"text_config": TEXT, "vision_config": VIT,
     "projection_dim": 32, "extract_layers": [0, 1], "reduce_dim": 16, "decoder_num_attention_heads": 2,
     "decoder_intermediate_size": 32}),
    ("GroupViTModel", "groupvit", captioned, {"text_config": TEXT, "vision_config": VIT | {"depths": [1, 1, 1],
     "num_group_tokens": [8, 4, 0], "num_output_groups": [8, 4, 4]}, "projection_dim": 32,
     "projection_intermediate_dim": 32}),
    ("BlipForImageTextRetrieval", "blip", captioned, {"text_config": TEXT | {"encoder_hidden_size": 32},
     "vision_config": VIT, "image_text_hidden_size": 16}),
    ("ViltForMaskedLM", "vilt", captioned, VIT | TEXT | {"max_image_length": -1}),
    ("BridgeTowerModel", "bridgetower", captioned, {"hidden_size": 64, "num_attention_heads": 4,
     "num_hidden_layers": 2, "text_config": TEXT | {"hidden_size": 64}, "vision_config": VIT | {"hidden_size":
     64}}),
    ("GitForCausalLM", "git", captioned, TEXT | {"vision_config": VIT}),
    ("FlavaModel", "flava", captioned, {"text_config": TEXT, "image_config": VIT, "multimodal_config": VIT,
     "hidden_size": 32}),
    ("VisualBertForPreTraining", "visualbert", regions, TEXT | {"visual_embedding_dim": 16}),
    ("LxmertModel", "lxmert", boxed_regions, TEXT | {"visual_feat_dim": 16, "l_layers": 1, "x_layers": 1,
     "r_layers": 1}),
    ("LayoutLMForMaskedLM", "layoutlm", page, TEXT),
    ("LayoutLMv3ForTokenClassification", "layoutlmv3", pictured_page, TEXT | {"input_size": 32, "patch_size": 8,
     "coordinate_size": 4, "shape_size": 8}),
    ("LiltForTokenClassification", "lilt", page, TEXT | {"channel_shrink_ratio": 2, "hidden_size": 48}),
    ("LlavaForConditionalGeneration", "llava", illustrated, {"vision_config": VIT | {"model_type":
     "clip_vision_model"}, "text_config": LLAMA | {"model_type": "llama"}, "image_token_index": 98}),
    ("PaliGemmaForConditionalGeneration", "paligemma", illustrated, {"vision_config": VIT | {"model_type":
     "siglip_vision_model", "projection_dim": 32, "vision_use_head": False}, "text_config": LLAMA | {"model_type":
     "gemma"}, "image_token_index": 98, "projection_dim": 32}),
    ("Pix2StructForConditionalGeneration", "pix2struct", captioned_page, {"vision_config": {"hidden_size": 32,
     "patch_embed_hidden_size": 48, "d_ff": 48, "d_kv": 8, "num_hidden_layers": 2, "num_attention_heads": 4},
     "text_config": {"vocab_size": 99, "hidden_size": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}}),
    ("Blip2ForConditionalGeneration", "blip-2", illustrated, {"vision_config": VIT, "qformer_config": TEXT |
     {"encoder_hidden_size": 32}, "text_config": TEXT | {"model_type": "opt", "ffn_dim": 48, "word_embed_proj_dim":
     32}, "num_query_tokens": 16, "image_token_index": 98}),
]
# fmt: on

KINDS = {"segmentation": DENSE, "detection": DETECTION, "video": VIDEOS, "vision and text": BOTH}
RECURRENT = {
    "UperNetForSemanticSegmentation": "a loop adds each scale, enlarged, to the next finer one",
    "ZoeDepthForDepthEstimation": "a loop moves the bins towards one attractor after the other",
    "DeformableDetrForObjectDetection": "the box heads that move the reference points also give the final boxes",
    "BlipForImageTextRetrieval": "one layer norm applied to the states, and again to the first of them",
    "Blip2ForConditionalGeneration": "one layer norm applied to the states, and again to the first of them",
    "Mask2FormerForUniversalSegmentation": "one mask head after every decoder layer; its mask steers the next layer",
    "ConditionalDetrForObjectDetection": "one query scale before every decoder layer but the first",
    "DabDetrForObjectDetection": "one box head after every decoder layer; its boxes go to the next layer",
    "RTDetrForObjectDetection": "one head turns the boxes of each decoder layer into positions for the next",
    "RTDetrV2ForObjectDetection": "one head turns the boxes of each decoder layer into positions for the next",
    "DFineForObjectDetection": "one head turns the boxes of each decoder layer into positions for the next",
    "GroundingDinoForObjectDetection": "one head turns the boxes of each decoder layer into positions for the next",
}

"""Architectures of timm: image classifiers, the small variant of each family at a small size."""

from functools import partial
from typing import Any

from torch import nn

from tests.zoo.catalogue_entry import Entry, image
from tests.zoo.torchvision_cpu import import_torchvision

import_torchvision()  # timm imports torchvision
import timm  # noqa: E402

Row = tuple[str, str, int, dict[str, Any]]  # model, family, height and width of the image, options
SMALL: dict[str, Any] = {"embed_dim": 32, "depth": 2, "num_heads": 2}
VIT = SMALL | {"img_size": 64}

CONVOLUTIONAL: list[Row] = [
    ("resnet10t", "resnet", 64, {}),
    ("resnetv2_18", "resnet v2", 64, {}),
    ("resnetv2_50x1_bit", "bit", 64, {}),
    ("res2net50_14w_8s", "res2net", 64, {}),
    ("resnest14d", "resnest", 64, {}),
    ("skresnet18", "sknet", 64, {}),
    ("legacy_seresnet18", "senet", 64, {}),
    ("ecaresnet26t", "ecaresnet", 64, {}),
    ("gcresnext26ts", "gcnet", 64, {}),
    ("dpn48b", "dpn", 64, {}),
    ("hrnet_w18_small", "hrnet", 64, {}),
    ("dla46_c", "dla", 64, {}),
    ("legacy_xception", "xception", 96, {}),
    ("xception41", "aligned xception", 64, {}),
    ("inception_v4", "inception v4", 96, {}),
    ("inception_resnet_v2", "inception-resnet", 96, {}),
    ("nasnetalarge", "nasnet", 96, {"num_features": 1056}),
    ("pnasnet5large", "pnasnet", 96, {}),
    ("ghostnet_050", "ghostnet", 64, {}),
    ("ghostnetv2_100", "ghostnet v2", 64, {}),
    ("repghostnet_050", "repghostnet", 64, {}),
    ("tinynet_e", "tinynet", 64, {}),
    ("mobilenetv1_100", "mobilenet v1", 64, {}),
    ("mobilenetv4_conv_small_035", "mobilenet v4", 64, {}),
    ("mobilenetv4_hybrid_medium_075", "mobilenet v4 hybrid", 64, {}),
    ("lcnet_035", "lcnet", 64, {}),
    ("fbnetc_100", "fbnet", 64, {}),
    ("spnasnet_100", "spnasnet", 64, {}),
    ("hardcorenas_a", "hardcorenas", 64, {}),
    ("mixnet_s", "mixnet", 64, {}),
    ("efficientnet_cc_b0_4e", "condconv", 64, {}),
    ("efficientnet_lite0", "efficientnet lite", 64, {}),
    ("convnextv2_atto", "convnext v2", 64, {}),
    ("convmixer_768_32", "convmixer", 64, {}),
    ("cs3darknet_s", "cspnet", 64, {}),
    ("darknet53", "darknet", 64, {}),
    ("repvgg_a0", "repvgg", 64, {}),
    ("mobileone_s0", "mobileone", 64, {}),
    ("gernet_s", "gernet", 64, {}),
    ("regnetz_b16", "regnet z", 64, {}),
    ("repvit_m0_9", "repvit", 64, {}),
    ("ese_vovnet19b_slim_dw", "vovnet", 64, {}),
    ("selecsls42", "selecsls", 64, {}),
    ("rexnet_100", "rexnet", 64, {}),
    ("tresnet_m", "tresnet", 64, {}),
    ("dm_nfnet_f0", "nfnet", 64, {}),
    ("nf_ecaresnet26", "nf-resnet", 64, {}),
    ("hgnetv2_b0", "hgnet", 64, {}),
    ("inception_next_atto", "inception-next", 64, {}),
    ("starnet_s050", "starnet", 64, {}),
    ("fasternet_t0", "fasternet", 64, {}),
    ("rdnet_tiny", "rdnet", 64, {}),
    ("mambaout_femto", "mambaout", 64, {}),
    ("densenetblur121d", "densenet blur", 64, {}),
]
ATTENTION: list[Row] = [
    ("vit_tiny_patch16_224", "vit", 64, VIT),
    ("vit_relpos_small_patch16_224", "vit relpos", 64, VIT),
    ("vit_tiny_r_s16_p8_224", "vit hybrid", 64, VIT),
    ("samvit_base_patch16", "sam vit", 64, VIT | {"global_attn_indexes": (1,), "window_size": 2}),
    ("deit_tiny_distilled_patch16_224", "deit", 64, VIT),
    ("deit3_small_patch16_224", "deit3", 64, VIT),
    ("beit_base_patch16_224", "beit", 64, VIT),
    ("eva02_tiny_patch14_224", "eva", 56, VIT | {"img_size": 56}),
    ("naflexvit_base_patch16_gap", "naflexvit", 64, SMALL),
    ("cait_xxs24_224", "cait", 64, VIT),
    ("convit_tiny", "convit", 64, VIT | {"local_up_to_layer": 1}),
    (
        "tnt_s_patch16_224",
        "tnt",
        64,
        {"img_size": 64, "embed_dim": 32, "depth": 2, "num_heads_outer": 2, "inner_dim": 16},
    ),
    ("xcit_nano_12_p16_224", "xcit", 64, SMALL),
    ("volo_d1_224", "volo", 64, {"img_size": 64}),
    ("pit_ti_224", "pit", 64, {"img_size": 64}),
    ("crossvit_9_240", "crossvit", 240, {}),
    ("coat_tiny", "coat", 64, {"img_size": 64}),
    ("test_coatnet", "coatnet", 64, {"img_size": 64}),
    ("test_maxvit", "maxvit", 64, {"img_size": 64}),
    ("maxxvitv2_nano_rw_256", "maxxvit", 64, {"img_size": 64}),
    ("twins_svt_small", "twins svt", 64, {"img_size": 64}),
    ("twins_pcpvt_small", "twins pcpvt", 64, {"img_size": 64}),
    ("pvt_v2_b0", "pvt v2", 64, {}),
    (
        "swin_tiny_patch4_window7_224",
        "swin",
        64,
        {"img_size": 64, "depths": (2, 2), "num_heads": (2, 4), "embed_dim": 24},
    ),
    (
        "swinv2_tiny_window8_256",
        "swin v2",
        64,
        {"img_size": 64, "depths": (2, 2), "num_heads": (2, 4), "embed_dim": 24},
    ),
    ("swinv2_cr_tiny_224", "swin v2 cr", 64, {"img_size": 64}),
    ("nest_tiny", "nest", 64, {"img_size": 64}),
    ("davit_tiny", "davit", 64, {}),
    ("focalnet_tiny_srf", "focalnet", 64, {}),
    ("gcvit_xxtiny", "gcvit", 64, {"img_size": 64}),
    ("hiera_tiny_224", "hiera", 64, {"img_size": 64}),
    ("sam2_hiera_tiny", "sam2 hiera", 64, {}),
    ("mvitv2_tiny", "mvit v2", 64, {"img_size": 64}),
    ("visformer_tiny", "visformer", 64, {"img_size": 64}),
    ("levit_128s", "levit", 64, {"img_size": 64}),
    ("edgenext_xx_small", "edgenext", 64, {}),
    ("mobilevit_xxs", "mobilevit", 64, {}),
    ("mobilevitv2_050", "mobilevit v2", 64, {}),
    ("efficientformer_l1", "efficientformer", 224, {}),
    ("efficientformerv2_s0", "efficientformer v2", 64, {"img_size": 64}),
    ("efficientvit_b0", "efficientvit mit", 64, {}),
    ("efficientvit_m0", "efficientvit msra", 64, {"img_size": 64}),
    ("efficientvim_m1", "efficientvim", 64, {}),
    ("fastvit_t8", "fastvit", 64, {}),
    ("swiftformer_xs", "swiftformer", 64, {}),
    ("shvit_s1", "shvit", 64, {}),
    ("tiny_vit_5m_224", "tiny vit", 64, {}),
    ("nextvit_small", "nextvit", 64, {}),
    ("iformer_t", "iformer", 64, {}),
    ("lambda_resnet26t", "lambda networks", 64, {"img_size": 64}),
    ("halonet26t", "halonet", 256, {}),
    ("botnet26t_256", "botnet", 64, {"img_size": 64}),
    ("poolformer_s12", "poolformer", 64, {}),
    ("caformer_s18", "caformer", 64, {}),
    ("vitamin_small_224", "vitamin", 64, {"img_size": 64}),
]
PERCEPTRONS: list[Row] = [
    ("mixer_s32_224", "mlp-mixer", 64, {"img_size": 64}),
    ("gmixer_12_224", "gmixer", 64, {"img_size": 64}),
    ("resmlp_12_224", "resmlp", 64, {"img_size": 64}),
    ("gmlp_ti16_224", "gmlp", 64, {"img_size": 64}),
]
RECURRENT: list[Row] = [
    ("sequencer2d_s", "sequencer", 64, {"img_size": 64}),
]
KINDS = {"cnn": CONVOLUTIONAL, "vit": ATTENTION, "mlp": PERCEPTRONS, "recurrent": RECURRENT}


def _build(name: str, options: dict[str, Any]) -> nn.Module:
    model: nn.Module = timm.create_model(name, pretrained=False, num_classes=10, **options)
    return model


LOOPS = {
    "coat_tiny": "the blocks of a stage share their convolutional position encoding",
    "hiera_tiny_224": "a loop of reshapes puts the patches in order, one stride after the other",
}

ENTRIES = [
    Entry(f"timm/{name}", family, kind, partial(_build, name, options), image(size), name in LOOPS, LOOPS.get(name, ""))
    for kind, rows in KINDS.items()
    for name, family, size, options in rows
]

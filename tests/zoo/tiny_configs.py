"""Tiny values for the configurations of transformers, by the names that whole groups of models share."""

from typing import Any

Config = dict[str, Any]

# --- text
BERT = {
    "vocab_size": 99,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
TEXT = BERT | SPECIAL
LLAMA = TEXT | {"num_key_value_heads": 2, "head_dim": 8}
GPT2 = {"vocab_size": 99, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
BART = {
    "vocab_size": 99,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "decoder_start_token_id": 1,
}
T5 = {"vocab_size": 99, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "num_decoder_layers": 2}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LOCAL_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
ROUTED = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "n_group": 2, "topk_group": 1}
LATENT = {
    "num_key_value_heads": 4,
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}
SSM = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}
MAMBA_HEADS = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 4}


# --- images
VIT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
SWIN = {"image_size": 64, "patch_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4], "window_size": 4}
SWIN4 = {
    "image_size": 64,
    "patch_size": 4,
    "embed_dim": 8,
    "depths": [1] * 4,
    "num_heads": [1, 1, 2, 2],
    "window_size": 2,
}
RESNET = {"embedding_size": 16, "hidden_sizes": [16, 16, 32, 32], "depths": [1] * 4, "layer_type": "basic"}
BACKBONE = RESNET | {"model_type": "resnet", "out_features": ["stage2", "stage3", "stage4"]}
STAGES = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
FOUR_LAYERS = VIT | STAGES | {"num_hidden_layers": 4, "reshape_hidden_states": False}
ZOE = {
    "backbone_config": FOUR_LAYERS | {"model_type": "beit", "use_relative_position_bias": True},
    "neck_hidden_sizes": [8, 8, 16, 16],
    "fusion_hidden_size": 16,
    "bottleneck_features": 16,
    "bin_embedding_dim": 16,
    "bin_configurations": [{"n_bins": 8, "min_depth": 0.001, "max_depth": 10.0, "name": "nyu"}],
}
FEATURES = {"hidden_sizes": [8, 16, 16, 32], "depths": [1] * 4}
DETR = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "num_queries": 6,
    "num_labels": 4,
    "backbone_config": BACKBONE,
}
DEFORMABLE = DETR | {"num_feature_levels": 3, "encoder_n_points": 2, "decoder_n_points": 2}
RT_DETR = {
    "backbone_config": BACKBONE | {"model_type": "rt_detr_resnet"},
    "encoder_hidden_dim": 32,
    "encoder_in_channels": [16, 32, 32],
    "encoder_ffn_dim": 48,
    "encoder_attention_heads": 4,
    "decoder_in_channels": [32, 32, 32],
    "d_model": 32,
    "decoder_ffn_dim": 48,
    "decoder_attention_heads": 4,
    "decoder_layers": 2,
    "num_queries": 6,
    "num_labels": 4,
}


# --- signals
WAVE = TEXT | {
    "conv_dim": [16, 16],
    "conv_kernel": [8, 4],
    "conv_stride": [4, 2],
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "num_feat_extract_layers": 2,
    "codevector_dim": 16,
    "proj_codevector_dim": 16,
    "num_codevectors_per_group": 8,
}
SERIES = {
    "prediction_length": 4,
    "context_length": 12,
    "input_size": 1,
    "num_time_features": 2,
    "lags_sequence": [1, 2],
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
}
ENCODEC = {
    "num_filters": 4,
    "hidden_size": 16,
    "codebook_size": 16,
    "codebook_dim": 16,
    "upsampling_ratios": [4, 2],
    "target_bandwidths": [60.0],
}
PATCHES = {
    "num_input_channels": 2,
    "context_length": 16,
    "patch_length": 4,
    "patch_stride": 4,
    "prediction_length": 4,
    "d_model": 16,
    "num_hidden_layers": 2,
    "num_layers": 2,
    "num_attention_heads": 2,
    "ffn_dim": 24,
}

"""Architectures of transformers that read sound, time series and other numbers."""

import torch

from tests.zoo.catalogue_entry import Arguments
from tests.zoo.catalogue_hugging import Row, ids
from tests.zoo.tiny_configs import BART, ENCODEC, PATCHES, SERIES, TEXT, WAVE


def wave() -> Arguments:
    """400 samples of one sound."""
    return (), {"input_values": torch.randn(1, 400)}


def channel() -> Arguments:
    """400 samples of one sound, loud enough to reach more than one code of a random codebook."""
    return (), {"input_values": 10 * torch.randn(1, 1, 400)}


def spectrogram() -> Arguments:
    """A spectrogram of 16 bands over 40 steps, to be transcribed."""
    return (), {"input_features": torch.randn(1, 16, 40), "decoder_input_ids": ids(1, 6)}


def features() -> Arguments:
    """Features of a sound, 16 at each of 40 steps, to be transcribed."""
    return (), {"input_features": torch.randn(1, 40, 16), "decoder_input_ids": ids(1, 6)}


def steps() -> Arguments:
    """Features of a sound, 16 at each of 40 steps."""
    return (), {"input_features": torch.randn(1, 40, 16)}


def bands() -> Arguments:
    """A spectrogram, 16 bands at each of 40 steps, under the name of audio classifiers."""
    return (), {"input_values": torch.randn(1, 40, 16)}


def loudness() -> Arguments:
    """Loudness of 8 bands over 10 steps, to be turned into sound."""
    return (), {"spectrogram": torch.randn(1, 10, 8)}


def heard_and_read() -> Arguments:
    """A spectrogram of 64 by 64 and a sentence."""
    return (), {"input_features": torch.randn(1, 1, 64, 64), "input_ids": ids(1, 8)}


def spoken() -> Arguments:
    """A sentence to be spoken."""
    return (), {"input_ids": ids(1, 8)}


def dictated() -> Arguments:
    """2000 samples of one sound and the words so far."""
    return (), {"input_values": torch.randn(1, 2000), "decoder_input_ids": ids(1, 6)}


def codes() -> Arguments:
    """Codes of two codebooks over six steps, to be continued after a text."""
    return (), {"input_ids": ids(1, 8), "decoder_input_ids": torch.randint(60, (2, 6))}


def series() -> Arguments:
    """A series of 14 past values with two time features, and the time features of four future ones."""
    return (), {
        "past_values": torch.rand(1, 14),
        "past_time_features": torch.rand(1, 14, 2),
        "past_observed_mask": torch.ones(1, 14),
        "future_values": torch.rand(1, 4),
        "future_time_features": torch.rand(1, 4, 2),
    }


def channels() -> Arguments:
    """Two series of 16 past values."""
    return (), {"past_values": torch.rand(1, 16, 2)}


def long_series() -> Arguments:
    """One series of 64 past values."""
    return (), {"past_values": [torch.rand(64)], "freq": [0]}


def trajectory() -> Arguments:
    """Five steps of states, actions, rewards and returns."""
    return (), {
        "states": torch.randn(1, 5, 4),
        "actions": torch.randn(1, 5, 2),
        "rewards": torch.randn(1, 5, 1),
        "returns_to_go": torch.randn(1, 5, 1),
        "timesteps": torch.arange(5).reshape(1, 5),
        "attention_mask": torch.ones(1, 5),
    }


def anything() -> Arguments:
    """Twelve vectors of 16 features."""
    return (), {"inputs": torch.randn(1, 12, 16)}


# fmt: off
SOUNDS: list[Row] = [
    ("WhisperForConditionalGeneration", "whisper", spectrogram, BART | {"num_mel_bins": 16, "max_source_positions":
     20, "max_target_positions": 16}),
    ("Wav2Vec2ForCTC", "wav2vec2", wave, WAVE),
    ("Wav2Vec2ConformerForCTC", "wav2vec2 conformer", wave, WAVE | {"conv_depthwise_kernel_size": 3}),
    ("Wav2Vec2BertForCTC", "wav2vec2-bert", steps, TEXT | {"feature_projection_input_dim": 16,
     "conv_depthwise_kernel_size": 3}),
    ("HubertForCTC", "hubert", wave, WAVE),
    ("SEWForCTC", "sew", wave, WAVE | {"squeeze_factor": 2}),
    ("SEWDForCTC", "sew-d", wave, WAVE | {"squeeze_factor": 2, "position_buckets": 8, "max_position_embeddings": 64}),
    ("UniSpeechForCTC", "unispeech", wave, WAVE),
    ("UniSpeechSatForCTC", "unispeech-sat", wave, WAVE),
    ("WavLMForCTC", "wavlm", wave, WAVE),
    ("Data2VecAudioForCTC", "data2vec audio", wave, WAVE | {"conv_pos_kernel_size": 3}),
    ("ASTForAudioClassification", "ast", bands, TEXT | {"num_mel_bins": 16, "max_length": 40, "patch_size": 8,
     "time_stride": 8, "frequency_stride": 8}),
    ("ClapModel", "clap", heard_and_read, {"text_config": TEXT, "audio_config": {"hidden_size": 16,
     "patch_embeds_hidden_size": 8, "num_mel_bins": 64, "spec_size": 64, "depths": [1, 1], "num_attention_heads":
     [2, 2], "window_size": 4, "patch_size": 4, "patch_stride": [4, 4]}, "projection_dim": 16}),
    ("Speech2TextForConditionalGeneration", "speech to text", features, BART | {"input_feat_per_channel": 16,
     "conv_channels": 32, "max_source_positions": 64, "max_target_positions": 16}),
    ("SpeechT5ForSpeechToText", "speecht5", dictated, WAVE | {"encoder_layers": 2, "decoder_layers": 2,
     "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
     "num_mel_bins": 8}),
    ("SpeechT5HifiGan", "hifigan", loudness, {"model_in_dim": 8, "upsample_initial_channel": 16, "upsample_rates":
     [4, 4], "upsample_kernel_sizes": [8, 8]}),
    ("MoonshineForConditionalGeneration", "moonshine", dictated, {"vocab_size": 99, "hidden_size": 32,
     "intermediate_size": 48, "encoder_num_hidden_layers": 2, "decoder_num_hidden_layers": 2,
     "encoder_num_attention_heads": 4, "decoder_num_attention_heads": 4, "encoder_num_key_value_heads": 4,
     "decoder_num_key_value_heads": 4}),
    ("EncodecModel", "encodec", channel, ENCODEC),
    ("DacModel", "dac", channel, {"encoder_hidden_size": 8, "downsampling_ratios": [2, 4], "decoder_hidden_size":
     32, "n_codebooks": 2, "codebook_size": 16, "codebook_dim": 4}),
    ("MimiModel", "mimi", channel, {"hidden_size": 32, "num_filters": 4, "upsampling_ratios": [4, 2],
     "codebook_size": 16, "codebook_dim": 16, "vector_quantization_hidden_dimension": 16, "num_quantizers": 4,
     "upsample_groups": 32, "num_hidden_layers": 2, "intermediate_size": 48, "num_attention_heads": 4,
     "num_key_value_heads": 4}),
    ("MusicgenForConditionalGeneration", "musicgen", codes, {"text_encoder": {"model_type": "t5", "vocab_size": 99,
     "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}, "audio_encoder": ENCODEC |
     {"model_type": "encodec"}, "decoder": {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "ffn_dim":
     48, "num_attention_heads": 4, "num_codebooks": 2, "pad_token_id": 63, "bos_token_id": 63}}),
    ("VitsModel", "vits", spoken, {"vocab_size": 99, "hidden_size": 16, "num_hidden_layers": 2,
     "num_attention_heads": 2, "ffn_dim": 24, "flow_size": 16, "spectrogram_bins": 9, "upsample_initial_channel":
     16, "upsample_rates": [4, 2], "upsample_kernel_sizes": [8, 4], "wavenet_dilation_rate": 1,
     "prior_encoder_num_flows": 2, "posterior_encoder_num_wavenet_layers": 2, "prior_encoder_num_wavenet_layers": 2,
     "duration_predictor_num_flows": 2, "depth_separable_num_layers": 2, "duration_predictor_filter_channels": 16}),
    ("FastSpeech2ConformerModel", "fastspeech2 conformer", spoken, {"vocab_size": 99, "hidden_size": 32,
     "num_mel_bins": 8, "encoder_layers": 1, "decoder_layers": 1, "encoder_num_attention_heads": 2,
     "decoder_num_attention_heads": 2, "encoder_linear_units": 32, "decoder_linear_units": 32,
     "duration_predictor_channels": 16, "energy_predictor_channels": 16, "pitch_predictor_channels": 16,
     "speech_decoder_postnet_units": 16}),
    ("ParakeetForCTC", "parakeet", steps, {"vocab_size": 99, "pad_token_id": 0, "encoder_config": TEXT |
     {"conv_kernel_size": 3, "subsampling_conv_channels": 8, "num_mel_bins": 16}}),
    ("BarkSemanticModel", "bark", spoken, {"input_vocab_size": 99, "output_vocab_size": 99, "hidden_size": 32,
     "num_layers": 2, "num_heads": 4, "block_size": 64}),
]

NUMBERS: list[Row] = [
    ("TimeSeriesTransformerForPrediction", "time series transformer", series, SERIES),
    ("InformerForPrediction", "informer", series, SERIES),
    ("AutoformerForPrediction", "autoformer", series, SERIES | {"moving_average": 5, "label_length": 4}),
    ("PatchTSTForPrediction", "patchtst", channels, PATCHES),
    ("PatchTSMixerForPrediction", "patchtsmixer", channels, PATCHES),
    ("TimesFmModelForPrediction", "timesfm", long_series, {"hidden_size": 32, "intermediate_size": 32,
     "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 16, "patch_length": 8, "context_length": 64,
     "horizon_length": 8}),
    ("DecisionTransformerModel", "decision transformer", trajectory, {"state_dim": 4, "act_dim": 2, "hidden_size":
     32, "n_layer": 2, "n_head": 4, "max_ep_len": 16}),
    ("PerceiverModel", "perceiver", anything, {"d_model": 16, "d_latents": 32, "num_latents": 6, "num_blocks": 2,
     "num_self_attends_per_block": 2, "num_self_attention_heads": 4, "num_cross_attention_heads": 4}),
    # esmfold needs the vocabulary of its tokenizer, which is a download.
]
# fmt: on

KINDS = {"audio": SOUNDS, "time series": NUMBERS}
RECURRENT = {
    "PerceiverModel": "one block of layers, applied twice",
    "AutoformerForPrediction": "a loop adds up the values at one delay after the other",
    "EncodecModel": "a loop codes, round by round, what is left over; its codebooks are buffers, not parameters",
    "MimiModel": "a loop codes, round by round, what is left over; its codebooks are buffers, not parameters",
    "MusicgenForConditionalGeneration": "sum() adds the embeddings of the codebooks one after the other",
}

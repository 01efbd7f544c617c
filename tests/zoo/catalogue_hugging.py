"""How an architecture of transformers is built from one line: a class, what its configuration overrides, its inputs."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from tests.zoo.catalogue_entry import Arguments, Entry
from tests.zoo.torchvision_cpu import import_torchvision

import_torchvision()  # transformers imports torchvision where it finds one
import transformers  # noqa: E402

transformers.logging.set_verbosity_error()  # the tiny configurations have fewer tokens than the usual special ones

Row = tuple[str, str, Callable[[], Arguments], dict[str, Any]]  # class, family, inputs, configuration

VOCABULARY = 99


def ids(*shape: int) -> torch.Tensor:
    """Token numbers above the special ones."""
    return torch.randint(10, VOCABULARY, shape)


def text() -> Arguments:
    """One sentence of 12 tokens, none masked."""
    return (), {"input_ids": ids(1, 12), "attention_mask": torch.ones(1, 12, dtype=torch.long)}


def long_text() -> Arguments:
    """One text of 80 tokens, for attention in blocks and memories in chunks of 64."""
    return (), {"input_ids": ids(1, 80)}


def long_both_sides() -> Arguments:
    """64 tokens to read, eight to continue."""
    return (), {"input_ids": ids(1, 64), "decoder_input_ids": ids(1, 8)}


def both_sides() -> Arguments:
    """Twelve tokens to read, eight to continue."""
    return (), {"input_ids": ids(1, 12), "decoder_input_ids": ids(1, 8)}


def picture() -> Arguments:
    """One image of 32 by 32."""
    return (), {"pixel_values": torch.randn(1, 3, 32, 32)}


def large_picture() -> Arguments:
    """One image of 64 by 64."""
    return (), {"pixel_values": torch.randn(1, 3, 64, 64)}


def entries(kinds: Mapping[str, Sequence[Row]], recurrent: Mapping[str, str]) -> list[Entry]:
    """Turn rows, by kind, into entries; ``recurrent`` gives the reason by class."""
    return [
        Entry(
            f"transformers/{name}",
            family,
            kind,
            partial(_build, name, options),
            inputs,
            name in recurrent,
            recurrent.get(name, ""),
        )
        for kind, rows in kinds.items()
        for name, family, inputs, options in rows
    ]


def _build(name: str, options: dict[str, Any]) -> nn.Module:
    model_class = getattr(transformers, name)
    config = model_class.config_class(**options)
    _adjust(config)
    model: nn.Module = model_class(config)
    for path, buffer in model.named_buffers():
        if path.endswith(("codebook.embed", "codebook.embed_sum")):  # zeros until they are trained
            buffer.normal_()
    return model


def _adjust(config: transformers.PreTrainedConfig) -> None:
    """Keep no cache, and start from weights as large as 32 features need: the usual 0.02 is meant for a thousand."""
    for part in vars(config).values():
        if isinstance(part, transformers.PreTrainedConfig):
            _adjust(part)
    if hasattr(config, "use_cache"):
        config.use_cache = False
    if hasattr(config, "initializer_range"):
        config.initializer_range = 0.1

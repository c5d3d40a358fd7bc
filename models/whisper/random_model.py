"""Small random quantized Whispers: untrained, but with codes spread as in a trained one, for tests and `verify`."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import WhisperConfig, WhisperForConditionalGeneration

from ternbin.models.calibrate import calibrate
from ternbin.models.config import QuantConfig
from ternbin.models.whisper import sound
from ternbin.models.whisper.qwhisper import QuantWhisper, quantize_model


def random_stock_whisper(
    *,
    d_model: int = 32,
    heads: int = 2,
    ffn: int = 64,
    layers: tuple[int, int] = (1, 1),
    vocab: int = 97,
    activation: str = "gelu",
    positions: int = 48,
    prompt: int = 1,
    seed: int = 0,
) -> WhisperForConditionalGeneration:
    """A full-precision model in eval mode, every parameter random.

    `positions`: of the source; `prompt`: tokens prescribed after the start token.  Special ids: bos 0, pad 1, eos 2, decoder start 3.
    """
    options: dict[str, Any] = dict(
        vocab_size=vocab,
        d_model=d_model,
        encoder_layers=layers[0],
        decoder_layers=layers[1],
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=ffn,
        decoder_ffn_dim=ffn,
        activation_function=activation,
        max_source_positions=positions,
        max_target_positions=64,
        num_mel_bins=8,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=3,
        begin_suppress_tokens=None,
    )
    with torch.random.fork_rng(devices=[]):
        model = WhisperForConditionalGeneration(WhisperConfig(**options))
    _randomize(model, torch.Generator().manual_seed(seed))
    settings: Any = model.generation_config
    settings._from_model_config = False  # else it is read without the fields that only Whisper has
    settings.forced_decoder_ids = [[place, 3 + place] for place in range(1, prompt + 1)] or None
    settings.suppress_tokens = [5, 6]
    return model.eval()


def random_quant_whisper(bits: str = "2-2", *, res_bits: int = 16, seed: int = 0, **options) -> QuantWhisper:
    """A quantized, calibrated model in eval mode; `options` as for random_stock_whisper."""
    stock = random_stock_whisper(seed=seed, **options)
    student = quantize_model(stock, QuantConfig(bits=bits, res_bits=res_bits)).eval()
    config, generator = stock.config, torch.Generator().manual_seed(seed + 1)
    most = config.max_source_positions
    heard = sound.features(sound.made_up(seed, most), config.num_mel_bins, most)
    ids = torch.randint(3, config.vocab_size, (1, 24), generator=generator)
    calibrate(student, [dict(input_features=heard, decoder_input_ids=ids)])
    return student


@torch.no_grad()
def _randomize(model: WhisperForConditionalGeneration, generator: torch.Generator) -> None:
    def normal(tensor: torch.Tensor, std: float, mean: float = 0.0) -> None:
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * std + mean)

    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            normal(module.weight, 0.1, 1.0)
            # mixed signs: otherwise the tied head repeats the input token for ever
            module.weight.mul_(torch.randint(0, 2, module.weight.shape, generator=generator) * 2 - 1)
            normal(module.bias, 0.1)
        elif isinstance(module, nn.Linear | nn.Conv1d) and module is not model.proj_out:
            normal(module.weight, module.weight[0].numel() ** -0.5)
            if module.bias is not None:
                normal(module.bias, 0.1)
        elif isinstance(module, nn.Embedding):
            normal(module.weight, 0.5)

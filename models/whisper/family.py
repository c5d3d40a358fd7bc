"""Whisper as a family: what the protocol asks, from the modules of this folder."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, WhisperConfig, WhisperForConditionalGeneration

from ternbin.errors import InputError
from ternbin.graph.given import Given
from ternbin.graph.ir import Lowered
from ternbin.models import files
from ternbin.models.bart import reference
from ternbin.models.config import QuantConfig
from ternbin.models.family import Family, Sizes
from ternbin.models.fidelity import Pair
from ternbin.models.whisper import checkpoint, fields, lower, qwhisper, random_model, sound
from ternbin.models.whisper.qwhisper import QuantWhisper, QuantWhisperConfig

CALIBRATION_SOUNDS, CALIBRATION_TOKENS = 2, 16


class Whisper(Family[QuantWhisper]):
    stock_types = ("whisper",)
    quant_type = QuantWhisperConfig.model_type
    listens = True

    def load_stock(self, folder: Path) -> WhisperForConditionalGeneration:
        return checkpoint.load_stock(folder)

    def limits(self, folder: Path) -> dict[str, int]:
        values, path = files.read_config(folder), folder / files.CONFIG_FILE
        fields.check(values, path)
        config = files.built(path, lambda: WhisperConfig.from_dict(values))
        return dict(vocab_size=config.vocab_size, max_positions=config.max_source_positions)

    def load(self, folder: Path, quant: QuantConfig | None = None) -> QuantWhisper:
        return checkpoint.load_any(folder, quant)

    def quantize(self, stock: PreTrainedModel, quant: QuantConfig) -> QuantWhisper:
        if not isinstance(stock, WhisperForConditionalGeneration):
            raise InputError(f"model to quantize must be a WhisperForConditionalGeneration, not {type(stock).__name__}")
        return qwhisper.quantize_model(stock, quant)

    def stock(self, model: QuantWhisper) -> WhisperForConditionalGeneration:
        return qwhisper.stock_model(model)

    def batches(self, model: QuantWhisper, pairs: Sequence[Pair]) -> list[dict]:
        """Of made-up sounds, with the targets of `pairs`, or random ids."""
        config, generator = model.config, torch.Generator().manual_seed(0)
        length = min(CALIBRATION_TOKENS, config.max_target_positions)
        ids = torch.randint(0, config.vocab_size, (CALIBRATION_SOUNDS, length), generator=generator)
        targets = [torch.tensor([list(target)[:length]]) for _, target in pairs[:CALIBRATION_SOUNDS]]
        most, mel = config.max_source_positions, config.num_mel_bins
        return [
            dict(
                input_features=sound.features(sound.made_up(seed, most), mel, most),
                decoder_input_ids=targets[seed] if targets else ids[seed : seed + 1],
            )
            for seed in range(CALIBRATION_SOUNDS)
        ]

    def lower(self, model: QuantWhisper) -> Lowered:
        return lower.lower(model)

    def generation(self, model: QuantWhisper) -> dict[str, Any]:
        return lower.generation(model)

    def node_modules(self, model: QuantWhisper) -> dict[str, Any]:
        return reference.node_modules(model)

    @torch.no_grad()
    def listen(self, model: QuantWhisper, path: str | Path | None) -> Given:
        config = model.config
        samples = sound.made_up(0, config.max_source_positions) if path is None else sound.read_wav(path)
        given = sound.features(samples, config.num_mel_bins, config.max_source_positions)
        encoder: Any = model.model.encoder
        rows = encoder.embedded(given.to(model.dtype))[0, : sound.tokens_of(len(samples))]
        return {lower.STREAM: (rows.double() * 2.0**encoder.site.frac).round().long().numpy()}

    def draw(self, rng: random.Random, activation: str) -> Sizes:
        return Sizes(
            heads=rng.randint(1, 3),
            head_dim=2 * rng.randint(2, 10),  # sines and cosines
            ffn=rng.randint(5, 70),
            layers=(rng.randint(1, 2), rng.randint(1, 2)),
            vocab=rng.randint(20, 90),
            activation=activation,
            options={"prompt": rng.randint(0, 2)},
        )

    def random(self, bits: str, sizes: Sizes, *, seed: int, res_bits: int = 16) -> QuantWhisper:
        return random_model.random_quant_whisper(
            bits,
            d_model=sizes.heads * sizes.head_dim,
            heads=sizes.heads,
            ffn=sizes.ffn,
            layers=sizes.layers,
            vocab=sizes.vocab,
            activation=sizes.activation,
            res_bits=res_bits,
            seed=seed,
            **sizes.options,
        )

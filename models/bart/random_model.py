"""Small random models of BART and its relatives: untrained, but with codes spread as in a trained one, for tests and benchmarks."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from transformers import BartForConditionalGeneration
from transformers.initialization import no_init_weights

from ternbin.graph.ir import code_type
from ternbin.models.bart.layout import DECODER_TABLE, ENCODER_TABLE, HEAD, SHARED, absent, shared_weights, tables_shared
from ternbin.models.bart.qbart import (
    QuantBartForConditionalGeneration,
    QuantSeq2Seq,
    build_stock,
    config_class,
    quantize,
    quantized_config,
)
from ternbin.models.calibrate import calibrate
from ternbin.models.config import QuantConfig
from ternbin.models.packed import plain_tensors, share_packed, stored_weights
from ternbin.models.quantizers import weight_codes
from ternbin.models.tensors import assign

Model = TypeVar("Model", bound=QuantSeq2Seq)
CHUNK = 4096  # rows that are drawn at a time


def random_stock(
    cls: type[QuantSeq2Seq],
    *,
    d_model: int = 32,
    heads: int = 2,
    ffn: int = 64,
    layers: int | tuple[int, int] = 1,
    vocab: int = 97,
    activation: str = "relu",
    positions: int = 64,
    scale_embedding: bool = True,
    forced_bos_token_id: int | None = None,
    seed: int = 0,
    spread: float = 1.0,
    **config,
) -> Any:
    """A full-precision model in eval mode, of the library's class that `cls` quantizes.

    `layers` is a count or (encoder, decoder); `config` goes to the library's config.  `spread` scales the weights' deviation from
    1/sqrt(fan in).  Biases, LayerNorm parameters and the logit bias are random too, so that no term of the arithmetic vanishes.
    Special ids: bos 0, pad 1, eos = decoder start 2.
    """
    encoder_layers, decoder_layers = (layers, layers) if isinstance(layers, int) else layers
    options: dict[str, Any] = dict(
        vocab_size=vocab,
        d_model=d_model,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=ffn,
        decoder_ffn_dim=ffn,
        activation_function=activation,
        max_position_embeddings=positions,
        scale_embedding=scale_embedding,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_eos_token_id=None,
        dropout=0.0,
    )
    with torch.random.fork_rng(devices=[]):
        model = build_stock(cls, config_class(cls.stock_class)(**(options | config)))
    _randomize(model, cls, torch.Generator().manual_seed(seed), spread)
    model.generation_config.forced_bos_token_id = forced_bos_token_id
    return model.eval()


def random_quant(
    cls: type[Model],
    bits: str = "2-2",
    *,
    res_bits: int = 16,
    head_act_bits: int = 8,
    head_weight_bits: int | None = None,
    seed: int = 0,
    **options,
) -> Model:
    """A quantized, calibrated model in eval mode; `options` as for random_stock."""
    model = random_stock(cls, seed=seed, **options)
    head = {"head_act_bits": head_act_bits, "head_weight_bits": head_weight_bits}
    student = quantize(cls, model, QuantConfig.from_dict({"bits": bits, "res_bits": res_bits} | head))
    config, generator = model.config, torch.Generator().manual_seed(seed + 1)
    shape = (4, min(24, config.max_position_embeddings))
    ids = torch.randint(3, min(config.vocab_size, model.lm_head.out_features), shape, generator=generator)
    calibrate(student, [dict(input_ids=ids, decoder_input_ids=ids.flip(0))])
    return student


@torch.no_grad()
def random_packed(
    cls: type[Model], bits: str = "2-2", *, seed: int = 0, forced_bos_token_id: int | None = None, **config: Any
) -> Model:
    """As random_quant, of a size whose floating-point weights would not fit: drawn and packed matrix by matrix.

    `config` goes to the library's config.  The biases of projections are zero.
    """
    quant, generator = QuantConfig.from_dict({"bits": bits}), torch.Generator().manual_seed(seed)
    stock = config_class(cls.stock_class)(**({"forced_eos_token_id": None, "dropout": 0.0} | config))
    with torch.device("meta"), no_init_weights():
        model = cls(quantized_config(cls, stock, quant))
    missing = dict(absent(model, cls.layout))
    for name, old in plain_tensors(model).items():
        value = torch.zeros(old.shape)
        if name in missing:
            value = missing[name]
        elif "embed_positions" in name:
            value.normal_(0, 0.5, generator=generator)
        elif "norm" in name and name.endswith(".weight"):
            value.normal_(1, 0.1, generator=generator)
            value.mul_(torch.randint(0, 2, value.shape, generator=generator) * 2 - 1)
        assign(model, name, value)
    stored = stored_weights(model)
    for name, module in stored.items():
        rows, width = module.shape
        spread = 1.0 if name in set(model.tied.values()) and not stock.scale_embedding else width**-0.5
        parts = [
            weight_codes(torch.randn(min(CHUNK, rows - at), width, generator=generator) * spread, module.bits)
            for at in range(0, rows, CHUNK)
        ]
        codes = torch.cat([codes.to(code_type(module.kind)) for codes, _ in parts])
        module.set_packed(codes, torch.cat([scale for _, scale in parts]))
    share_packed(model, stored)
    model.generation_config.forced_bos_token_id = forced_bos_token_id
    shape = (2, min(24, stock.max_position_embeddings))
    ids = torch.randint(3, stock.vocab_size, shape, generator=generator)
    calibrate(model.eval(), [dict(input_ids=ids, decoder_input_ids=ids.flip(0))])
    for _, module in model.weights():
        module.train(False)  # forgets the weights that the calibration used
    return model


def random_stock_bart(**options) -> BartForConditionalGeneration:
    """As random_stock, of BART."""
    return random_stock(QuantBartForConditionalGeneration, **options)


def random_quant_bart(bits: str = "2-2", **options) -> QuantBartForConditionalGeneration:
    """As random_quant, of BART."""
    return random_quant(QuantBartForConditionalGeneration, bits, **options)


@torch.no_grad()
def _randomize(model: Any, cls: type[QuantSeq2Seq], generator: torch.Generator, spread: float) -> None:
    """Draw every parameter of a stock model from `generator`."""

    def normal(tensor: torch.Tensor, std: float, mean: float = 0.0) -> None:
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * std + mean)

    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            normal(module.weight, 0.1, 1.0)
            # mixed signs: otherwise the tied head repeats the input token for ever
            module.weight.mul_(torch.randint(0, 2, module.weight.shape, generator=generator) * 2 - 1)
            normal(module.bias, 0.1)
        elif isinstance(module, torch.nn.Linear) and module is not model.lm_head:
            normal(module.weight, spread * module.in_features**-0.5)
            normal(module.bias, 0.1)
    config, tied = model.config, shared_weights(model)
    names = [f"{each}.weight" for each in (ENCODER_TABLE, DECODER_TABLE)]
    for name in names[: 1 if tables_shared(config) else 2]:
        table = model.get_parameter(name)
        normal(table, config.d_model**-0.5 if config.scale_embedding else 1.0)
        table[config.pad_token_id] = 0
    if tables_shared(config):
        for name in (names[1], f"{SHARED}.weight"):
            model.get_parameter(name).copy_(model.get_parameter(names[0]))
    if f"{HEAD}.weight" not in tied:
        normal(model.lm_head.weight, config.d_model**-0.5)
    for stack in (model.model.encoder, model.model.decoder):
        if not cls.layout.sinusoidal:
            normal(stack.embed_positions.weight, 0.5)
    normal(model.final_logits_bias, 0.1)

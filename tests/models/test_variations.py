"""Relatives of BART against the library: the same model where nothing is quantized, and graphs that compute what the modules do."""

import copy
import json
import random

import pytest
import torch
from safetensors.torch import load_file, save_file

from ternbin.decoding.greedy import reference_run
from ternbin.decoding.search import Policy
from ternbin.errors import InputError
from ternbin.graph.ops.interpreter import Interpreter, outputs
from ternbin.models import prepare
from ternbin.models.bart.family import Seq2Seq
from ternbin.models.bart.layout import sinusoids
from ternbin.models.bart.qbart import quantize
from ternbin.models.bart.random_model import random_quant, random_stock
from ternbin.models.config import QuantConfig
from ternbin.models.families import families
from ternbin.models.files import STOCK_FILE
from ternbin.models.quantizers import ActQuantizer
from ternbin.passes import fold

torch.set_num_threads(1)
RELATIVES = [family for family in families() if isinstance(family, Seq2Seq)]
BART, MBART, MARIAN = (next(f for f in RELATIVES if name in f.stock_types) for name in ("bart", "mbart", "marian"))
VARIED = {
    "bart": (BART, {}),
    "bart, no LayerNorm after the embedding": (BART, dict(normalize_embedding=False)),
    "bart, head of its own": (BART, dict(tie_word_embeddings=False, share_encoder_decoder_embeddings=True)),
    "bart, three tables": (BART, dict(tie_word_embeddings=False)),
    "bart, two vocabularies": (BART, dict(tie_word_embeddings=False, decoder_vocab_size=71)),
    "bart, unequal stacks": (BART, dict(layers=(2, 1), decoder_attention_heads=1, decoder_ffn_dim=24)),
    "mbart": (MBART, dict(layers=2)),
    "mbart, no LayerNorm after the embedding": (MBART, dict(normalize_embedding=False)),
    "mbart, three tables": (MBART, dict(tie_word_embeddings=False)),
    "marian": (MARIAN, dict(decoder_start_token_id=1, activation="silu")),
    "marian, two vocabularies": (MARIAN, dict(share_encoder_decoder_embeddings=False, decoder_vocab_size=71)),
    "marian, head of its own": (MARIAN, dict(tie_word_embeddings=False)),
}
SOURCE, TARGET = torch.tensor([[4, 60, 9, 33, 2, 8, 12]]), torch.tensor([[2, 17, 40, 5]])


@pytest.fixture(params=VARIED, name="varied")
def _varied(request):
    return VARIED[request.param]


def logits(model):
    return model(input_ids=SOURCE, decoder_input_ids=TARGET, use_cache=False).logits


@torch.no_grad()
def test_without_quantizers_it_is_the_model_of_the_library(varied, monkeypatch):
    family, options = varied
    model = random_quant(family.quant_class, "2-2", **options).pack()
    model.set_fracs({})
    monkeypatch.setattr(ActQuantizer, "forward", lambda self, x: x)
    stock = family.stock(model)
    assert type(stock) is family.quant_class.stock_class
    assert torch.allclose(logits(model), logits(stock), atol=1e-4)
    assert not torch.allclose(logits(model).roll(1), logits(stock), atol=0.1)


@torch.no_grad()
@pytest.mark.parametrize("bits", ["2-2", "1-1"])
def test_real_graphs_equal_the_model_in_float64(varied, bits):
    family, options = varied
    model = random_quant(family.quant_class, bits, **options)
    lowered = family.lower(model)
    encoder, decoder = (Interpreter(graph, lowered.weights) for graph in (lowered.encoder, lowered.decoder))
    given = outputs(lowered.encoder, encoder({"ids": SOURCE[0]}))
    tokens = outputs(lowered.decoder, decoder({"ids": TARGET[0]} | given))["next"][:, 0].long()
    assert torch.equal(tokens, logits(copy.deepcopy(model).pack().double())[0].argmax(-1))


def test_a_calibrated_model_trains(varied):
    """Grids, and streams that saturate in place, let the gradient through."""
    family, options = varied
    model = random_quant(family.quant_class, "2-2", **options).train()
    logits(model).logsumexp(-1).sum().backward()
    lost = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert lost == []
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_a_folder_of_any_variation_is_read_as_it_was_written(varied, tmp_path):
    family, options = varied
    stock = random_stock(family.quant_class, **options)
    stock.save_pretrained(tmp_path, max_shard_size="30KB")
    quant = QuantConfig(bits="2-2")
    ours, theirs = family.load(tmp_path, quant), quantize(family.quant_class, stock, quant)
    assert torch.equal(logits(ours), logits(theirs))
    assert torch.equal(logits(family.load_stock(tmp_path)), logits(stock))
    family.calibrate(ours, family.batches(ours, []))
    family.save(ours, tmp_path / "packed")
    again = family.load(tmp_path / "packed")
    assert again.is_packed and torch.equal(logits(ours), logits(again))
    ours.save_pretrained(tmp_path / "saved")
    assert torch.equal(logits(ours), logits(family.load(tmp_path / "saved")))


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_what_it_rounds_to(dtype, tmp_path):
    stock = random_stock(MBART.quant_class)
    stock.to(dtype).save_pretrained(tmp_path)
    loaded = MBART.load_stock(tmp_path)
    assert all(tensor.dtype == torch.float32 for tensor in loaded.state_dict().values())
    assert torch.equal(logits(loaded), logits(stock.float()))


@torch.no_grad()
def test_older_folders_with_a_bias_at_the_head_or_one_table(tmp_path):
    stock = random_stock(BART.quant_class, tie_word_embeddings=False, share_encoder_decoder_embeddings=True)
    stock.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / STOCK_FILE)
    tensors["model.shared.weight"] = tensors.pop("model.encoder.embed_tokens.weight")
    tensors.pop("model.decoder.embed_tokens.weight")
    tensors["lm_head.bias"] = tensors.pop("final_logits_bias")[0]
    save_file(tensors, tmp_path / STOCK_FILE)
    config = json.loads((tmp_path / "config.json").read_text())
    config.pop("share_encoder_decoder_embeddings")
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert torch.equal(logits(BART.load_stock(tmp_path)), logits(stock))
    quantized = BART.load(tmp_path, QuantConfig())
    assert set(quantized.tied) == {"model.encoder.embed_tokens", "model.decoder.embed_tokens"}


@torch.no_grad()
def test_a_stream_beside_its_norm_saturates_for_all():
    """As in the integer model, the sum that goes on is the clipped one."""
    model = random_quant(MBART.quant_class, "2-2", layers=2)
    fracs = model.quant_config.fracs
    model.set_fracs(fracs | {"encoder.layernorm_embedding": fracs["encoder.layernorm_embedding"] + 3})
    lowered = MBART.lower(model)
    encoder = Interpreter(lowered.encoder, lowered.weights)
    kept = encoder.named(encoder({"ids": SOURCE[0]}))
    assert sum(count.clipped for count in encoder.saturation.values()) > 10
    out = copy.deepcopy(model).pack().double().model.encoder(input_ids=SOURCE)
    final = kept["enc.final_ln"] * 2.0 ** -fracs["encoder.layer_norm"]
    assert torch.equal(final, out.last_hidden_state[0])


def test_sines_are_those_of_the_library():
    positions = random_stock(MARIAN.quant_class, d_model=18, heads=2).model.encoder.embed_positions
    assert torch.equal(sinusoids(*positions.weight.shape), positions.create_weight())


def test_a_translation_begins_with_its_language():
    model = random_quant(MBART.quant_class, "2-2", decoder_start_token_id=2, forced_bos_token_id=90)
    lowered = fold(MBART.lower(model))
    assert Policy.of(lowered.meta, 3).prompt == (2, 90)
    assert reference_run(lowered, SOURCE[0].tolist(), 3)[0][0] == 90


@pytest.mark.parametrize(
    ("family", "change", "message"),
    [
        (BART, dict(normalize_before=True), "normalize_before must be false for models of this family, not true"),
        (
            BART,
            dict(add_final_layer_norm=True),
            "add_final_layer_norm must be false for models of this family, not true",
        ),
        (
            BART,
            dict(share_encoder_decoder_embeddings=False),
            "share_encoder_decoder_embeddings must be true where tie_word_embeddings is, not false",
        ),
        (MBART, dict(normalize_before=False), "normalize_before must be true for models of this family, not false"),
        (
            MARIAN,
            dict(normalize_embedding=True),
            "normalize_embedding must be false for models of this family, not true",
        ),
        (
            MARIAN,
            dict(static_position_embeddings=False),
            "static_position_embeddings must be true for models of this family, not false",
        ),
        (
            BART,
            dict(decoder_vocab_size=50),
            "decoder_vocab_size must be 97 where encoder and decoder share a table, not 50",
        ),
    ],
)
def test_other_layouts_are_refused(family, change, message, tmp_path):
    random_stock(family.quant_class).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError) as error:
        prepare.load_model(tmp_path, "2-2")
    assert str(error.value) == f"{path}: {message}"


def test_random_models_vary():
    """Among the models that `ternbin verify` draws there is each variation."""
    seen = [family.draw(random.Random(seed), "gelu").options for family in RELATIVES for seed in range(40)]
    for key in (
        "normalize_embedding",
        "decoder_attention_heads",
        "decoder_vocab_size",
        "tie_word_embeddings",
        "share_encoder_decoder_embeddings",
        "forced_bos_token_id",
    ):
        assert any(key in options for options in seen), key

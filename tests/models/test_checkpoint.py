"""Checkpoints: packed models behave the same; damaged or foreign folders are refused in one line."""

import json
import shutil
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM, BartForConditionalGeneration, BartForSequenceClassification

from ternbin.errors import InputError
from ternbin.graph.activations import ACTIVATIONS
from ternbin.models.bart.checkpoint import load_any, load_packed
from ternbin.models.bart.qbart import quantize_model
from ternbin.models.bart.random_model import random_quant_bart, random_stock_bart
from ternbin.models.bart.structure import head_of, stacks
from ternbin.models.config import QuantConfig
from ternbin.models.families import family_of
from ternbin.models.files import PACKED_FILE, STOCK_FILE
from ternbin.models.packed import save_packed

torch.set_num_threads(1)
IDS = torch.randint(3, 61, (2, 9), generator=torch.Generator().manual_seed(0))
SIZES: dict[str, Any] = dict(d_model=36, heads=3, ffn=52, vocab=61)


def logits(model):
    return model(input_ids=IDS, decoder_input_ids=IDS.flip(0)).logits


def generate(model, ids, **options):
    return model.generate(ids, **options)


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_of_8_bits_has_codes_of_its_own(tied, tmp_path):
    model = random_quant_bart("2-2", head_weight_bits=8, tie_word_embeddings=tied, **SIZES)
    latent = stacks(model)[1].embed_tokens.value
    packed = load_any(save_packed(model, tmp_path))
    assert torch.equal(logits(model), logits(packed))
    head, table = head_of(packed), stacks(packed)[1].embed_tokens
    assert (head.kind, table.kind) == ("odd8", "ternary") and set(table.codes.unique().tolist()) == {-1, 0, 1}
    if tied:  # what they share is known best by the head
        stock: Any = family_of(packed).stock(packed)
        again = stock.get_input_embeddings().weight
        assert (again - latent).abs().max() <= head.row_scale.max() * 1.001
    packed.set_head_bits(2)
    assert packed.lm_head.kind == "ternary" and packed.quant_config.head_bits == 2


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("bits", ["2-2", "1-1", "2-8", "1-8"])
def test_packed_model_equals_the_original_exactly(bits, activation, tmp_path):
    model = random_quant_bart(bits, activation=activation, **SIZES)
    packed = load_any(save_packed(model, tmp_path))
    assert packed.is_packed and not packed.training
    assert torch.equal(logits(model), logits(packed))
    beams = dict(num_beams=3, max_length=9)
    assert torch.equal(generate(model, IDS, **beams), generate(packed, IDS, **beams))
    again = load_packed(save_packed(packed, tmp_path / "again"))
    assert torch.equal(logits(model), logits(again))


def test_library_calls_work_on_packed_checkpoints(tmp_path):
    model = random_quant_bart("2-2", **SIZES)
    packed = AutoModelForSeq2SeqLM.from_pretrained(save_packed(model, tmp_path / "a"))
    packed.save_pretrained(tmp_path / "b")
    assert torch.equal(logits(model), logits(load_packed(tmp_path / "b")))


def test_rows_of_zeros_survive_packing(tmp_path):
    for bits in ("2-2", "1-1"):
        model = random_quant_bart(bits, **SIZES)
        with torch.no_grad():
            stacks(model)[0].layers[0].fc1.weight[3] = 0
        assert torch.equal(logits(model), logits(load_packed(save_packed(model, tmp_path))))


def test_packed_file_is_small_and_shares_the_embedding(tmp_path):
    model = random_quant_bart("2-2", **(SIZES | dict(vocab=500)))
    save_packed(model, tmp_path)
    tensors = load_file(tmp_path / PACKED_FILE)
    assert [name for name in tensors if name.endswith("codes") and tensors[name].shape[0] == 500] == [
        "model.shared.codes"
    ]
    assert tensors["model.shared.codes"].shape == (500, 10)  # two planes of 36 bits, in whole bytes


def test_tokenizer_files_are_copied(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "tokenizer.json").write_text("{}")
    save_packed(random_quant_bart("2-2", **SIZES), tmp_path / "packed", source)
    assert (tmp_path / "packed" / "tokenizer.json").read_text() == "{}"


@pytest.mark.parametrize("shard_size", ["10GB", "30KB"])
@pytest.mark.parametrize("bare", [True, False])
def test_stock_layouts_are_quantized_on_load(bare, shard_size, tmp_path):
    model = random_stock_bart(**SIZES)
    model.get_buffer("final_logits_bias").zero_()
    (model.model if bare else model).save_pretrained(tmp_path, max_shard_size=shard_size)
    assert (tmp_path / STOCK_FILE).exists() == (shard_size == "10GB")
    quant = QuantConfig(bits="2-2")
    assert torch.equal(logits(load_any(tmp_path, quant)), logits(quantize_model(model, quant)))
    with pytest.raises(InputError, match="bits must be given to quantize a stock model, not left out"):
        load_any(tmp_path)


def test_equal_copies_and_leftovers_of_older_libraries_change_nothing(tmp_path):
    model = random_stock_bart(**SIZES)
    model.save_pretrained(tmp_path)
    table = model.get_parameter("model.shared.weight")
    copies = {f"model.{name}.embed_tokens.weight": table.clone() for name in ("encoder", "decoder")}
    versions = {f"model.{name}.version": torch.tensor([3.0]) for name in ("encoder", "decoder")}
    add_tensors(tmp_path, STOCK_FILE, **copies, **versions, **{"lm_head.weight": table.clone()})
    quant = QuantConfig(bits="2-2")
    assert torch.equal(logits(load_any(tmp_path, quant)), logits(quantize_model(model, quant)))
    change_tensor(tmp_path, STOCK_FILE, "model.shared.weight", lambda tensor: None)
    assert torch.equal(logits(load_any(tmp_path, quant)), logits(quantize_model(model, quant)))


def test_head_of_another_task_is_named(tmp_path, caplog):
    stock = random_stock_bart(**SIZES)
    model = BartForSequenceClassification(stock.config)
    model.model.load_state_dict(stock.model.state_dict())
    model.save_pretrained(tmp_path)
    with caplog.at_level("WARNING"):
        loaded = load_any(tmp_path, QuantConfig(bits="2-2"))
    stock.get_buffer("final_logits_bias").zero_()
    assert torch.equal(logits(loaded), logits(quantize_model(stock, QuantConfig(bits="2-2"))))
    assert caplog.messages == [
        f"{tmp_path / STOCK_FILE}: classification_head.dense.bias and 3 more not used: the head of another task"
    ]


def test_saved_quantized_model_loads(tmp_path):
    model = random_quant_bart("2-8", **SIZES)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(model), logits(load_any(tmp_path)))


def test_loaded_model_is_one_that_transformers_saves(tmp_path):
    model = random_stock_bart(**SIZES)
    quantize_model(model).save_pretrained(tmp_path / "a")
    load_any(tmp_path / "a").save_pretrained(tmp_path / "b")
    a, b = (load_file(tmp_path / name / STOCK_FILE) for name in "ab")
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_generation_settings_of_older_checkpoints(tmp_path):
    random_stock_bart(**SIZES).save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    change_config(tmp_path, forced_bos_token_id=0, forced_eos_token_id=2, num_beams=4, gradient_checkpointing=False)
    expected = BartForConditionalGeneration.from_pretrained(tmp_path).generation_config
    loaded = load_any(tmp_path, QuantConfig(bits="2-2")).generation_config
    assert expected.forced_bos_token_id == 0 and expected.num_beams == 4
    assert loaded.to_diff_dict() == expected.to_diff_dict()


# -- damage ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    save_packed(random_quant_bart("2-2", **SIZES), root / "packed")
    random_stock_bart(**SIZES).save_pretrained(root / "stock")
    return root


def change_tensor(folder, file, name, make):
    tensors = load_file(folder / file)
    new = make(tensors.pop(name))
    save_file(tensors | ({} if new is None else {name: new}), folder / file)


def add_tensors(folder, file, **more):
    save_file(load_file(folder / file) | more, folder / file)


def change_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def truncate(folder, file):
    data = (folder / file).read_bytes()
    (folder / file).write_bytes(data[: len(data) // 2])


def poison(value):
    def make(tensor):
        tensor.flatten()[0] = value
        return tensor

    return make


FC1 = "model.encoder.layers.0.fc1"
DAMAGE = {
    "truncated packed": ("packed", lambda d: truncate(d, PACKED_FILE), "packed.safetensors: file must be complete saf"),
    "truncated stock": ("stock", lambda d: truncate(d, STOCK_FILE), "model.safetensors: file must be complete saf"),
    "not safetensors": ("stock", lambda d: (d / STOCK_FILE).write_text("hello"), "must be complete safetensors"),
    "empty file": ("packed", lambda d: (d / PACKED_FILE).write_bytes(b""), "must be complete safetensors"),
    "missing codes": (
        "packed",
        lambda d: change_tensor(d, PACKED_FILE, f"{FC1}.codes", lambda t: None),
        f"checkpoint must hold the tensor {FC1}.codes",
    ),
    "missing alpha": (
        "packed",
        lambda d: change_tensor(d, PACKED_FILE, f"{FC1}.x_quant.alpha", lambda t: None),
        f"checkpoint must hold the tensor {FC1}.x_quant.alpha",
    ),
    "missing weight": (
        "stock",
        lambda d: change_tensor(d, STOCK_FILE, f"{FC1}.weight", lambda t: None),
        f"checkpoint must hold the tensor {FC1}.weight",
    ),
    "foreign": (
        "stock",
        lambda d: save_file({"weight": torch.zeros(2)}, d / STOCK_FILE),
        "checkpoint must hold the tensor model.",
    ),
    "wrong shape": (
        "stock",
        lambda d: change_tensor(d, STOCK_FILE, f"{FC1}.weight", lambda t: t[:, 1:].contiguous()),
        f"model.safetensors: {FC1}.weight must have shape [52, 36], not [52, 35]",
    ),
    "wrong codes": (
        "packed",
        lambda d: change_tensor(d, PACKED_FILE, f"{FC1}.codes", lambda t: t[:, 1:].contiguous()),
        f"packed.safetensors: {FC1}.codes must be uint8 [52, 10], not torch.uint8 [52, 9]",
    ),
    "negative zero": (
        "packed",
        lambda d: change_tensor(
            d, PACKED_FILE, f"{FC1}.codes", lambda t: torch.tensor([[0] * 5 + [1] * 5] * 52).byte()
        ),
        f"packed.safetensors: {FC1}.codes must hold ternary codes, not a negative zero",
    ),
    "negative scale": (
        "packed",
        lambda d: change_tensor(d, PACKED_FILE, f"{FC1}.scale", poison(-0.5)),
        f"packed.safetensors: {FC1}.scale must not be negative, not -0.5",
    ),
    "nan weight": (
        "stock",
        lambda d: change_tensor(d, STOCK_FILE, f"{FC1}.weight", poison(float("nan"))),
        f"model.safetensors: {FC1}.weight must be finite, not inf or nan",
    ),
    "inf bias": (
        "packed",
        lambda d: change_tensor(d, PACKED_FILE, f"{FC1}.bias", poison(float("inf"))),
        f"packed.safetensors: {FC1}.bias must be finite, not inf or nan",
    ),
    "integer weight": (
        "stock",
        lambda d: change_tensor(d, STOCK_FILE, f"{FC1}.weight", lambda t: t.int()),
        f"model.safetensors: {FC1}.weight must be floating point, not torch.int32",
    ),
    "pickle": (
        "stock",
        lambda d: (d / STOCK_FILE).rename(d / "pytorch_model.bin"),
        "pytorch_model.bin: weights must be safetensors, not a pickle file",
    ),
    "no weights": (
        "stock",
        lambda d: (d / STOCK_FILE).unlink(),
        "checkpoint must hold model.safetensors, model.safetensors.index.json or packed.safetensors",
    ),
    "missing shard": (
        "stock",
        lambda d: (
            (d / STOCK_FILE).unlink(),
            (d / "model.safetensors.index.json").write_text('{"weight_map": {"a": "x.safetensors"}}'),
        ),
        "x.safetensors: file must exist in a checkpoint",
    ),
    "shard elsewhere": (
        "stock",
        lambda d: (
            (d / STOCK_FILE).unlink(),
            (d / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../x.safetensors"}}'),
        ),
        "shard must be a safetensors file of the folder, not '../x.safetensors'",
    ),
    "activation": (
        "stock",
        lambda d: change_config(d, activation_function="tanh"),
        f"config.json: activation_function must be one of {', '.join(ACTIVATIONS)}, not 'tanh'",
    ),
    "other model": (
        "stock",
        lambda d: change_config(d, model_type="t5"),
        "config.json: model_type must be 'bart' or 'ternbin_bart', not 't5'",
    ),
    "untied head": (
        "stock",
        lambda d: add_tensors(d, STOCK_FILE, **{"lm_head.weight": torch.ones(61, 36)}),
        "model.safetensors: lm_head.weight must equal model.shared.weight, whose weight it shares, not have values of",
    ),
    "untied embedding": (
        "stock",
        lambda d: add_tensors(d, STOCK_FILE, **{"model.decoder.embed_tokens.weight": torch.ones(60, 36)}),
        "model.decoder.embed_tokens.weight must equal model.shared.weight",
    ),
    "norm after the stack": (
        "stock",
        lambda d: add_tensors(d, STOCK_FILE, **{f"model.encoder.layer_norm.{k}": torch.ones(36) for k in "ab"}),
        "model.safetensors: every tensor must be one that the model uses, not model.encoder.layer_norm.a and 1 more",
    ),
    "adapter among the weights": (
        "stock",
        lambda d: add_tensors(d, STOCK_FILE, **{f"{FC1}.lora_A.weight": torch.ones(4, 36)}),
        f"every tensor must be one that the model uses, not {FC1}.lora_A.weight",
    ),
    "adapter beside the weights": (
        "stock",
        lambda d: (d / "adapter_config.json").write_text("{}"),
        "adapter_config.json: adapters must be merged into the weights, not beside them",
    ),
    "more layers than the config has": (
        "stock",
        lambda d: add_tensors(d, STOCK_FILE, **{"model.decoder.layers.1.fc1.bias": torch.zeros(64)}),
        "every tensor must be one that the model uses, not model.decoder.layers.1.",
    ),
    "no layers": (
        "stock",
        lambda d: change_config(d, decoder_layers=0),
        "config.json: decoder_layers must be from 1 to 128, not 0",
    ),
    "packed with more": (
        "packed",
        lambda d: add_tensors(d, PACKED_FILE, more=torch.ones(1)),
        "packed.safetensors: every tensor must be one that the model uses, not more",
    ),
    "twice by name": (
        "stock",
        lambda d: add_tensors(d, STOCK_FILE, **{"shared.weight": torch.ones(61, 36)}),
        "must be there once, not also as",
    ),
    "twice in shards": (
        "stock",
        lambda d: (
            shutil.copyfile(d / STOCK_FILE, d / "a.safetensors"),
            (d / STOCK_FILE).rename(d / "b.safetensors"),
            (d / "model.safetensors.index.json").write_text(
                '{"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}'
            ),
        ),
        "must be in one shard, not also in a.safetensors",
    ),
    "untied": (
        "stock",
        lambda d: change_config(d, tie_word_embeddings=False),
        "checkpoint must hold the tensor lm_head.weight",
    ),
    "bad heads": ("stock", lambda d: change_config(d, encoder_attention_heads=5), "config.json: embed_dim must be div"),
    "bad type": ("stock", lambda d: change_config(d, d_model="wide"), "config.json: "),
    "bad quant": (
        "packed",
        lambda d: change_config(d, quant={"bits": "9-9"}),
        "config.json: quant: bits must be '1-1', '2-2', '1-8' or '2-8', not '9-9'",
    ),
    "broken json": (
        "stock",
        lambda d: (d / "config.json").write_text("{"),
        "config.json: must be JSON, not broken",
    ),
    "bad generation": (
        "stock",
        lambda d: (d / "generation_config.json").write_text('{"max_new_tokens": -5}'),
        "generation_config.json: ",
    ),
    "no config": ("packed", lambda d: (d / "config.json").unlink(), "config.json: file must exist in a checkpoint"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_refused_in_one_line(case, folders, tmp_path):
    kind, damage, message = DAMAGE[case]
    shutil.copytree(folders / kind, tmp_path / "copy")
    damage(tmp_path / "copy")
    with pytest.raises(InputError) as error:
        load_any(tmp_path / "copy", QuantConfig(bits="2-2"))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_other_refusals(tmp_path):
    with pytest.raises(InputError, match="checkpoint must be a folder, not '.*nowhere'"):
        load_any(tmp_path / "nowhere")
    model = random_stock_bart(**SIZES)
    with pytest.raises(InputError, match="form must be 'deploy' to pack a model, not 'paper'"):
        save_packed(quantize_model(model, QuantConfig(form="paper")), tmp_path)

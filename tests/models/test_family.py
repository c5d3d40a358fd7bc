"""What the protocol promises, for every family of the registry; a folder of none is refused in one line."""

import json
import random
from pathlib import Path

import pytest
import torch

from ternbin.decoding.greedy import reference_run, reference_streams
from ternbin.decoding.search import Policy
from ternbin.errors import InputError
from ternbin.graph.shape import draw_source, generates, shape
from ternbin.models import prepare
from ternbin.models.config import QuantConfig
from ternbin.models.families import families, family_in, family_named, family_of
from ternbin.passes import fold

torch.set_num_threads(1)
TARGET = [2, 8, 3]


@pytest.fixture(scope="module", params=families(), ids=lambda family: family.stock_types[0])
def family(request):
    return request.param


@pytest.fixture(scope="module")
def model(family):
    return family.random("2-2", family.draw(random.Random(3), "gelu"), seed=3)


def source_of(lowered):
    return draw_source(random.Random(1), lowered, 5)


def test_a_model_type_belongs_to_one_family():
    types = [name for family in families() for name in (*family.stock_types, family.quant_type)]
    assert len(set(types)) == len(types)


def test_a_random_model_runs_on_what_its_meta_says(family, model):
    assert family_of(model) is family and model.quant_config.fracs
    lowered = fold(family.lower(model))
    assert {"bits", "weight_bits", "act_bits", "vocab_size", "max_positions"} <= set(lowered.meta)
    tokens, records = reference_run(lowered, source_of(lowered), 3)
    if generates(lowered):
        assert Policy.of(lowered.meta, 3).max_new_tokens == 3
        assert 1 <= len(tokens) <= 3
    else:
        assert not tokens and len(records) == 1


def test_the_host_makes_the_same_of_the_graph_and_of_the_fake_quant_model(family):
    for seed in range(4):
        model = family.random("2-8", family.draw(random.Random(seed), "relu"), seed=seed)
        lowered = fold(family.lower(model))
        if generates(lowered):
            return
        fracs = shape(lowered).prefill.fracs
        source = source_of(lowered)["ids"]
        read = {name: x * 2.0 ** -fracs[name] for name, x in reference_streams(lowered, source).items()}
        ours, theirs = family.answer(model, read), family.answer(model, family.streams(model, source))
        near = ours.agreement(theirs)
        assert near["cosine"] > 0.99 and near.get("same_label", True)
        assert ours.asdict()["kind"] == ("label" if ours.labels else "embedding")


def test_every_checked_node_has_its_module_and_agrees(family, model):
    lowered = fold(family.lower(model))
    rows = family.compare(model, lowered, [(source_of(lowered), TARGET)])
    assert sum(row.equal for row in rows) >= 0.99 * sum(row.total for row in rows)


def test_a_packed_folder_gives_the_same_graphs(family, model, tmp_path):
    family.save(model, tmp_path)
    assert family_in(tmp_path) == (family, False)
    a, b = family.lower(model), prepare.lower(prepare.load_model(tmp_path))
    assert (a.stacks, a.meta) == (b.stacks, b.meta)
    assert all(torch.equal(a.weights[name], b.weights[name]) for name in a.weights)


def test_a_full_precision_folder_is_quantized_in_one_step(family, model, tmp_path):
    stock = family.stock(model)
    stock.save_pretrained(tmp_path)
    assert family_in(tmp_path) == (family, True)
    loaded = family.load_stock(tmp_path)
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in stock.state_dict().items())
    ours, theirs = prepare.load_model(tmp_path, "1-8"), family.quantize(loaded, QuantConfig(bits="1-8"))
    family.calibrate(theirs, family.batches(theirs, []))
    assert ours.quant_config == theirs.quant_config and ours.quant_config.bits == "1-8"


def test_other_folders_are_refused(tmp_path):
    known = " or ".join(repr(name) for family in families() for name in (*family.stock_types, family.quant_type))
    with pytest.raises(InputError) as error:
        family_named("t5")
    assert str(error.value) == f"model_type must be {known}, not 't5'"
    (tmp_path / "config.json").write_text(json.dumps({"model_type": ["bart"]}))
    with pytest.raises(InputError, match=r"config.json: model_type must be .*, not a list of 1$"):
        family_in(tmp_path)
    with pytest.raises(InputError, match="checkpoint must be a folder, not '.*nowhere'"):
        prepare.load_model(Path(tmp_path) / "nowhere")

"""mBART-large and BART-large at full size in RTL: one sentence in and a few tokens out, predicted first, every tensor compared.

    python benchmarks/large_models.py --json mbart.json
    python benchmarks/large_models.py --shape bart-large --json bart-large.json

Random weights of the shape of facebook/mbart-large-cc25 or facebook/bart-large-cnn, drawn and packed matrix by matrix: 610 million of them
never stand in memory as floating point. Each part runs in a process of its own; results are kept in ``--work`` (with the random
checkpoint), so that an interrupted benchmark goes on where it stopped; ``--fresh`` forgets them. ``predict`` maps the model and runs the
cycle model; ``run`` is the RTL.
"""

import argparse
import json
import resource
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import parts

EOS, ENGLISH, ROMANIAN = 2, 250004, 250020
LARGE: dict[str, Any] = dict(
    d_model=1024,
    encoder_layers=12,
    decoder_layers=12,
    encoder_attention_heads=16,
    decoder_attention_heads=16,
    encoder_ffn_dim=4096,
    decoder_ffn_dim=4096,
    max_position_embeddings=1024,
    activation_function="gelu",
    decoder_start_token_id=EOS,
)


class Shape(NamedTuple):
    """A model: its quantized class as module and name, the fields of its config, and the tokens behind the text."""

    quantized: tuple[str, str]
    config: dict[str, Any]
    ending: tuple[int, ...]
    text_tokens: int  # ids of a text are below


SHAPES = {
    "mbart-large": Shape(
        ("ternbin.models.mbart.qmbart", "QuantMBartForConditionalGeneration"),
        LARGE | dict(vocab_size=250054, scale_embedding=True, forced_bos_token_id=ROMANIAN),
        (EOS, ENGLISH),
        ENGLISH,
    ),
    "bart-large": Shape(
        ("ternbin.models.bart.qbart", "QuantBartForConditionalGeneration"),
        LARGE | dict(vocab_size=50265, scale_embedding=False, forced_bos_token_id=0),
        (EOS,),
        50264,
    ),
}
SOURCE, NEW = 32, 8


def checkpoint(args: argparse.Namespace) -> Path:
    """The folder of the model, made where there is none."""
    import torch

    from ternbin.models.bart.random_model import random_packed
    from ternbin.models.packed import save_packed

    torch.set_num_threads(1)
    folder = args.work / f"{args.shape}-{args.bits}"
    if not (folder / "config.json").exists():
        module, name = SHAPES[args.shape].quantized
        save_packed(random_packed(getattr(import_module(module), name), args.bits, **SHAPES[args.shape].config), folder)
    return folder


def model_and_ids(folder: Path, shape: Shape):
    """The lowered model without an end token, and the ids of a sentence: text, end, of mBART the language."""
    import torch

    from ternbin.models.prepare import lowered_model

    lowered = lowered_model(folder)
    lowered = replace(lowered, meta=lowered.meta | {"eos_id": -1, "forced_eos_id": None})
    text = torch.randint(
        4, shape.text_tokens, (SOURCE - len(shape.ending),), generator=torch.Generator().manual_seed(0)
    )
    return lowered, [*text.tolist(), *shape.ending]


def peak_rss_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def part_checkpoint(args: argparse.Namespace) -> dict:
    """The random checkpoint."""
    begin = perf_counter()
    folder = checkpoint(args)
    size = sum(path.stat().st_size for path in folder.iterdir())
    return {
        "checkpoint_seconds": perf_counter() - begin,
        "checkpoint_bytes": size,
        "checkpoint_peak_rss_gb": peak_rss_gb(),
    }


def part_predict(args: argparse.Namespace) -> dict:
    """Cycles before anything is simulated."""
    from ternbin.contract.hw import load_hw
    from ternbin.counting.cycles import predict
    from ternbin.counting.external import MemoryModel
    from ternbin.mapping.mapper import map_model

    begin = perf_counter()
    lowered, _ = model_and_ids(checkpoint(args), SHAPES[args.shape])
    lower = perf_counter() - begin
    begin = perf_counter()
    program = map_model(lowered, load_hw(args.hw), SOURCE, NEW)
    mapping = perf_counter() - begin
    begin = perf_counter()
    predicted = predict(program, MemoryModel())
    return {
        "lower_seconds": lower,
        "map_seconds": mapping,
        "image_bytes": len(program.image),
        "instructions": sum(call.count for call in program.calls),
        "cycle_model_seconds": perf_counter() - begin,
        "predicted_cycles": [call.cycles for call in predicted.calls],
        "predict_peak_rss_gb": peak_rss_gb(),
    }


def part_run(args: argparse.Namespace) -> dict:
    """In RTL, every tensor compared."""
    from ternbin.contract.hw import load_hw
    from ternbin.counting.phases import simulated_phases
    from ternbin.decoding.search import Policy
    from ternbin.energy.account import Tariff, accounted
    from ternbin.mapping.mapper import map_model
    from ternbin.sim.build import build
    from ternbin.sim.check import check
    from ternbin.sim.runner import run

    hw = load_hw(args.hw)
    lowered, ids = model_and_ids(checkpoint(args), SHAPES[args.shape])
    policy, program = Policy.of(lowered.meta, NEW), map_model(lowered, hw, SOURCE, NEW)
    result = run(program, ids=ids, policy=policy, library=build(hw))
    begin = perf_counter()
    verdict = check(program, lowered, ids, policy.prompt[0], result)
    checking = perf_counter() - begin
    meta = lowered.meta
    tariff = Tariff(hw=hw, weight_bits=meta["weight_bits"], act_bits=meta["act_bits"])
    numbers = accounted(tariff, simulated_phases(program, lowered, result), result)
    return {
        **verdict.asdict(),
        "tokens": result.tokens,
        "cycles": [call.cycles for call in result.calls],
        "sim_seconds": result.sim_seconds,
        "check_seconds": checking,
        "saturations": sum(
            value for call in result.calls for name, value in call.counters.items() if "saturations" in name
        ),
        "energy": numbers["energy"],
        "run_peak_rss_gb": peak_rss_gb(),
    }


PARTS = {"checkpoint": part_checkpoint, "predict": part_predict, "run": part_run}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="mbart-large")
    parts.add_arguments(parser, PARTS, "build/large_models")
    args = parser.parse_args()
    measured = parts.figures(
        args,
        __file__,
        PARTS,
        lambda part: f"{part}-{args.shape}-{Path(args.hw).stem}-{args.bits}",
        ["--shape", args.shape],
    )
    if measured is None:
        return
    for name, value in measured.items():
        print(f"{name:24} {json.dumps(value)[:100]}")
    parts.write(args, {"shape": args.shape, "hw": args.hw, "bits": args.bits, **measured})


if __name__ == "__main__":
    main()

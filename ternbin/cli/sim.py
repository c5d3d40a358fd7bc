"""Run a lowered program cycle-accurately: generated ids, cycles and counters; waves of a chosen window.

The program file holds no reference to compare with: `ternbin run` and `ternbin verify` do that. A long run without waves keeps its
state in a checkpoint; the same command goes on from there after it was stopped.
"""

import argparse
from pathlib import Path

from ternbin.cli import options
from ternbin.storage import writable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("program", help="program.tbn of `ternbin lower`")
    parser.add_argument(
        "--ids",
        required=True,
        action="append",
        metavar="LIST",
        help="token ids of the text, as many as the program was lowered for; repeated: of each text of a batch, in order",
    )
    parser.add_argument(
        "--max-new-tokens",
        type=options.whole(1, 1 << 20),
        metavar="N",
        help="stop after N tokens (default: the program's)",
    )
    parser.add_argument(
        "--waves", metavar="FILE", help="write waves: .vcd, or .fst where zlib and lz4 headers are installed"
    )
    parser.add_argument("--window", metavar="FROM:TO", help="cycles since reset that the waves show (default: all)")
    parser.add_argument("--checkpoint", metavar="FILE", help="state of a long run (default: PROGRAM.checkpoint.npz)")
    options.add_search(parser)
    options.add_restart(parser)
    options.add_memory(parser)
    options.add_json(parser)


def parse_window(text: str | None) -> tuple[int, int]:
    """(first cycle, cycle after the last) of FROM:TO; either side may be empty."""
    from ternbin.errors import InputError

    start, colon, stop = (text or ":").partition(":")
    try:
        window = int(start or 0), int(stop or 1 << 62)
    except ValueError:
        raise InputError(f"--window must be FROM:TO in cycles, not {text!r}") from None
    if not colon or not 0 <= window[0] < window[1]:
        raise InputError(f"--window must be FROM:TO with FROM below TO, not {text!r}")
    return window


def call(args: argparse.Namespace) -> None:
    from ternbin import api, results
    from ternbin.contract.program import load
    from ternbin.decoding.search import Search
    from ternbin.errors import InputError
    from ternbin.flow import found_fields
    from ternbin.models.prepare import check_ids
    from ternbin.sim.simulator import Waves

    program = load(args.program)
    if len(args.ids) != program.encoders:
        raise InputError(
            f"--ids must be given for {program.encoders} texts, which {args.program} was lowered for, not {len(args.ids)}"
        )
    ids = [options.parse_ids(each) for each in args.ids]
    for number, (own, length) in enumerate(zip(ids, program.lengths, strict=True), 1):
        check_ids(own, program.info["vocab"], program.info["max_positions"])
        if len(own) != length:
            which = "--ids" if len(ids) == 1 else f"--ids of text {number}"
            raise InputError(f"{which} must hold {length} ids, which {args.program} was lowered for, not {len(own)}")
    beams = api.beams_of_program(program)
    settings = options.search_settings(args, beams)
    search = Search(beams=beams) if beams > 1 else None  # only whether there is one decides what is said of a text
    checkpoint = Path(f"{args.program}.checkpoint.npz")
    if args.checkpoint:
        checkpoint = Path(args.checkpoint)
        writable(checkpoint.resolve().parent)
    waves = None
    if args.waves:
        start, stop = parse_window(args.window)
        if args.checkpoint:
            raise InputError("--checkpoint must be left out with --waves: waves cannot be continued")
        waves, checkpoint = Waves(path=args.waves, start=start, stop=stop), None
        writable(Path(args.waves).resolve().parent)
    result = api.simulate(
        program,
        ids,
        max_new_tokens=args.max_new_tokens,
        **settings,
        memory=options.memory(args),
        waves=waves,
        checkpoint=checkpoint,
        restart=args.restart,
    )
    counters = {name: sum(call.counters[name] for call in result.calls) for name in result.calls[0].counters}
    texts = [{"tokens": found.tokens} | found_fields(found, search) for found in result.found] or [
        {"tokens": result.tokens}
    ]
    for number, text in enumerate(texts, 1):
        print(f"tokens{f' {number}' if len(texts) > 1 else '':4}{text['tokens']}")
    print(f"cycles    {result.cycles:,}: " + ", ".join(f"{call.cycles:,}" for call in result.calls))
    print(f"simulated {result.sim_seconds:.2f} s, {result.cycles_per_second:,.0f} cycles/s")
    print("\n".join(f"  {name:32}{value:>14,}" for name, value in counters.items() if value))
    if args.waves:
        print(f"waves     {args.waves}")
    if args.json:
        record = {
            "tokens": sum((text["tokens"] for text in texts), []),
            "cycles": result.cycles,
            "call_cycles": [call.cycles for call in result.calls],
            "counters": counters,
            "sim_seconds": result.sim_seconds,
        } | ({"texts": texts} if result.found else {})
        results.write_json(args.json, record)

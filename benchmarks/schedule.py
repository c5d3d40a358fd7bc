"""How well programs are scheduled, by the cycle model: this checkout, and beside it another one.

    python benchmarks/schedule.py --beside ../ternbin-before --json schedule.json

Cycles are those of the RTL (docs/cycle-model.md), so that nothing is simulated; half a minute a checkout. Each checkout uses the
interpreter of its own ``.venv``. Below every figure: in what share of the call's cycles each unit had an instruction.
"""

import argparse
import json
import sys
from pathlib import Path

from waiting import ROOT, call

ASKED = {
    "decoder call, 4 beams over 1, bundled model on base": "<= 1.1",
    "encoder utilization, 1,024 tokens": ">= 0.95",
    "decoder call of 1-bit weights on base, beats a cycle": "1",
}
SCRIPT = """
import json
from ternbin.contract.hw import load_hw
from ternbin.contract.effects.transfer import moves
from ternbin.contract.isa import UNIT_OF, Op, Unit
from ternbin.counting.cycles import predict
from ternbin.counting.events import busy
from ternbin.counting.external import MemoryModel
from ternbin.counting.workload import call_work
from ternbin.mapping.mapper import map_model
from ternbin.models import prepare
from ternbin.models.bart.shape import BART_BASE, shape_model

SOURCE, NEW = 39, 10  # of the run that `ternbin run` makes of the bundled text

def shares(program, prediction, number):
    own, cycles = program.instructions(number), prediction.calls[number]
    result = {}
    for unit in Unit:
        spans = ((cycles.start[i], cycles.done[i]) for i, each in enumerate(own) if UNIT_OF.get(each.op) == unit)
        result[unit.name.lower()] = busy(sorted((int(first), int(done)) for first, done in spans)) / cycles.cycles
    return result

figures = {}
model, memory, calls = prepare.lowered_model(prepare.bundled_dir()), MemoryModel(), {}
for beams in (1, 2, 4):
    program = map_model(model, load_hw("base").searching(beams), SOURCE, NEW, beams, contents=False)
    found = predict(program, memory)
    calls[beams] = found.calls[-1].cycles
    figures[f"decoder call, {beams} beam{'s' * (beams > 1)}, bundled model on base"] = calls[beams], shares(program, found, NEW)
figures["decoder call, 4 beams over 1, bundled model on base"] = calls[4] / calls[1], {}
program = map_model(model, load_hw("small"), SOURCE, NEW, contents=False)
found = predict(program, memory)
figures["run of the bundled model on small"] = found.cycles, {}
figures["of it a decoder call"] = found.calls[-1].cycles, shares(program, found, NEW)
model, hw = shape_model("2-2", **BART_BASE), load_hw("base")
for tokens in (128, 512, 1024):
    program = map_model(model, hw, tokens, 1, contents=False)
    found = predict(program, memory, calls=1)
    macs = sum(work.macs for work in call_work(model, program, 0).values())
    figures[f"encoder utilization, {tokens:,} tokens"] = macs / hw.peak_macs / found.calls[0].cycles, shares(program, found, 0)
program = map_model(shape_model("1-1", **BART_BASE), hw, 128, 2, contents=False)
found = predict(program, memory)
beats = sum(moves(hw, i)[1] for i in program.instructions(2) if i.op == Op.LOAD) // hw.axi_bytes
figures["decoder call of 1-bit weights on base, beats a cycle"] = beats / found.calls[2].cycles, shares(program, found, 2)
print(json.dumps(figures))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--beside", type=Path, metavar="CHECKOUT", help="another checkout, with its own .venv")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    checkouts = [ROOT, *([args.beside.resolve()] if args.beside else [])]
    measured: list[dict] = []
    for checkout in checkouts:
        print(f"{checkout.name} ...", file=sys.stderr)
        measured.append(json.loads(call(checkout, ["-c", SCRIPT])[1].splitlines()[-1]))
    print(f"{'':52} {'asked':>8} {'here':>10}" + f" {'beside':>10}" * bool(args.beside))
    for name in measured[0]:
        figures = [each[name] for each in measured]
        shown = (f"{value:10,.3f}" if isinstance(value, float) else f"{value:10,}" for value, _ in figures)
        print(f"{name:52} {ASKED.get(name, ''):>8} " + " ".join(shown))
        for unit in figures[0][1]:
            print(f"    {unit:48} {'':8} " + " ".join(f"{shares[unit]:10.1%}" for _, shares in figures))
    if args.json:
        args.json.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

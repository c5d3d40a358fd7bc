"""Products of matrices here, in ZigZag and in SCALE-Sim: cycles, energy, seconds of each tool.

    python benchmarks/other_tools.py --json other_tools.json

The two others are installed from the package index into a virtual environment of their own (``--venv``).  All get the same machine: the
ternary array of ``--hw`` with its memories and its bus, operands of 2 bits.  ternbin's cycles are those of the RTL, its energy that of the
event model; ZigZag is given the same energy of a multiply-accumulate, of a memory's access and of a bit of external memory, and looks for
its own schedule.  SCALE-Sim knows two dimensions (a square array of as many elements) and no energy.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import time
import venv
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

import ternbin
from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import Instruction, Mem, Op, encode
from ternbin.contract.memories import ceil_div
from ternbin.contract.rows import code_row_bytes, code_row_words, code_words, word_codes
from ternbin.contract.transfers import transfer_banks
from ternbin.counting.traffic import traffic
from ternbin.energy.lines import Line, total_pj
from ternbin.energy.model import account
from ternbin.graph.build import Builder
from ternbin.graph.ir import Codes, Graph, as_op
from ternbin.graph.ops.codes import LinearCodes
from ternbin.graph.ops.interpreter import Interpreter, outputs
from ternbin.mapping.allocator import Image
from ternbin.mapping.linear import plain, plan_linear
from ternbin.mapping.sync import insert_tokens
from ternbin.passes import FOLD, run_passes
from ternbin.sim.build import build
from ternbin.sim.simulator import Simulator

GEMMS = [(128, 768, 768), (128, 3072, 768), (1, 768, 768)]
"""Tokens, outputs, depth of each product."""
BITS, ACCUMULATOR, PARTS = 2, 24, 4
PACKAGES = [
    "zigzag-dse==3.9.1",
    "scalesim==3.0.0",
    "six",  # ZigZag imports it without asking for it
    "numpy<2.3",  # newer ones refuse what SCALE-Sim does
]


def here(hw: HwConfig, tokens: int, outs: int, depth: int) -> dict[str, Any]:
    """In RTL, weights loaded in parts under the products of the part before; the output compared."""
    generator = torch.Generator().manual_seed(0)
    b = Builder({})
    x = b.input("x", Codes((tokens, depth), "ternary"))
    weight = torch.randint(-1, 2, (outs, depth), generator=generator)
    step, bias = torch.full((outs,), 0.1), torch.zeros(outs, dtype=torch.float64)
    real = b.linear(x, "layer", weight, "ternary", alpha_w=step, alpha_x=0.5, bias=bias)
    y = b.quantize(real, "layer", alpha=0.8, kind="ternary")
    folded, weights = run_passes(Graph("layer", (b.op("output", y, name="y"),)), b.weights, FOLD)
    codes = torch.randint(-1, 2, (tokens, depth), generator=generator)
    expected = outputs(folded, Interpreter(folded, weights)({"x": codes}))["y"].numpy()

    layer = as_op(folded.outputs[0].src[0], LinearCodes)
    image, words, out_words = Image(), depth // hw.lanes, outs // hw.lanes
    plan = plan_linear(hw, image, weights, layer, plain(depth), 1)
    source = image.put("x", lambda: code_row_bytes(hw, code_words(hw, codes.numpy())).tobytes())
    row = hw.lanes * BITS // 8
    result = image.reserve(tokens * out_words * row)
    col_tiles = ceil_div(tokens, hw.cols)
    dst, part = col_tiles * words, plan.tiles // PARTS
    columns = dict(col_stride=words, col_planes=1, col_tiles=col_tiles, tokens=tokens, chunks=plan.chunks)
    program = [Instruction(Op.LOAD, dict(mem=Mem.ABUF, inner=words, outer=tokens, dram=source, stride=words * row))]
    for tile in range(0, plan.tiles, part):
        at, params = tile * plan.inner, tile * plan.params.words
        load = dict(inner=plan.inner, outer=part * transfer_banks(hw, Mem.WBUF, plan.expand), stride=plan.row_bytes)
        program += [
            Instruction(
                Op.LOAD, load | dict(mem=Mem.WBUF, addr=at, dram=plan.weights.address + tile * plan.weights.tile_bytes)
            ),
            Instruction(
                Op.LOAD,
                dict(
                    mem=Mem.PBUF,
                    addr=params,
                    inner=part * plan.params.words,
                    outer=1,
                    dram=plan.params.address + tile * plan.params.tile_bytes,
                ),
            ),
            Instruction(
                Op.GEMM,
                columns
                | plan.fields
                | dict(row_addr=at, row_stride=plan.inner, row_planes=1, row_tiles=part, param_addr=params)
                | dict(dst_addr=dst + tile * hw.rows // hw.lanes, dst_stride=out_words),
            ),
        ]
    store = dict(mem=Mem.ABUF, addr=dst, inner=out_words, outer=tokens, dram=result, stride=out_words * row)
    program.append(Instruction(Op.STORE, store))
    program = [*insert_tokens(hw, program), Instruction(Op.END)]
    start = image.put("program", lambda: b"".join(encode(i).to_bytes(64, "little") for i in program))
    # instructions are fetched ahead of the one that ends
    memory, library = bytearray(image.bytes()) + bytes(4096), build(hw)
    begin = time.process_time()
    with Simulator(hw, library, memory, ternbin.MemoryModel()) as simulator:
        run = simulator.call(start, len(program))
    seconds = time.process_time() - begin
    raw = memory[result : result + tokens * out_words * row]
    shaped = torch.frombuffer(raw, dtype=torch.uint8).numpy().reshape(tokens, -1)
    if not (word_codes(hw, code_row_words(hw, shaped)).reshape(tokens, outs) == expected).all():
        raise SystemExit(f"{tokens} x {outs} x {depth}: the output differs from the interpreter's")
    counters = run.counters | {f"{name}_single_plane": run.counters[f"execute_array_{event}"] for name, event in EVENTS}
    moved = traffic(hw, [i for i in program if i.op in (Op.LOAD, Op.STORE)], fetched=len(program))
    lines = account(counters, moved, hw, weight_bits=BITS)
    return {"cycles": run.cycles, "seconds": seconds, **_parts(lines)}


EVENTS = (("steps", "active"), ("columns", "columns"))


def _parts(lines: list[Line]) -> dict[str, float]:
    """Microjoules: what ZigZag has a term for (bits from outside, accesses of memories, multiply-accumulates), and all."""
    sums = {"external": 0.0, "memories": 0.0, "arithmetic": 0.0}
    for line in lines:
        if line.group == "external" and line.event.endswith("bit"):
            sums["external"] += line.pj / 1e6
        elif line.unit in ("abuf", "wbuf"):
            sums["memories"] += line.pj / 1e6
        elif line.event == "multiply-accumulate":
            sums["arithmetic"] += line.pj / 1e6
    return sums | {"energy": sum(sums.values()), "all": total_pj(lines)["pj"] / 1e6}


def rates(hw: HwConfig) -> dict[str, float]:
    """Picojoules of a multiply-accumulate, of an access of a memory (its second port and wires in it), of a bit from outside."""
    found: dict[str, float] = defaultdict(float)
    for line in account(defaultdict(lambda: 1), traffic(hw, [], fetched=1), hw, weight_bits=BITS):
        if line.unit in ("abuf", "wbuf"):
            kind = "read" if line.counter.endswith("reads") else "write"
            found[f"{line.unit} {kind}"] += line.energy.pj * float(line.factor)
        elif line.event == "multiply-accumulate":
            found["multiply-accumulate"] = line.energy.pj
        elif line.event == "weights bit":
            found["external bit"] = line.energy.pj
    return found


def machine(hw: HwConfig) -> dict[str, Any]:
    """``hw`` in the words of ZigZag: tokens, outputs and depth are unrolled over columns, rows and lanes."""
    pj, word = rates(hw), hw.lanes * BITS

    def memory(size: int, costs: tuple[float, float], serves: list[str], ports: list[dict[str, Any]]) -> dict[str, Any]:
        operands = sorted({use.split(",")[0] for port in ports for use in port["allocation"]})
        names = dict(size=size, r_cost=costs[0], w_cost=costs[1], area=0, latency=1)
        return names | dict(operands=operands, ports=ports, served_dimensions=serves)

    def port(name: str, bits: int, *uses: str, least: int | None = None) -> dict[str, Any]:
        kind = {"r": "read", "w": "write", "rw": "read_write"}[name.partition("_")[0]]
        return dict(name=name, type=kind, bandwidth_min=least or bits, bandwidth_max=bits, allocation=list(uses))

    accumulators = [
        port(f"{kind}_port_{number}", ACCUMULATOR, use)
        for use, kind, number in (("O, tl", "r", 1), ("O, th", "r", 2), ("O, fh", "w", 1), ("O, fl", "w", 2))
    ]
    external = [f"{operand}, {way}" for operand in ("I1", "I2") for way in ("fh", "tl")]
    bus = hw.axi_data_bits
    return {
        "name": hw.name,
        "memories": {
            "accumulators": memory(ACCUMULATOR, (0.0, 0.0), ["D3"], accumulators),
            "wbuf": memory(
                hw.wbuf_words * word,
                (pj["wbuf read"], pj["wbuf write"]),
                ["D2", "D3"],
                [port("r_port_1", word, "I2, tl"), port("w_port_1", word, "I2, fh")],
            ),
            "abuf": memory(
                hw.abuf_words * word,
                (pj["abuf read"], pj["abuf write"]),
                ["D1", "D3"],
                [
                    port("r_port_1", word, "I1, tl", "O, tl", "O, th", least=BITS),
                    port("w_port_1", word, "I1, fh", "O, fh", "O, fl", least=BITS),
                ],
            ),
            "external": memory(
                10**11,
                (pj["external bit"] * bus, pj["external bit"] * bus),
                ["D1", "D2", "D3"],
                [port("rw_port_1", bus, *external, "O, fh", "O, tl", "O, fl", "O, th")],
            ),
        },
        "operational_array": {
            "unit_energy": pj["multiply-accumulate"],
            "unit_area": 1,
            "dimensions": ["D1", "D2", "D3"],
            "sizes": [hw.rows, hw.cols, hw.lanes],
        },
    }


ZIGZAG = """
import json, logging, sys, time
from zigzag.api import get_hardware_performance_zigzag
logging.disable(logging.CRITICAL)
begin = time.process_time()
energy, cycles, found = get_hardware_performance_zigzag(
    "gemm.yaml", "machine.yaml", "mapping.yaml", opt="latency", dump_folder="out", loma_show_progress_bar=False)
best = found[0][1][0][0]
memories = {str(operand): levels for operand, levels in best.mem_energy_breakdown.items()}
print(json.dumps({"cycles": cycles, "energy": energy / 1e6, "arithmetic": best.mac_energy / 1e6,
    "external": sum(levels[-1] for levels in memories.values()) / 1e6,
    "memories": sum(sum(levels[:-1]) for levels in memories.values()) / 1e6,
    "seconds": time.process_time() - begin}))
"""


def zigzag(python: Path, work: Path, hw: HwConfig, tokens: int, outs: int, depth: int) -> dict[str, Any]:
    """Its quickest schedule."""
    layer = {
        "id": 0,
        "name": "gemm",
        "operator_type": "Gemm",
        "equation": "O[b][k]+=W[k][c]*I[b][c]",
        "dimension_relations": [],
        "loop_dims": ["B", "K", "C"],
        "loop_sizes": [tokens, outs, depth],
        "operand_precision": {"W": BITS, "I": BITS, "O": ACCUMULATOR, "O_final": BITS},
        "operand_source": {"W": 0, "I": 0},
    }
    unrolled = {"D1": [f"K, {hw.rows}"], "D2": [f"B, {hw.cols}"], "D3": [f"C, {hw.lanes}"]}
    mapping = {
        "name": "default",
        "spatial_mapping": unrolled,
        "memory_operand_links": {"O": "O", "W": "I2", "I": "I1"},
    }
    for name, content in (("gemm", [layer]), ("mapping", [mapping]), ("machine", machine(hw))):
        (work / f"{name}.yaml").write_text(json.dumps(content), encoding="utf-8")  # JSON is YAML
    return json.loads(_ran(python, work, ZIGZAG).splitlines()[-1])


SCALESIM = """
import time
from scalesim.scale_sim import scalesim
begin = time.process_time()
scalesim(save_disk_space=True, verbose=False, config="scale.cfg", topology="gemm.csv", layout="layout.csv",
         input_type_gemm=True).run_scale(top_path="scalesim")
print(time.process_time() - begin)
"""


def scale_sim(python: Path, work: Path, hw: HwConfig, tokens: int, outs: int, depth: int) -> dict[str, Any]:
    """Its cycles with stalls, the first loads in them, and those of the array alone; weights stay in the elements."""
    side, words = round(hw.peak_macs**0.5), hw.axi_data_bits // BITS
    banks = "".join(
        f"{name}CustomLayout = False\n{name}SRAMBankBandwidth = {words}\n{name}SRAMBankNum = 1\n{name}SRAMBankPort = 2\n"
        for name in ("Ifmap", "Filter")  # the width of a bank is also what the tool reads from outside in a cycle
    )
    kib = {
        name: max(1, size * hw.lanes // 1024)
        for name, size in (("i", hw.abuf_words * hw.cols), ("f", hw.wbuf_words * hw.rows))
    }
    (work / "scale.cfg").write_text(
        "[general]\nrun_name = gemm\n\n[architecture_presets]\n"
        f"ArrayHeight = {side}\nArrayWidth = {side}\nIfmapSramSzkB = {kib['i']}\nFilterSramSzkB = {kib['f']}\n"
        f"OfmapSramSzkB = {kib['i']}\nIfmapOffset = 0\nFilterOffset = 10000000\nOfmapOffset = 20000000\nDataflow = ws\n"
        f"Bandwidth = {words}\nReadRequestBuffer = 512\nWriteRequestBuffer = 512\nMemoryBanks = 1\n\n[layout]\n{banks}\n"
        "[sparsity]\nSparsitySupport = false\n\n[run_presets]\nInterfaceBandwidth = USER\nUseRamulatorTrace = False\n",
        encoding="utf-8",
    )
    (work / "gemm.csv").write_text(f"Layer, M, N, K,\ngemm, {tokens}, {outs}, {depth},\n", encoding="utf-8")
    (work / "layout.csv").write_text("Layer,\ngemm,\n", encoding="utf-8")
    seconds = float(_ran(python, work, SCALESIM).splitlines()[-1])
    with (work / "scalesim" / "gemm" / "COMPUTE_REPORT.csv").open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file, skipinitialspace=True)
    total, stalls = int(float(row["Total Cycles (incl. prefetch)"])), int(float(row["Stall Cycles"]))
    return {"cycles": total, "array_cycles": int(float(row["Total Cycles"])) - stalls, "seconds": seconds}


def _ran(python: Path, work: Path, script: str) -> str:
    done = subprocess.run(
        [python, "-c", script],
        cwd=work,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONPATH": ""},
    )
    if done.returncode:
        raise SystemExit(f"{python} ended with {done.returncode}: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout


def environment(folder: Path) -> Path:
    """Python of a virtual environment with both tools, made where there is none."""
    python, ready = folder.resolve() / "bin" / "python", folder / ".ready"
    if not ready.exists():
        print("installing", *PACKAGES, file=sys.stderr)
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        ready.touch()
    return python


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hw", default="base")
    parser.add_argument("--venv", type=Path, default=Path("build/other_tools/venv"))
    parser.add_argument("--work", type=Path, default=Path("build/other_tools"))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    hw, work, records = ternbin.load_hw(args.hw), args.work, []
    work.mkdir(parents=True, exist_ok=True)
    python = environment(args.venv)
    print(
        f"{'product':16} {'tool':10} {'cycles':>10} {'array alone':>11} {'uJ':>8} {'external':>9} {'memories':>9} {'array':>7} {'CPU s':>7}"
    )
    for gemm in GEMMS:
        least = gemm[0] * gemm[1] * gemm[2] // hw.peak_macs
        for tool, found in (
            ("ternbin", here(hw, *gemm)),
            ("ZigZag", zigzag(python, work, hw, *gemm)),
            ("SCALE-Sim", scale_sim(python, work, hw, *gemm)),
        ):
            records.append({"gemm": gemm, "tool": tool, "least_cycles": least, **found})
            parts = [found.get(name) for name in ("energy", "external", "memories", "arithmetic")]
            shown = ["" if value is None else f"{value:.3g}" for value in parts]
            print(
                f"{' x '.join(map(str, gemm)):16} {tool:10} {found['cycles']:>10,.0f} "
                f"{found.get('array_cycles', ''):>11} {shown[0]:>8} {shown[1]:>9} {shown[2]:>9} {shown[3]:>7} {found['seconds']:>7.2f}",
                flush=True,
            )
    if args.json:
        args.json.write_text(json.dumps({"hw": hw.name, "products": records}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

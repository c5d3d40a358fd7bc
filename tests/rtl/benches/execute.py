"""Random GEMM instructions with data, and the memories of the execute unit around it."""

import random

import cocotb
import numpy as np

from ternbin.contract.hw import HwConfig
from ternbin.contract.isa import Dest, Epilogue, Instruction, Kind, Mem, Op, encode
from ternbin.contract.memories import ceil_div, memories
from ternbin.contract.program import Region
from ternbin.contract.rows import scale_words
from ternbin.emulation.machine import Machine
from ternbin.sim.tb import drivers

PORTS = {
    Mem.ABUF: ("abuf", "abuf_w", None),
    Mem.WBUF: ("wbuf", None, None),
    Mem.KBUF: ("kbuf", "kbuf_w", "kbuf_t"),
    Mem.RBUF: ("rbuf_r", "rbuf_w", None),
    Mem.SBUF: (None, "sbuf_w", None),
    Mem.PBUF: ("pbuf", None, None),
    Mem.IDBUF: (None, "idbuf_w", None),
}


def words_of(machine: Machine, mem: Mem, bank: int) -> list[int]:
    """The words of one bank, as integers."""
    shape = memories(machine.hw)[mem]
    raw, size = machine.raw(Region(mem, 0, shape.words, bank)), shape.word_bytes
    return [int.from_bytes(raw[a * size : (a + 1) * size], "little") for a in range(shape.words)]


class UnitBench:
    """The execute unit with its memories; ``machine`` computes what they must hold."""

    def __init__(self, dut, machine: Machine, stall: float):
        self.dut, self.machine, hw = dut, machine, machine.hw
        self.memories: dict[Mem, drivers.MemoryModel] = {}
        for mem, (reader, writer, transposed) in PORTS.items():
            shape = memories(hw)[mem]
            model = drivers.MemoryModel(
                dut,
                banks=shape.banks,
                depth=shape.words,
                word_bits=shape.bits,
                elements=shape.elements,
                planes=shape.planes,
                stall=0 if mem == Mem.SBUF else stall,  # always ready
            )
            if reader:
                model.read_port(reader)
            if writer:
                model.write_port(writer)
            if transposed:
                model.transposed_port(transposed)
            self.memories[mem] = model
        self.refresh()

    def refresh(self) -> None:
        """Copy the machine's memories to the unit's."""
        for mem, model in self.memories.items():
            for bank, words in enumerate(model.words):
                words[:] = words_of(self.machine, mem, bank)

    async def load_table(self) -> None:
        """Write the machine's LUTX through the table port."""
        per_beat = self.machine.hw.axi_data_bits // 16
        port = drivers.PortMaster(self.dut, "lutx_w")
        entries = [int(value) for value in self.machine.memories[Mem.LUTX]]
        for beat in range(len(entries) // per_beat):
            part = entries[beat * per_beat : (beat + 1) * per_beat]
            noise = random.getrandbits(8) << 8  # the upper halves of the entries must not matter
            await port.request(
                addr=beat, mask=1, lane_mask=1, data=sum((value | noise) << 16 * e for e, value in enumerate(part))
            )

    async def issue(self, instruction: Instruction) -> None:
        """Hand an instruction to the unit."""
        self.dut.port__instruction__payload.value = encode(instruction)
        self.dut.port__instruction__valid.value = 1
        await drivers.until(self.dut, lambda: drivers.get(self.dut, "port__instruction__ready") == 1)
        self.dut.port__instruction__valid.value = 0

    async def run(self, instruction: Instruction, limit: int = 20000) -> int:
        """Execute it here and on the machine; returns the cycles from issue to done. Fails where a memory differs."""
        self.machine.execute(instruction)
        changed = _destination_memory(instruction)
        writes = {mem: model.writes for mem, model in self.memories.items()}
        await self.issue(instruction)
        cycles = await drivers.until(self.dut, self._ended, limit)
        assert drivers.get(self.dut, "port__fault") == 0, instruction
        for mem, model in self.memories.items():
            assert mem == changed or model.writes == writes[mem], f"{instruction}: must not write {mem.name}"
        self._compare(instruction)
        return cycles

    async def run_together(self, instructions: list[Instruction]) -> int:
        """As ``run``, with all of them offered at once; none may read what one of the others writes. Returns the cycles of all."""

        async def issue_all():
            for instruction in instructions:
                await self.issue(instruction)

        cocotb.start_soon(issue_all())
        cycles = 0
        for instruction in instructions:
            self.machine.execute(instruction)
            cycles += await drivers.until(self.dut, lambda: drivers.get(self.dut, "port__done") == 1)
            self._compare(instruction)
        return cycles

    def _compare(self, instruction: Instruction) -> None:
        """The memory that the instruction writes, with the machine's."""
        mem = _destination_memory(instruction)
        if mem is None:
            return
        for bank, words in enumerate(self.memories[mem].words):
            for addr, (got, want) in enumerate(zip(words, words_of(self.machine, mem, bank), strict=True)):
                assert got == want, f"{instruction}: {mem.name} bank {bank} word {addr}: {got:#x}, not {want:#x}"

    def _ended(self) -> bool:
        return drivers.get(self.dut, "port__done") == 1 or drivers.get(self.dut, "port__fault") == 1


def _destination_memory(instruction: Instruction) -> Mem | None:
    epilogue = instruction["epilogue"]
    if epilogue in (Epilogue.CODES, Epilogue.CODES8):
        return Mem.ABUF if instruction["dest"] == Dest.TOKENS else Mem.KBUF
    if epilogue in (Epilogue.ARGMAX, Epilogue.TOP):
        return Mem.IDBUF if instruction["last"] else None
    return Mem.RBUF if epilogue == Epilogue.RESIDUAL else Mem.SBUF


def epilogues(hw: HwConfig) -> list[Epilogue]:
    """Those that the hardware has."""
    return [e for e in Epilogue if e != Epilogue.TOP or hw.beams > 1]


def random_gemm(hw: HwConfig, rng: random.Random, epilogue: Epilogue) -> dict[str, int]:
    """Fields of a legal GEMM; sources lie in the lower half of ABUF and KBUF, results in the upper half."""
    f = {"epilogue": epilogue, "acc_init": rng.randint(-300, 300), "row_kbuf": rng.randint(0, 1)}
    f |= {"chunks": rng.randint(1, 3), "row_tiles": rng.randint(1, 4), "col_tiles": rng.randint(1, 3)}
    if epilogue == Epilogue.ARGMAX:
        f["col_tiles"] = 1
    f["tokens"] = rng.randint((f["col_tiles"] - 1) * hw.cols + 1, f["col_tiles"] * hw.cols)
    if epilogue == Epilogue.TOP:
        f["tokens"] = rng.randint(1, hw.beams)
        f["col_tiles"] = ceil_div(f["tokens"], hw.cols)
    for side, tiles, words in (
        ("row", f["row_tiles"], min(hw.wbuf_words, hw.kbuf_words)),
        ("col", f["col_tiles"], hw.abuf_words),
    ):
        planes = 8 if rng.random() < 0.3 else 1
        f |= {f"{side}_planes": planes, f"{side}_signed": rng.randint(0, 1) if planes == 8 else 0}
        f[f"{side}_plane"] = f["chunks"] + rng.randint(0, 1) if planes == 8 else 0
        f[f"{side}_stride"] = rng.choice([0, planes * f["chunks"], 7])
        span = (tiles - 1) * f[f"{side}_stride"] + (planes - 1) * f[f"{side}_plane"] + f["chunks"]
        f[f"{side}_addr"] = rng.randint(0, words // 2 - span)
    f["rowsum"] = rng.randint(0, 1) if f["row_planes"] == f["col_planes"] == 1 else 0
    if epilogue in (Epilogue.CODES, Epilogue.CODES8):
        f |= _destination(hw, rng, f, planes=8 if epilogue == Epilogue.CODES8 else 1)
    elif epilogue == Epilogue.ARGMAX:
        f |= {
            "dst_addr": rng.randint(0, hw.idbuf_words - hw.cols),
            "first": rng.randint(0, 1),
            "last": rng.randint(0, 1),
        }
        f["index"] = rng.choice([0, 7, 1000])
    elif epilogue == Epilogue.TOP:
        f |= {
            "dst_addr": rng.randint(0, hw.idbuf_words - hw.result_words),
            "first": rng.randint(0, 1),
            "last": rng.randint(0, 1),
        }
        f["index"] = rng.choice([0, 7, 1000, (1 << 24) - 6])
        f["features"] = min(
            (1 << 24) - 1, f["index"] + rng.choice([0, 1, 3, hw.rows * f["row_tiles"] - 1, hw.rows * 9])
        )
    else:
        stride = f["row_tiles"] + rng.randint(0, 2)
        f |= {"dst_stride": stride, "dst_addr": rng.randint(0, hw.sbuf_words - stride * f["tokens"])}
    return f


def _destination(hw: HwConfig, rng: random.Random, f: dict, planes: int) -> dict[str, int]:
    dest = rng.choice(list(Dest))
    lane, key = rng.randrange(2 * hw.lanes // hw.rows) * hw.rows, rng.randrange(2 * hw.lanes)
    if dest == Dest.TRANSPOSED:
        per_row = ceil_div(key + f["tokens"], hw.lanes)
        stride, span = per_row, f["row_tiles"] * per_row
        depth = hw.kbuf_words
    else:
        stride = ceil_div(lane + f["row_tiles"] * hw.rows, hw.lanes)
        banks, depth, first = (hw.cols, hw.abuf_words, 0) if dest == Dest.TOKENS else (hw.rows, hw.kbuf_words, key)
        span = stride * ceil_div(first + f["tokens"], banks)
    plane = span if planes == 8 else 0
    room = depth - depth // 2 - span - (planes - 1) * plane
    return {
        "dest": dest,
        "lane": lane,
        "key": key,
        "dst_stride": stride,
        "dst_plane": plane,
        "dst_addr": depth // 2 + rng.randint(0, room),
    }


def random_parameters(machine: Machine, rng: random.Random, f: dict) -> None:
    """Add parameter fields to ``f`` and write matching parameters to the machine's PBUF."""
    hw, epilogue = machine.hw, f["epilogue"]
    tiles = f["row_tiles"]
    shared = rng.random() < 0.3
    if epilogue == Epilogue.CODES:
        f["kind"] = Kind.BINARY if hw.kind == "binary" or rng.random() < 0.3 else Kind.TERNARY
        words = _thresholds(hw, rng, f, tiles)
    elif epilogue == Epilogue.SCORES:
        return
    else:
        words = _scales(hw, rng, f, tiles)
    stride = words.shape[1] + rng.randint(0, 2)
    f["param_stride"] = 0 if shared else stride
    f["param_addr"] = rng.randint(0, hw.pbuf_words - stride * tiles)
    for tile in range(1 if shared else tiles):
        low = f["param_addr"] + tile * stride
        machine.memories[Mem.PBUF][low : low + words.shape[1]] = words[tile]


def _thresholds(hw: HwConfig, rng: random.Random, f: dict, tiles: int) -> np.ndarray:
    """Ascending thresholds whose steps keep every code in the range of its kind: ``[tiles, thresholds, rows]``."""
    if f["kind"] == Kind.BINARY:
        pairs = rng.randint(1, 2)
        f |= {"base": -1, "thresholds": 2 * pairs, "dirs": [0b0011, 0b0011][pairs - 1]}
    else:
        f |= {"base": rng.randint(-1, 1), "thresholds": rng.randint(1, 4), "dirs": 0}
        code = f["base"]
        for j in range(f["thresholds"]):
            step = rng.choice([d for d in (-1, 1) if -1 <= code + d <= 1])
            code += step
            f["dirs"] |= (step > 0) << j
    count = f["thresholds"]
    spread = 400 if f["row_planes"] == f["col_planes"] == 1 else 30000
    values = np.sort(
        [[[rng.randint(-spread, spread) for _ in range(hw.rows)] for _ in range(count)] for _ in range(tiles)], axis=1
    )
    if rng.random() < 0.3:
        values[:, 0, :], values[:, -1, 0] = -32768, 32767
        if f["kind"] == Kind.BINARY:
            values[:, 1, :], values[:, -2, 0] = -32768, 32767
    if f["kind"] == Kind.BINARY:
        values[:, 1::2] = values[:, 0::2]
    return values


def _scales(hw: HwConfig, rng: random.Random, f: dict, tiles: int) -> np.ndarray:
    """M and B such that results reach over the range of the epilogue and beyond it: ``[tiles, 4, rows]``."""
    f |= (
        {"kind": rng.choice([Kind.INT8, Kind.UINT8]), "lut": rng.randint(0, 1)}
        if f["epilogue"] == Epilogue.CODES8
        else {}
    )
    logits = f["epilogue"] in (Epilogue.ARGMAX, Epilogue.TOP)
    f["shift"] = (
        rng.choice([0, 1, 10, 20, 26, 30]) if not logits else rng.choice([0, 4, 15]) * (f["epilogue"] == Epilogue.TOP)
    )
    planes = (f["row_planes"] == 8) + (f["col_planes"] == 8)
    target = {Epilogue.CODES8: 8, Epilogue.RESIDUAL: hw.res_bits - 1}.get(f["epilogue"], 30)
    bits = max(1, min(23, f["shift"] + target - 4 - 7 * planes))
    mul = [rng.randint(-(1 << bits), (1 << bits) - 1) for _ in range(tiles * hw.rows)]
    bias_bits = min(39, f["shift"] + target)
    bias = [rng.randint(-(1 << bias_bits), (1 << bias_bits) - 1) for _ in range(tiles * hw.rows)]
    if logits and rng.random() < 0.5:
        mul, bias = [0] * len(mul), [rng.randint(0, 2) for _ in bias]  # many ties
    return scale_words(hw, np.array(mul), np.array(bias))


def gemm(fields: dict[str, int]) -> Instruction:
    return Instruction(Op.GEMM, {name: int(value) for name, value in fields.items()})

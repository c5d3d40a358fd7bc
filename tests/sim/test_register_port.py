"""The register port of a core in simulation, with requests and answers at odd times: a host need not be as regular as the harness."""

import random

import pytest

from ternbin.contract import isa
from ternbin.contract.hw import NAMED
from ternbin.counting.external import MemoryModel
from ternbin.sim.build import build
from ternbin.sim.simulator import HostCycle, Simulator

HW = NAMED["tiny"]
OKAY, SLVERR = 0, 2
KEPT = {isa.REG_PROGRAM: 0xFFFF_FFFF, isa.REG_PROGRAM_HI: 0xFFFF_FFFF, isa.REG_CTRL: 2}  # offset -> bits that it keeps
OTHERS = (isa.REG_ID, isa.REG_ERROR, isa.REG_PROGRAM + 1, 0xFFC)  # not to be written


@pytest.fixture(scope="module")
def simulator():
    with Simulator(HW, build(HW), bytearray(1 << 12), MemoryModel()) as simulator:
        yield simulator


def write(simulator: Simulator, rng: random.Random, address: int, value: int, strobe: int) -> int:
    """Address and value come, and the answer is taken, some cycles later than they could."""
    late = {name: rng.randrange(4) for name in ("awvalid", "wvalid", "bready")}
    port = HostCycle(awaddr=address, wdata=value, wstrb=strobe)
    done: set[str] = set()
    for cycle in range(40):
        for name, start in late.items():
            setattr(port, name, cycle >= start and name not in done)
        simulator.host_cycle(port)
        done |= {"awvalid"} if port.awvalid and port.awready else set()
        done |= {"wvalid"} if port.wvalid and port.wready else set()
        if port.bvalid and port.bready:
            answer = port.bresp
            break
    else:
        raise AssertionError("a write must be answered")
    _idle(simulator, rng)
    return answer


def read(simulator: Simulator, rng: random.Random, address: int) -> tuple[int, int]:
    start, taken = rng.randrange(4), False
    port, ready = HostCycle(araddr=address), rng.randrange(6)
    for cycle in range(40):
        port.arvalid, port.rready = cycle >= start and not taken, cycle >= ready
        simulator.host_cycle(port)
        taken |= bool(port.arvalid and port.arready)
        if port.rvalid and port.rready:
            answer = port.rresp, port.rdata
            break
    else:
        raise AssertionError("a read must be answered")
    _idle(simulator, rng)
    return answer


def _idle(simulator: Simulator, rng: random.Random) -> None:
    for _ in range(rng.randrange(4)):
        simulator.host_cycle(HostCycle())


def test_registers_keep_what_was_written_however_long_it_takes(simulator):
    rng, table = random.Random(1), dict.fromkeys(KEPT, 0)
    for _ in range(300):
        address, value = rng.choice([*KEPT, *OTHERS]), rng.getrandbits(32) & ~1  # 1 would start the core
        strobe = rng.choice([15, 15, rng.randrange(15)])
        good = address in KEPT and strobe == 15
        assert write(simulator, rng, address, value, strobe) == (OKAY if good else SLVERR)
        if good:
            table[address] = value & KEPT[address]
        asked = rng.choice(list(KEPT))
        assert read(simulator, rng, asked) == (OKAY, table[asked])

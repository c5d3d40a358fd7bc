"""All that goes into somebody else's design, as files."""

from ternbin.contract.hw import HwConfig
from ternbin.integration.fusesoc import core
from ternbin.integration.registers import derived, systemrdl
from ternbin.integration.software import drivers
from ternbin.rtl.verilog import generate


def package(hw: HwConfig, form: str = "asic", prefix: str | None = None) -> dict[str, bytes]:
    """File name -> contents: the Verilog with what stands beside it, and under the name of the top ``.core`` (FuseSoC), ``.rdl``
    (SystemRDL), ``.h``, ``.xml`` (IP-XACT), and ``html/``; the drivers in ``drivers/``. Raises InputError as ``generate.package`` does, and
    MissingToolError."""
    prefix = generate.own_prefix(hw) if prefix is None else prefix
    verilog, rdl = generate.package(hw, form, prefix), systemrdl(hw, prefix)
    texts = verilog | {f"{prefix}.core": core(verilog, prefix), f"{prefix}.rdl": rdl}
    texts |= {f"drivers/{name}": text for name, text in drivers().items()}
    return {name: text.encode() for name, text in texts.items()} | derived(rdl, prefix)

"""All that goes into somebody else's design, as files."""

from ternbin.contract.hw import HwConfig
from ternbin.integration.fusesoc import core
from ternbin.integration.registers import derived, systemrdl
from ternbin.rtl.verilog import generate


def package(hw: HwConfig, form: str = "asic", prefix: str | None = None) -> dict[str, bytes]:
    """File name -> contents: the Verilog with what stands beside it, and under the name of the top ``.core`` (FuseSoC), ``.rdl``
    (SystemRDL), ``.h``, ``.xml`` (IP-XACT), and ``html/``. Raises InputError as ``generate.package`` does, and
    MissingToolError."""
    prefix = generate.own_prefix(hw) if prefix is None else prefix
    verilog, rdl = generate.package(hw, form, prefix), systemrdl(hw, prefix)
    texts = verilog | {f"{prefix}.core": core(verilog, prefix), f"{prefix}.rdl": rdl}
    return {name: text.encode() for name, text in texts.items()} | derived(rdl, prefix)

"""All that goes into somebody else's design, as files."""

import json

from ternbin.contract.hw import HwConfig
from ternbin.integration import litex
from ternbin.integration.fusesoc import core
from ternbin.integration.ipxact import with_ports
from ternbin.integration.registers import derived, systemrdl
from ternbin.integration.software import drivers
from ternbin.rtl.verilog import generate


def package(hw: HwConfig, form: str = "asic", prefix: str | None = None) -> dict[str, bytes]:
    """File name -> contents: the Verilog with what stands beside it, and under the name of the top ``.core`` (FuseSoC), ``.rdl``
    (SystemRDL), ``.h``, ``.xml`` (IP-XACT), ``_litex.py``, and ``html/``; the drivers in ``drivers/``. Raises InputError as
    ``generate.package`` does, and MissingToolError."""
    prefix = generate.own_prefix(hw) if prefix is None else prefix
    verilog, rdl = generate.package(hw, form, prefix), systemrdl(hw, prefix)
    texts = verilog | {f"{prefix}.core": core(verilog, prefix), f"{prefix}.rdl": rdl}
    contents = json.loads(verilog["manifest.json"])
    texts |= {f"{prefix}_litex.py": litex.module(contents, verilog, prefix)}
    texts |= {f"drivers/{name}": text for name, text in drivers().items()}
    files = {name: text.encode() for name, text in texts.items()} | derived(rdl, prefix)
    return files | {f"{prefix}.xml": with_ports(files[f"{prefix}.xml"], contents)}

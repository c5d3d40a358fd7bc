"""The ports and buses of an accelerator in its IP-XACT component (IEEE 1685-2014), beside the memory map that PeakRDL wrote."""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from typing import Any

_NAMESPACE = "http://www.accellera.org/XMLSchema/IPXACT/1685-2014"
_SCHEMA = "http://www.w3.org/2001/XMLSchema-instance"
# Prefix of the ports -> bus of the standard's owner: their library has the definitions.
_BUSES = {"m_axi": "AXI4", "s_axil": "AXI4-Lite"}
_LIBRARY = {"vendor": "amba.com", "library": "AMBA4", "version": "r0p0_0"}
_DIRECTIONS = {"input": "in", "output": "out"}
_SPACE = "memory"


def with_ports(xml: bytes, manifest: Mapping[str, Any]) -> bytes:
    """The component ``xml`` with the ports of ``manifest``, the AXI4 master, and the AXI4-Lite slave at the one memory map there is."""
    ElementTree.register_namespace("ipxact", _NAMESPACE)
    ElementTree.register_namespace("xsi", _SCHEMA)
    builder = ElementTree.TreeBuilder(insert_comments=True)
    root = ElementTree.fromstring(xml, ElementTree.XMLParser(target=builder))
    maps = root.find(_tag("memoryMaps"))
    name = root.findtext(f"{_tag('memoryMaps')}/{_tag('memoryMap')}/{_tag('name')}")
    if maps is None or name is None:
        raise ValueError("component must have a memory map")
    position, ports = list(root).index(maps), manifest["ports"]
    space = _node("addressSpaces", [_node("addressSpace", [
        _node("name", text=_SPACE),
        _node("range", text=f"'h{1 << manifest['hardware']['axi_addr_bits']:x}"),
        _node("width", text=str(manifest["hardware"]["axi_data_bits"])),
    ])])  # fmt: skip
    modes = {
        "m_axi": _node("master", [_node("addressSpaceRef", addressSpaceRef=_SPACE)]),
        "s_axil": _node("slave", [_node("memoryMapRef", memoryMapRef=name)]),
    }
    buses = [_bus(prefix, ports, manifest["clock"], mode) for prefix, mode in modes.items()]
    root.insert(position, space)
    root.insert(position, _node("busInterfaces", buses))
    root.insert(position + 3, _node("model", [_node("ports", [_port(port) for port in ports])]))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="UTF-8", xml_declaration=True) + b"\n"


def _tag(name: str) -> str:
    return f"{{{_NAMESPACE}}}{name}"


def _node(
    tag: str, parts: Sequence[ElementTree.Element] = (), /, *, text: str | None = None, **attributes: str
) -> ElementTree.Element:
    node = ElementTree.Element(_tag(tag), attributes)
    node.text = text
    node.extend(parts)
    return node


def _bus(prefix: str, ports: Sequence[Mapping[str, Any]], clock: str, mode: ElementTree.Element) -> ElementTree.Element:
    signals = {
        found[1].upper(): port["name"] for port in ports if (found := re.fullmatch(rf"{prefix}_(\w+)", port["name"]))
    }
    pairs = [
        _node("portMap", [
            _node("logicalPort", [_node("name", text=logical)]),
            _node("physicalPort", [_node("name", text=physical)]),
        ])
        for logical, physical in {"ACLK": clock, **signals}.items()
    ]  # fmt: skip
    abstraction = _node("abstractionRef", name=f"{_BUSES[prefix]}_rtl", **_LIBRARY)
    return _node("busInterface", [
        _node("name", text=prefix),
        _node("busType", name=_BUSES[prefix], **_LIBRARY),
        _node("abstractionTypes", [_node("abstractionType", [abstraction, _node("portMaps", pairs)])]),
        mode,
    ])  # fmt: skip


def _port(port: Mapping[str, Any]) -> ElementTree.Element:
    wire = [_node("direction", text=_DIRECTIONS[port["direction"]])]
    if port["bits"] > 1:
        ends = [_node("left", text=str(port["bits"] - 1)), _node("right", text="0")]
        wire.append(_node("vectors", [_node("vector", ends)]))
    return _node("port", [_node("name", text=port["name"]), _node("wire", wire)])

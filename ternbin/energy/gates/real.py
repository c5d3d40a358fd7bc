"""Operands of a trained model: what its layers really multiply for a text. They are kept, so that what is measured with them is the
same when the bundled model is trained on.

    python -m ternbin.energy.gates.real models/bundled    # takes those of this model from now on
"""

import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ternbin.energy.gates.blocks import Block
from ternbin.energy.gates.stimuli import forms, normalised, rows_of

OPERANDS = Path(__file__).parents[1] / "operands.npz"
Matrix = Sequence[Sequence[float]]
_CODES = ("ternary", "binary")  # forms of operands that the model's codes are


@dataclass(frozen=True)
class RealTensors:
    """``weights``, ``activations``: ternary code matrices of one linear layer; ``table``, ``hidden``: real-valued matrices (position
    embedding; hidden states after a LayerNorm), unit variance."""

    layer: str
    weights: list[list[int]]
    activations: list[list[int]]
    table: list[list[float]]
    hidden: list[list[float]]

    def rows(self, block: Block, rng: random.Random) -> tuple[Iterator[int], Iterator[int]]:
        """Weights as row operands, activations as column operands of ``block``.

        Binary blocks get the signs of the ternary codes; the wide kinds the model's real-valued tensors, integers on a grid
        by the largest magnitude.
        """
        row, col = forms(block.kind)
        weights: Matrix = self.weights if row in _CODES else self.table
        activations: Matrix = self.activations if col in _CODES else self.hidden
        if block.kind == "binary":
            weights, activations = ([[1 if c >= 0 else -1 for c in row] for row in m] for m in (weights, activations))
        return rows_of(block, row, _grid(row, weights), rng), rows_of(block, col, _grid(col, activations), rng)


def _grid(form: str, matrix: Matrix) -> Matrix:
    """Integers by the largest magnitude, of 4-bit operands by that of each row; others as they are."""
    if form == "int4":
        return [[round(v * 7 / max(map(abs, row))) for v in row] for row in matrix]
    if form not in ("int8", "planes"):
        return matrix
    top = max(abs(v) for row in matrix for v in row)
    return [[round(v * 127 / top) for v in row] for row in matrix]


def _unit(matrix: Matrix) -> list[list[float]]:
    width = len(matrix[0])
    flat = normalised([v for row in matrix for v in row])
    return [flat[i : i + width] for i in range(0, len(flat), width)]


def kept_tensors() -> RealTensors:
    """Those that the stored characterisation was measured with."""
    with np.load(OPERANDS, allow_pickle=False) as kept:
        return RealTensors(**{name: kept[name].tolist() for name in kept.files})


def keep(tensors: RealTensors) -> None:
    """As what is measured with from now on."""
    weights, activations = (np.array(codes, np.int8) for codes in (tensors.weights, tensors.activations))
    np.savez_compressed(
        OPERANDS,
        layer=tensors.layer,
        weights=weights,
        activations=activations,
        table=tensors.table,
        hidden=tensors.hidden,
    )


def tensors_of(folder: Path) -> RealTensors:
    """Layer fc1 of the first encoder layer of the model in ``folder``, on the first bundled text."""
    import torch

    from ternbin.graph.ir import is_op
    from ternbin.graph.ops.codes import LinearCodes, LinearCodes8
    from ternbin.graph.ops.ends import Embed
    from ternbin.graph.ops.interpreter import Interpreter
    from ternbin.graph.ops.stream import Layernorm
    from ternbin.models import prepare
    from ternbin.passes import fold

    lowered = fold(prepare.lower(prepare.load_model(folder, None)))
    ids = prepare.encode_text(
        prepare.load_tokenizer(folder), prepare.demo_texts()[0]["source"], lowered.meta["max_positions"]
    )
    interpreter = Interpreter(lowered.encoder, lowered.weights)
    values = interpreter({"ids": torch.tensor(ids)})
    linear = next(node for node in values if is_op(node, LinearCodes, LinearCodes8) and "fc1" in node.name)
    embed = next(node.op for node in values if isinstance(node.op, Embed))
    norm = next(node for node in values if isinstance(node.op, Layernorm))
    return RealTensors(
        linear.name,
        lowered.weights[linear.op.weight].int().numpy().tolist(),
        values[linear.src[0]].int().numpy().tolist(),
        _unit(lowered.weights[embed.pos].double().numpy().tolist()),
        _unit(values[norm].double().numpy().tolist()),
    )


if __name__ == "__main__":
    keep(tensors_of(Path(sys.argv[1])))

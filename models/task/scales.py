"""Rows of weights scaled for the inputs they see, before training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ternbin.models.model import QuantModel
from ternbin.models.modules import QuantLinear
from ternbin.models.packed import stored_weights


@torch.no_grad()
def weigh_scales(model: QuantModel, batches: Iterable[dict[str, Any]]) -> None:
    """Scale every row w of every linear layer of its own so that its quantized form is nearest to w where the layer looks.

    The scale of codes q that minimises sum_j m_j (w_j - a q_j)^2, m_j the mean square of input j over `batches`, is
    a = sum m w q / sum m q^2.  A row's scale follows its latent weights, so the row is multiplied by a over that scale;
    its codes stay.  The shared table stays as it is.
    """
    own = {name: module for name, module in stored_weights(model).items() if name not in model.tied}
    layers = {name: module for name, module in own.items() if isinstance(module, QuantLinear)}
    squares: dict[str, Tensor] = {}
    handles = [layer.register_forward_pre_hook(_summing(squares, name)) for name, layer in layers.items()]
    try:
        model.eval()
        for batch in batches:
            model(**batch)
    finally:
        for handle in handles:
            handle.remove()
    for name, layer in layers.items():
        if name in squares and layer.latent is not None:
            layer.latent.mul_(factors(layer, squares[name]))


def factors(layer: QuantLinear, squares: Tensor) -> Tensor:
    """What each row [rows, 1] is multiplied by; `squares` [in]: the inputs' mean squares, in any unit."""
    codes, scale = layer.weight_parts()
    over = (squares * codes.square()).sum(-1, keepdim=True) * scale
    best = (squares * layer.value * codes).sum(-1, keepdim=True)
    return torch.where((over > 0) & (best > 0), best / over, 1.0)


def _summing(squares: dict[str, Tensor], name: str) -> Any:
    def see(module: QuantLinear, args: tuple[Tensor, ...]) -> None:
        squares[name] = squares.get(name, 0) + args[0].detach().float().square().flatten(0, -2).sum(0)

    return see

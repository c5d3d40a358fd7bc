"""Energy of the same logic at another node and supply: two rules, neither of which knows a foundry's process."""

import math
from collections.abc import Callable

# Stillmaker and Baas, Scaling equations for the accurate prediction of CMOS device performance from 180 nm to 7 nm, Integration 58, 2017:
# energy of an inverter chain (HSpice, models of PTM, high performance where there are two) as a polynomial of the supply, V^2 first.
_STILLMAKER = {
    7: (0.1776, -0.09097, 0.02447),
    10: (0.2068, -0.09311, 0.02375),
    14: (0.2363, -0.09675, 0.02239),
    16: (0.2958, -0.1241, 0.03024),
    20: (0.373, -0.1582, 0.04104),
    32: (0.8367, -0.4341, 0.1701),
    45: (1.018, -0.3107, 0.1539),
    65: (3.755, -4.398, 1.975),
}


def classical(node_nm: float, volt: float) -> float:
    """Capacitance with the node, energy with the square of the supply."""
    return node_nm * volt**2


def fitted(node_nm: float, volt: float) -> float | None:
    """Stillmaker and Baas; between two of their nodes on a line of logarithms. None for a node outside of theirs, and where a polynomial
    falls with the supply, which is below its data."""
    if not min(_STILLMAKER) <= node_nm <= max(_STILLMAKER):
        return None
    low = max(node for node in _STILLMAKER if node <= node_nm)
    high = min(node for node in _STILLMAKER if node >= node_nm)
    if any(volt <= -b / (2 * a) * 1.1 for a, b, _ in (_STILLMAKER[low], _STILLMAKER[high])):
        return None
    one, two = (a * volt**2 + b * volt + c for a, b, c in (_STILLMAKER[low], _STILLMAKER[high]))
    share = math.log(node_nm / low) / math.log(high / low) if high > low else 0.0
    return one ** (1 - share) * two**share


Rule = Callable[[float, float], float | None]
RULES: dict[str, Rule] = {"predicted": classical, "fitted": fitted}  # prefix of a prediction's fields -> rule

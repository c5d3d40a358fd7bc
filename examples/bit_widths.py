"""The same text with weights and activations of other widths, side by side.

    python examples/bit_widths.py

The bundled 2-2 model was trained with 2-bit weights and activations. In other widths it is quantized anew, without training: cycles and
energy are right, the texts mean nothing. Takes about a minute.
"""

import ternbin
from ternbin.models.prepare import bundled_dir

TEXT = "A small library to parse and write configuration files."


def main(
    widths: tuple[str, ...] = ("2-2", "2-8", "1-1"), hw: str = "small", out: str | None = "reports/example-widths"
) -> dict[str, ternbin.Run]:
    """The run of each width (weights-activations); their reports and a comparison stand in ``out``."""
    runs = {bits: ternbin.summarise(TEXT, model=bundled_dir(), bits=bits, hw=hw, max_new_tokens=4) for bits in widths}
    for bits, run in runs.items():
        energy = ", ".join(f"{name} {uj:.1f} uJ" for name, uj in run.energy_by_phase_uj.items())
        print(f"{bits}: {run.cycles:>9,} cycles, {energy}, bit-exact {run.bit_exact}")
    if out:
        print(f"comparison: {ternbin.write_reports(list(runs.values()), out)}")
    return runs


if __name__ == "__main__":
    main()

"""Summarise a text on the simulated accelerator, and keep the report.

    python examples/summarise.py ["A text of your own."]

Takes half a minute; a minute more the first time, when the simulator is compiled.
"""

import sys

import ternbin

TEXT = "A small library to parse and write configuration files. It keeps comments and the order of entries."


def main(text: str = TEXT, max_new_tokens: int = 12, out: str = "reports/example-run") -> ternbin.Run:
    """The run; its report stands in ``out``."""
    run = ternbin.summarise(text, hw="small", max_new_tokens=max_new_tokens)
    low, high = run.energy_range_uj
    print(f"summary    {run.summary}")
    print(f"bit-exact  {run.bit_exact}: {run.result['values_checked']:,} values compared")
    print(f"cycles     {run.cycles:,}, of which the encoder {run.cycles_by_phase['prefill']:,}")
    print(f"energy     {run.energy_uj:.0f} uJ, from {low:.0f} to {high:.0f}")
    print(f"report     {run.save(out)}")
    return run


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else TEXT)

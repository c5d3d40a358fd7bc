"""Accelerators of your own: one from a TOML file, the same with one field changed at a time, side by side.

    python examples/own_hardware.py

Nothing is simulated: each is mapped and timed, which takes half a minute. What cannot be built or cannot hold the model is refused.
"""

from dataclasses import replace
from pathlib import Path

import ternbin
from ternbin.counting.cycles import predict
from ternbin.counting.external import MemoryModel
from ternbin.errors import InputError

FILE = Path(__file__).with_name("accelerator.toml")
CHANGES: tuple[dict, ...] = ({}, {"weight_pack": "2bit"}, {"cols": 4}, {"axi_data_bits": 64}, {"wbuf_words": 16})


def main(source_len: int = 48, changes: tuple[dict, ...] = CHANGES) -> dict[str, tuple[int, int] | None]:
    """Cycles of the encoder and of the first decoder call for each change; None where the model does not fit."""
    own, rows = ternbin.load_hw(str(FILE)), {}
    for change in changes:
        name = ", ".join(f"{field} = {value}" for field, value in change.items()) or own.name
        try:
            program = ternbin.lower(source_len, hw=replace(own, **change), max_new_tokens=1).program
        except InputError as error:
            rows[name] = None
            print(f"{name:24} refused: {error}")
            continue
        encoder, decoder = (call.cycles for call in predict(program, MemoryModel()).calls)
        rows[name] = encoder, decoder
        print(f"{name:24} encoder {encoder:>9,} cycles, decoder call {decoder:>9,}")
    return rows


if __name__ == "__main__":
    main()

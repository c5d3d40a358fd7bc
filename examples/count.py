"""Count without simulating: cycles and events of the bundled model, predicted from its program.

    python examples/count.py

Takes half a minute. The events are exact, the cycles within half a percent (docs/cycle-model.md).
"""

import ternbin
from ternbin.counting.cycles import predict
from ternbin.counting.external import MemoryModel

LENGTHS = (16, 64, 128)


def main(lengths: tuple[int, ...] = LENGTHS, hw: str = "small") -> list[tuple[int, int, int]]:
    """(source tokens, cycles of the encoder, cycles of the first decoder call) for each length."""
    rows = []
    print("source tokens    encoder cycles    cycles of a decoder call")
    for length in lengths:
        program = ternbin.lower(length, hw=hw, max_new_tokens=1).program
        encoder, decoder = (call.cycles for call in predict(program, MemoryModel()).calls)
        rows.append((length, encoder, decoder))
        print(f"{length:13}{encoder:18,}{decoder:28,}")
    return rows


if __name__ == "__main__":
    main()

"""Scores of the bundled models of every bit setting, in several residual widths, as the entries that a space of ternbin explore takes.

    python benchmarks/setting_scores.py > scores.toml

Nats a token and ROUGE-L of the integer model, greedily decoded, on the 36 texts that come with it (all of the test split). Each setting
was trained with 16 bits; other widths are its weights calibrated anew on 16 of these texts.
"""

import argparse

from ternbin.decoding.greedy import Batched
from ternbin.explore.models import BUNDLED, lowered_model
from ternbin.models import prepare
from ternbin.models.task.scores import METRICS

BITS, WIDTHS = ("2-2", "2-8", "1-1", "1-8"), (8, 10, 12, 14, 16, 20)
MAX_TARGET = 24


def scores(bits: str, width: int) -> dict[str, float]:
    """Of one setting."""
    tokenizer, texts = prepare.load_tokenizer(prepare.bundled_dir()), prepare.demo_texts()
    batched = Batched(lowered_model(BUNDLED, bits, width))
    sources = [prepare.token_ids(tokenizer, text["source"])[:64] for text in texts]
    targets = [prepare.token_ids(tokenizer, text["target"])[:MAX_TARGET] for text in texts]
    nats = batched.nll(sources, targets, lambda done: None)
    tokens = batched.generate(sources, MAX_TARGET, lambda done: None)
    written = [str(tokenizer.decode(own, skip_special_tokens=True)).strip() for own in tokens] if tokenizer else []
    rouge = METRICS["rouge"].score(written, [text["target"] for text in texts])["rougeL"]
    return {"nll": round(sum(nats) / sum(len(target) for target in targets), 4), "rougeL": rouge}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bits", nargs="*", default=BITS)
    parser.add_argument("--widths", nargs="*", type=int, default=WIDTHS)
    args = parser.parse_args()
    for bits in args.bits:
        for width in args.widths:
            found = scores(bits, width)
            lines = [f'bits = "{bits}"', f"res_bits = {width}", *(f"{name} = {value}" for name, value in found.items())]
            print("[[scores]]", *lines, "", sep="\n", flush=True)


if __name__ == "__main__":
    main()

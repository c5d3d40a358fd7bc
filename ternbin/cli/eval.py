"""Score and likelihood of a checkpoint on a data set's held-out texts: ROUGE, BLEU or exact matches, as its task says.

Beside them what the sources' own words score, what the integer model scores, and with --teacher the share of its score that is kept.
"""

import argparse
from pathlib import Path

from ternbin.cli import options
from ternbin.contract.hw import MAX_BEAMS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_model_folder(parser)
    parser.add_argument("--bits", choices=options.BITS, help="of a bundled model: which of its settings")
    options.add_data(parser, default=None, otherwise="that of a bundled model, else debian")
    parser.add_argument("--teacher", metavar="DIR", help="checkpoint whose score the model's is compared with")
    parser.add_argument("--limit", type=options.whole(1), metavar="N", help="only the first N texts")
    parser.add_argument(
        "--batch-size", type=options.whole(1, 4096), default=32, metavar="N", help="texts at a time (default: 32)"
    )
    parser.add_argument(
        "--beams",
        type=options.whole(1, MAX_BEAMS),
        action="append",
        metavar="N",
        help="beams of a search, 1: greedy; repeated: more searches (default: 1 and 4)",
    )
    parser.add_argument(
        "--res-bits",
        type=options.whole(8, 20),
        metavar="N",
        help="of the integer model's residual stream (default: its own)",
    )
    parser.add_argument("--threads", type=options.whole(1, 1024), default=1)
    options.add_json(parser)


def call(args: argparse.Namespace) -> None:
    from ternbin.errors import InputError
    from ternbin.models.prepare import BUNDLED, model_dir
    from ternbin.models.task.evaluate import main_evaluate
    from ternbin.models.task.sets import set_of

    if args.bits and args.model not in (None, *BUNDLED):
        raise InputError("--bits must come with a bundled model: a checkpoint is scored as it is")
    folder = model_dir(args.model, args.bits)
    main_evaluate(
        folder,
        args.data or set_of(folder),
        args.json and Path(args.json),
        limit=args.limit,
        teacher_dir=args.teacher and Path(args.teacher),
        beams=args.beams or (1, 4),
        batch_size=args.batch_size,
        threads=args.threads,
        choice=options.choice(args),
        res_bits=args.res_bits,
        command=options.typed(),
    )

"""Score and likelihood of a checkpoint on a data set's held-out texts: ROUGE, BLEU or exact matches, as its task says.

Beside them what the sources' own words score, what the integer model scores, and with --teacher the share of its score that is kept.
"""

import argparse
from pathlib import Path

from ternbin.cli import options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_model_folder(parser)
    options.add_data(parser, default=None, otherwise="that of a bundled model, else debian")
    parser.add_argument("--teacher", metavar="DIR", help="checkpoint whose score the model's is compared with")
    parser.add_argument("--limit", type=options.whole(1), metavar="N", help="only the first N texts")
    options.add_json(parser)


def call(args: argparse.Namespace) -> None:
    from ternbin.models.prepare import model_dir
    from ternbin.models.task.evaluate import main_evaluate
    from ternbin.models.task.sets import open_dataset, set_of

    folder = model_dir(args.model)
    main_evaluate(
        folder,
        open_dataset(args.data or set_of(folder)),
        args.json and Path(args.json),
        limit=args.limit,
        teacher_dir=args.teacher and Path(args.teacher),
    )

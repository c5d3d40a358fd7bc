"""The models that are audited, each with the configuration and lengths it is audited on."""

import json
from dataclasses import replace
from functools import cache
from typing import Any

from transformers import BartConfig

from ternbin.contract.hw import NAMED
from ternbin.explore.place import Subject
from ternbin.explore.quality import SHAPE, Other, others, scores
from ternbin.models import prepare
from ternbin.models.bart.shape import BART_BASE, shape_model
from ternbin.models.task.paper import bart_base as paper_bart_base
from ternbin.models.task.paper import count, on_meta


def bundled() -> Subject:
    """The bundled model on its default text."""
    folder = prepare.bundled_dir()
    config = BartConfig.from_dict(
        json.loads((folder / "config.json").read_text(encoding="utf-8")) | {"model_type": "bart"}
    )
    ids = prepare.encode_text(prepare.load_tokenizer(folder), prepare.default_text(), config.max_position_embeddings)
    subject = Subject(
        "bundled model",
        cache(lambda bits: prepare.lowered_model(folder, bits)),
        NAMED["small"],
        len(ids),
        10,
        (16, len(ids), 64, 96),
        (0.5, 1, 2, 4),
        count(on_meta(config)),
        scores=scores(folder),
    )
    return replace(subject, others=tuple(of_shape(subject, config, one) for one in others(folder)))


def of_shape(subject: Subject, config: BartConfig, one: Other) -> Subject:
    """A model of another shape in the place of ``subject``, whose configuration is ``config``: what it needs follows from its shape."""
    own = BartConfig.from_dict(config.to_dict() | one.config)
    dims: dict[str, Any] = {option: getattr(own, name) for option, name in SHAPE.items()}
    model = cache(lambda bits: shape_model(bits, **dims))
    return replace(subject, name=one.name, model=model, parameters=count(on_meta(own)), scores=one.scores)


def bart_base() -> Subject:
    """A model of BART-base's shapes: no numbers are needed. FP32 weights of a row tile must fit half of WBUF."""
    dims: dict[str, Any] = BART_BASE
    hw = replace(NAMED["base"], name="base, twice the WBUF", wbuf_words=2 * NAMED["base"].wbuf_words)
    return Subject(
        "BART-base",
        cache(lambda bits: shape_model(bits, **dims)),
        hw,
        128,
        4,
        (32, 128, 512),
        (0.5, 1, 2),
        count(paper_bart_base()),
    )


SUBJECTS = {"bundled": bundled, "bart-base": bart_base}

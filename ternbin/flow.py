"""The main job, end to end, as stages: prepare, lower, plan, build, simulate, check, count, account, result.

Each stage is a function of the frozen dataclass that the one before it gives, and adds to it what it found. :func:`summarise` is all of
them; :func:`simulate` alone runs a program that is there already.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from ternbin import results
from ternbin.contract.hw import HwConfig
from ternbin.contract.program import Program, listing
from ternbin.counting.external import MemoryModel
from ternbin.counting.phases import Phase, simulated_phases
from ternbin.counting.runs import RunResult
from ternbin.decoding.beam import check_vocabulary, reference_tokens
from ternbin.decoding.rules import rules
from ternbin.decoding.search import Found, Policy, Search, beams_of
from ternbin.decoding.search import columns as columns_of
from ternbin.energy.account import Tariff, accounted
from ternbin.energy.account import check as check_tariff
from ternbin.energy.figures import DRAM
from ternbin.errors import CheckError, InputError
from ternbin.graph.dump import dump
from ternbin.graph.given import Given, most_new_tokens, rows
from ternbin.graph.given import count as tokens_in
from ternbin.graph.ir import Lowered, Residual
from ternbin.graph.picture import picture
from ternbin.graph.shape import generates, shape
from ternbin.mapping.mapper import KEYS_OUTSIDE, map_model
from ternbin.models import prepare as models
from ternbin.models.fidelity import Agreement
from ternbin.models.model import QuantModel
from ternbin.passes import fold
from ternbin.progress import Forecast, bar, say, stage, warn
from ternbin.sim.build import build
from ternbin.sim.check import Check, Comparison
from ternbin.sim.generated import generated
from ternbin.sim.resume import Checkpoint
from ternbin.sim.runner import run
from ternbin.sim.simulator import Waves
from ternbin.version import __version__

Fields = dict[str, Any]  # fields of result.json: docs/result-schema.md


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to run on what. Without texts or ids, a bundled text; without a model folder, the bundled model.

    ``beams`` above 1: beam search; None: as many as the model's generation config says. Several texts (or ids of several) are one batch.
    ``hw`` is made for the beams of all. ``pairs``: a second text for each, of a model with token types.
    ``audio``: WAV files in place of texts, of a model that listens; without one it gets a made-up sound.
    """

    hw: HwConfig
    model_dir: str | Path | None = None
    bits: str | None = None
    texts: Sequence[str] = ()
    ids: Sequence[Sequence[int]] = ()
    pairs: Sequence[str] = ()
    audio: Sequence[str | Path] = ()
    truncate: bool = False  # texts longer than the positions
    max_new_tokens: int = 20
    beams: int | None = None
    search: dict[str, Any] = field(default_factory=dict)  # generation settings in the place of the model's own
    memory: MemoryModel = MemoryModel()
    dram: str = "lpddr4"

    @property
    def count(self) -> int:
        """Of texts."""
        return len(self.ids or self.texts or self.audio) or 1


def summarise(
    job: Job, *, checkpoint: Path | None = None, restart: bool = False, keep: Callable[[Fields], None] = lambda _: None
) -> tuple[Fields, dict[str, str]]:
    """Runs the job. Returns the validated result and further report files (name -> text). ``checkpoint``: as in :func:`simulate`.
    ``keep`` is called with the result as soon as it is there: what fails afterwards costs no run.

    What is cheap to find out is found out first: settings, texts against the model's limits, then what does not fit the hardware, then
    figures that are not there, all before anything is built. Raises InputError for what cannot be run, CheckError where the core stops,
    MissingToolError.
    """
    check_job(job)
    with stage("loading and lowering the model"):
        lowering = lower(prepare(job))
    with stage("mapping"):
        planned = plan(lowering)
    check_tariff(tariff(planned))
    with stage("building the simulator (kept for the next run)"):
        built = build_simulator(planned)
    simulated = run_simulation(built, checkpoint=checkpoint, restart=restart)
    with stage("comparing the integer model with its source"):
        checked = compare_model(simulated)
    fields = result(account(count(checked)))
    keep(fields)  # first: whatever follows, the run is not lost
    results.validate(fields)
    return fields, artefacts(lowering.hw, planned.program, lowering.lowered)


# ---- prepare, lower -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A job with its model loaded; ``hw`` is made for the ``columns`` of all texts: their ``beams``, and more where rules decide."""

    job: Job
    beams: int
    columns: int
    hw: HwConfig
    folder: Path
    model: QuantModel = field(repr=False)
    tokenizer: "models.Tokenizer | None"
    sources: "tuple[Source, ...]"


def check_job(job: Job) -> None:
    """Raises InputError for settings that mean nothing, whatever the model."""
    if job.max_new_tokens < 1:
        raise InputError(f"--max-new-tokens must be at least 1, not {job.max_new_tokens}")
    if job.dram not in DRAM:
        raise InputError(f"--dram must be one of {', '.join(DRAM)}, not {job.dram!r}")
    beams = beams_of({}, job.beams, job.search)
    if beams != 1:
        Search.of({}, beams, job.search)
    job.hw.searching(beams, job.count)


def prepare(job: Job) -> Prepared:
    """Raises InputError for texts, sounds, ids and settings that the model cannot take; those that need no weights come first."""
    folder = models.model_dir(job.model_dir, job.bits)
    family, limits = models.family(folder), models.limits(folder)
    _check_kind(job, family)
    tokenizer = _tokenizer(folder, needed=not (job.ids or family.listens))
    sources = [] if family.listens else _sources(job, folder, tokenizer, limits)
    model = models.load_lowerable(folder, job.bits)
    if family.listens:
        sources = _heard(job, model)
    beams = columns = 1
    hw = job.hw
    if family.generates:
        own = models.generation(model)
        beams = beams_of(own, job.beams, job.search)
        if beams == 1 and {"length_penalty", "early_stopping"} & set(job.search):
            raise InputError("length_penalty and early_stopping must come with beams of 2 or more")
        columns = columns_of(beams, job.count, rules(own, job.search))
        hw = job.hw.searching(columns, job.count)
    return Prepared(
        job=job,
        beams=beams,
        columns=columns,
        hw=hw,
        folder=folder,
        model=model,
        tokenizer=tokenizer,
        sources=tuple(sources),
    )


def _check_kind(job: Job, family: models.Family) -> None:
    """Raises InputError for what a model of this family is not given."""
    if family.listens and (job.texts or job.ids):
        raise InputError("--audio must be given to a model that listens, not a text or ids")
    if job.audio and not family.listens:
        raise InputError("--audio must be given to a model that listens, not to one that reads text")
    if job.pairs and not (family.pairs and len(job.pairs) == len(job.texts)):
        raise InputError("--pair must come once with each --text or --file, to a model with token types")
    if not family.generates and (job.beams not in (None, 1) or job.search):
        raise InputError("beams and generation settings must be left out for a model that does not generate")


def _tokenizer(folder: Path, *, needed: bool) -> "models.Tokenizer | None":
    """Where ids are given it only says what was generated: a broken one costs a warning."""
    try:
        return models.reader(folder)
    except InputError as error:
        if needed:
            raise
        warn(f"{error}; the result shows ids alone")
        return None


@dataclass(frozen=True)
class Source:
    """What one text is made of: its ids, all that prefill is given of it; ``text``: None where ids were given. ``sound``: name of a file,
    in place of both."""

    ids: list[int]
    text: str | None
    given: Given = field(repr=False)
    sound: str | None = None

    def asdict(self) -> Fields:
        """Fields of result.json."""
        heard = {} if self.sound is None else {"audio": {"file": self.sound, "tokens": tokens_in(self.given)}}
        return {"text": self.text, "input_ids": self.ids, **heard}


@dataclass(frozen=True, kw_only=True)
class Lowering(Prepared):
    """The model as integer graph, the texts as ids, and how to decode."""

    lowered: Lowered = field(repr=False)
    policy: Policy | None  # None: the model does not generate
    search: Search | None


def lower(before: Prepared) -> Lowering:
    """Raises InputError for texts, ids and settings that the model cannot take."""
    job, lowered = before.job, fold(models.lower(before.model))
    meta = lowered.meta
    if not generates(lowered):
        return Lowering(**vars(before), lowered=lowered, policy=None, search=None)
    policy = Policy.of(meta, min(job.max_new_tokens, most_new_tokens(meta)), job.search)
    search = Search.of(meta, before.beams, job.search) if before.beams != 1 else None
    if before.hw.beams > 1:
        check_vocabulary(meta, before.hw.beams)
    return Lowering(**vars(before), lowered=lowered, policy=policy, search=search)


def _sources(job: Job, folder: Path, tokenizer: "models.Tokenizer | None", meta: dict[str, Any]) -> list[Source]:
    """Of every text of the job, or of a bundled one. Raises InputError, naming the text where there are several."""
    positions, vocab = meta["max_positions"], meta["vocab_size"]
    if job.ids:
        ids = _each(job.ids, lambda own: models.check_ids(own, vocab, positions))
        return [Source(own, None, own) for own in ids]
    if job.pairs:
        both = list(zip(job.texts, job.pairs, strict=True))
        paired = _each(both, lambda each: models.encode_pair(tokenizer, *each, positions))
        return [
            Source(given["ids"], f"{one} / {other}", given) for (one, other), given in zip(both, paired, strict=True)
        ]
    texts = job.texts or [models.default_text(folder)]
    ids = _each(texts, lambda text: models.encode_text(tokenizer, text, positions, vocab, truncate=job.truncate))
    return [Source(own, text, own) for text, own in zip(texts, ids, strict=True)]


def _heard(job: Job, model: QuantModel) -> list[Source]:
    """Of every sound of the job, or of a made-up one."""
    files = job.audio or [None]
    heard = _each(files, lambda path: models.listen(model, path))
    return [Source([], None, own, str(path or "made up")) for path, own in zip(files, heard, strict=True)]


One = TypeVar("One")
Made = TypeVar("Made")


def _each(given: Sequence[One], source: Callable[[One], Made]) -> list[Made]:
    found: list[Made] = []
    for number, each in enumerate(given, 1):
        try:
            found.append(source(each))
        except InputError as error:
            raise InputError(f"text {number}: {error}" if len(given) > 1 else str(error)) from None
    return found


# ---- plan, build, simulate ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Planned(Lowering):
    """The model as a program of the accelerator; what is given of the texts, one after the other."""

    program: Program = field(repr=False)
    given: Given = field(repr=False)


def plan(before: Lowering) -> Planned:
    """Raises InputError where the model does not fit the hardware."""
    names = [node.name for node in shape(before.lowered).prefill.reads]
    each = [rows(source.given, names) for source in before.sources]
    lengths = [len(own[names[0]]) for own in each]
    new = before.policy.max_new_tokens if before.policy else 0
    program = map_model(before.lowered, before.hw, lengths, new, before.columns, anywhere=True)
    if program.hw != before.hw:
        say(KEYS_OUTSIDE)
    given = {name: np.concatenate([own[name] for own in each]) for name in names}
    fields: Fields = vars(before) | {"hw": program.hw}
    return Planned(**fields, program=program, given=given)


@dataclass(frozen=True, kw_only=True)
class Built(Planned):
    """``library``: the compiled simulator."""

    library: Path


def build_simulator(before: Planned) -> Built:
    """Raises MissingToolError."""
    return Built(**vars(before), library=build(before.hw))


@dataclass(frozen=True, kw_only=True)
class Simulated(Built):
    """What the simulation gave, and that beside the integer reference."""

    run: RunResult
    verdict: Check


def run_simulation(before: Built, *, checkpoint: Path | None = None, restart: bool = False) -> Simulated:
    """As :func:`simulate`; every tensor is compared meanwhile."""
    with Comparison(before.program, before.lowered, before.given) as comparison:
        found = simulate(
            before.program,
            before.given,
            before.policy,
            before.job.memory,
            search=before.search,
            library=before.library,
            checkpoint=checkpoint,
            restart=restart,
            comparison=comparison,
        )
        return Simulated(**vars(before), run=found, verdict=comparison.verdict(found))


def simulate(
    program: Program,
    ids: Given,
    policy: Policy | None,
    memory: MemoryModel,
    *,
    search: Search | None = None,
    library: Path | None = None,
    waves: Waves | None = None,
    checkpoint: Path | None = None,
    restart: bool = False,
    comparison: Comparison | None = None,
) -> RunResult:
    """A run with a progress bar. ``checkpoint``: the file it goes on from (not with ``restart``) and keeps its state in; all else as in
    sim.runner. Raises CheckError where the core stops."""
    keeper = None
    if checkpoint is not None:
        keeper = Checkpoint(checkpoint, restart=restart, tell=say)
    calls = program.encoders + (policy.max_new_tokens - (policy.last is not None) if policy else 0)
    with bar(label="simulating", unit=" cycles", scale=True) as progress:
        return run(
            program,
            ids=ids,
            policy=policy,
            search=search,
            memory=memory,
            progress=None if progress.disable else _reporter(progress, program, memory, calls),
            waves=waves,
            library=library,
            checkpoint=keeper,
            comparison=comparison,
        )


def _reporter(progress: tqdm, program: Program, memory: MemoryModel, calls: int) -> Callable[[int, int, int], None]:
    """Moves the bar by what is done of at most ``calls`` calls, beside the cycles predicted for them."""
    from ternbin.counting.cycles import predict  # of a bar alone: most runs in scripts show none

    predicted = predict(program, memory, calls).calls
    forecast = Forecast([call.cycles for call in predicted], [call.count for call in program.calls[:calls]])

    def report(call: int, cycles: int, done: int) -> None:
        so_far, progress.total = forecast(call, cycles, done)
        progress.set_postfix_str(f"call {call + 1} of at most {calls}", refresh=False)
        progress.update(so_far - progress.n)

    return report


# ---- check, count, account ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Checked(Simulated):
    """The integer reference beside the fake-quant model; ``entries``: each text with what was generated."""

    entries: list[Fields]
    agreements: list[Agreement]


def compare_model(before: Simulated) -> Checked:
    """Raises CheckError where a text of a batch has other tokens than the reference gives it alone."""
    start = before.policy.prompt[0] if before.policy else None
    entries = _entries(before) if before.policy else _answered(before)
    if len(entries) > 1 and before.policy and before.verdict.bit_exact:
        _check_alone(before, entries, before.policy)
    fed = [
        (source.given, [] if start is None else [start, *entry["tokens"][:-1]])
        for source, entry in zip(before.sources, entries, strict=True)
    ]
    agreements = models.compare(before.model, before.lowered, fed)
    return Checked(**vars(before), entries=entries, agreements=agreements)


def _entries(before: Simulated) -> list[Fields]:
    """Each text with what was generated for it."""
    found = [text.tokens for text in before.run.found] or [before.run.tokens]
    return [
        {
            **source.asdict(),
            "tokens": tokens,
            "summary": _decoded(before.tokenizer, tokens),
        }
        for source, tokens in zip(before.sources, found, strict=True)
    ]


def _answered(before: Simulated) -> list[Fields]:
    """Each text with what the host makes of the residual stream that was read back for it."""
    found = streams(before.program, before.lowered, before.run.memory)
    answers = models.answers(before.model, before.folder, [source.given for source in before.sources], found)
    return [
        {**source.asdict(), "tokens": [], "summary": answer.get("label"), "answer": answer}
        for source, answer in zip(before.sources, answers, strict=True)
    ]


def streams(program: Program, lowered: Lowered, memory: bytes | bytearray) -> list[dict[str, np.ndarray]]:
    """The rows that prefill left for the host, real values [S, d] by output, of each text."""
    fracs = {node.name: node.expect(Residual).frac for node in shape(lowered).prefill.streams}
    stops = np.cumsum(program.lengths)[:-1]
    read = {p.name: np.split(program.read(memory, p) * 2.0 ** -fracs[p.name], stops) for p in program.outputs}
    return [{name: parts[text] for name, parts in read.items()} for text in range(program.encoders)]


def _decoded(tokenizer: "models.Tokenizer | None", tokens: list[int]) -> str | None:
    return None if tokenizer is None else str(tokenizer.decode(tokens, skip_special_tokens=True)).strip()


def _check_alone(before: Simulated, entries: Sequence[Fields], policy: Policy) -> None:
    """Raises CheckError unless each text of a batch got the tokens that the reference gives it alone."""
    for number, (source, entry) in enumerate(zip(before.sources, entries, strict=True), 1):
        wanted = reference_tokens(before.lowered, source.given, policy.max_new_tokens, before.search, before.job.search)
        if entry["tokens"] != wanted:
            raise CheckError(f"text {number}: the tokens must be {wanted}, not {entry['tokens']}")


@dataclass(frozen=True, kw_only=True)
class Counted(Checked):
    """What each phase of the run did."""

    phases: list[Phase] = field(repr=False)


def count(before: Checked) -> Counted:
    """Raises CheckError where counters do not fit the program."""
    return Counted(**vars(before), phases=simulated_phases(before.program, before.lowered, before.run))


@dataclass(frozen=True, kw_only=True)
class Accounted(Counted):
    """The fields of the result that follow from the phases: cycles, counters, energy, claim."""

    numbers: Fields = field(repr=False)


def tariff(before: Planned) -> Tariff:
    meta = before.lowered.meta
    return Tariff(
        hw=before.program.hw,
        weight_bits=meta["weight_bits"],
        act_bits=meta["act_bits"],
        dram=before.job.dram,
        head_bits=meta["head_weight_bits"],
    )


def account(before: Counted) -> Accounted:
    return Accounted(**vars(before), numbers=accounted(tariff(before), before.phases, before.run))


# ---- result ---------------------------------------------------------------------------------------------------------


def result(before: Accounted) -> Fields:
    """The fields of result.json."""
    entries = before.entries
    fields = {
        "schema": results.SCHEMA,
        "ternbin": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "name": before.folder.resolve().name,
        "bits": before.lowered.meta["bits"],
        "model": describe_model(before.folder, before.lowered),
        "hardware": before.hw.asdict() | {"peak_macs": before.hw.peak_macs},
        "memory": asdict(before.job.memory) | {"dram": before.job.dram},
        **(entries[0] if len(entries) == 1 else _together(entries)),
        **before.verdict.asdict(),
        **before.numbers,
        "fidelity": [agreement.fields() for agreement in before.agreements],
        "evaluation": evaluation(before.folder),
        **_searched(before),
    }
    return fields


def _searched(before: Accounted) -> Fields:
    """The fields that only a beam search or a batch has."""
    fields: Fields = {}
    more = [found_fields(found, before.search) for found in before.run.found] or [{}] * len(before.entries)
    batch = len(before.entries) > 1
    if before.search is not None:
        fields["search"] = asdict(before.search) | ({} if batch else more[0])
    elif before.policy and before.policy.rules.broken_by:
        fields["rules"] = asdict(before.policy.rules)
    if batch:
        fields["texts"] = [entry | own for entry, own in zip(before.entries, more, strict=True)]
    return fields


def _together(entries: Sequence[Fields]) -> Fields:
    """The fields of one text for a batch: ids and tokens one text after the other, so that they count those of all."""
    joined = {name: [token for entry in entries for token in entry[name]] for name in ("input_ids", "tokens")}
    return {"text": None, "summary": None} | joined


def found_fields(found: Found, search: Search | None) -> Fields:
    """What a result says of a search, or of a text of a batch."""
    fields: Fields = {"steps": len(found.trace)}
    return fields if search is None else {"score": found.score, **fields, "short": found.short}


def describe_model(folder: Path, lowered: Lowered) -> Fields:
    """The ``model`` field of a result."""
    meta = lowered.meta
    weights = {name: t.numel() for name, t in lowered.weights.items() if t.dim() == 2 and t.dtype.itemsize == 1}
    return {"folder": folder.name, "quantized_weights": sum(weights.values())} | {
        key: value for key, value in meta.items() if isinstance(value, (int, str, bool))
    }


def evaluation(folder: Path) -> Fields | None:
    """Scores that a checkpoint folder carries (``eval.json``: its task's scores and likelihood on held-out texts), or None; faulty ones
    cost a warning."""
    path = folder / "eval.json"
    if not path.exists():
        return None
    try:
        return results.load_scores(path)
    except InputError as error:
        warn(f"{error}; the result has no scores")
        return None


def artefacts(hw: HwConfig, program: Program, lowered: Lowered) -> dict[str, str]:
    """Files beside the result: Verilog, manifest, program listing, graph as text and picture. One that cannot be made costs a warning."""
    files: dict[str, str] = {}
    for make in (
        lambda: {f"rtl/{name}": text for name, text in (generated(hw).verilog | generated(hw).beside).items()},
        lambda: {"program.txt": listing(program)},
        lambda: {"graph.txt": "\n".join(dump(graph) for graph in lowered.stacks)},
        lambda: {"graph.svg": picture(lowered)},
    ):
        try:
            files |= make()
        except Exception as error:  # whatever it is: the run is done
            warn(f"a file of the report is left out: {type(error).__name__}: {' '.join(str(error).split())}")
    return files

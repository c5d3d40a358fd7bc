"""The main job, end to end: model, graph, program, simulation, check, result."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from ternbin import __version__, results
from ternbin.contract.hw import HwConfig
from ternbin.contract.program import Program, listing
from ternbin.counting.cycles import predict
from ternbin.counting.external import MemoryModel
from ternbin.counting.runs import RunResult
from ternbin.decoding.beam import check_vocabulary, reference_tokens
from ternbin.decoding.search import Found, Policy, Search
from ternbin.energy.account import summarize
from ternbin.errors import CheckError, InputError
from ternbin.graph.dump import dump
from ternbin.graph.ir import Lowered
from ternbin.graph.picture import picture
from ternbin.mapping.mapper import map_model
from ternbin.models import prepare
from ternbin.models.prepare import compare
from ternbin.passes import fold
from ternbin.progress import Forecast, bar, stage
from ternbin.rtl.verilog.generate import manifest
from ternbin.sim.build import build, verilog
from ternbin.sim.check import check
from ternbin.sim.resume import Checkpoint
from ternbin.sim.runner import run


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to run on what. Without texts or ids, a bundled text; without a model folder, the bundled model.

    ``beams`` above 1: beam search. Several texts (or ids of several) are one batch. ``hw`` is made for the beams of all.
    """

    hw: HwConfig
    model_dir: str | Path | None = None
    bits: str | None = None
    texts: Sequence[str] = ()
    ids: Sequence[Sequence[int]] = ()
    max_new_tokens: int = 20
    beams: int = 1
    search: dict = field(default_factory=dict)  # settings of beam.Search that are not the model's own
    memory: MemoryModel = MemoryModel()
    dram: str = "lpddr4"


def _sources(job: Job, tokenizer, meta: dict) -> list[tuple[list[int], str | None]]:
    """Ids and text (None where ids were given) of every text."""
    result = []
    given = job.ids or job.texts or [prepare.default_text()]
    for number, each in enumerate(given, 1):
        try:
            if job.ids:
                result.append((prepare.check_ids(each, meta["vocab_size"], meta["max_positions"]), None))
            else:
                result.append((prepare.encode_text(tokenizer, each, meta["max_positions"]), each))
        except InputError as error:
            raise InputError(f"text {number}: {error}" if len(given) > 1 else str(error)) from None
    return result


def simulate(
    program: Program,
    ids: list[int],
    policy: Policy,
    memory: MemoryModel,
    *,
    checkpoint: Path | None = None,
    restart: bool = False,
    **options,
) -> RunResult:
    """A run with a progress bar. ``checkpoint``: the file it goes on from (not with ``restart``) and keeps its state in."""
    keeper = None
    if checkpoint is not None:
        keeper = Checkpoint(checkpoint, restart=restart, tell=lambda line: print(line, file=sys.stderr))
    calls = program.encoders + policy.max_new_tokens - (policy.last is not None)
    with bar(label="simulating", unit=" cycles", scale=True) as progress:
        if progress.disable:
            return run(program, ids=ids, policy=policy, memory=memory, checkpoint=keeper, **options)
        counts = [call.count for call in program.calls[:calls]]
        forecast = Forecast([call.cycles for call in predict(program, memory, calls).calls], counts)

        def report(call: int, cycles: int, done: int) -> None:
            so_far, progress.total = forecast(call, cycles, done)
            progress.set_postfix_str(f"call {call + 1} of at most {calls}", refresh=False)
            progress.update(so_far - progress.n)

        return run(program, ids=ids, policy=policy, memory=memory, progress=report, checkpoint=keeper, **options)


def describe_model(folder: Path, lowered: Lowered) -> dict:
    """The ``model`` field of a result."""
    meta = lowered.meta
    weights = {name: t.numel() for name, t in lowered.weights.items() if t.dim() == 2 and t.dtype.itemsize == 1}
    return {"folder": folder.name, "quantized_weights": sum(weights.values())} | {
        key: value for key, value in meta.items() if isinstance(value, (int, str, bool))
    }


def evaluation(folder: Path) -> dict | None:
    """Scores that a checkpoint folder carries (``eval.json``: ROUGE and likelihood on held-out texts), or None."""
    path = folder / "eval.json"
    return json.loads(path.read_text()) if path.exists() else None


def summarise(job: Job, *, checkpoint: Path | None = None, restart: bool = False) -> tuple[dict, dict[str, str]]:
    """Runs the job. Returns the validated result and further report files (name -> text). ``checkpoint``: as in :func:`simulate`.

    Raises InputError for what cannot be run, CheckError where the core stops, MissingToolError.
    """
    texts = len(job.ids or job.texts) or 1
    hw = job.hw.searching(job.beams, texts)
    folder = Path(job.model_dir) if job.model_dir else prepare.bundled_dir()
    with stage("loading and lowering the model"):
        model = prepare.load_model(folder, job.bits).pack()  # a quarter of the memory
        lowered = fold(prepare.lower(model))
        tokenizer = prepare.load_tokenizer(folder)
    sources = _sources(job, tokenizer, lowered.meta)
    ids = [token for own, _ in sources for token in own]
    if job.max_new_tokens < 1:
        raise InputError(f"--max-new-tokens must be at least 1, not {job.max_new_tokens}")
    policy = Policy.of(lowered.meta, min(job.max_new_tokens, lowered.meta["max_positions"]))
    search = Search.of(lowered.meta, job.beams, **job.search) if job.beams != 1 else None
    if hw.beams > 1:
        check_vocabulary(lowered.meta["vocab_size"], hw.beams)
    with stage("mapping"):
        program = map_model(lowered, hw, [len(own) for own, _ in sources], policy.max_new_tokens, job.beams)
    with stage("building the simulator (kept for the next run)"):
        library = build(hw)
    run_result = simulate(
        program, ids, policy, job.memory, search=search, library=library, checkpoint=checkpoint, restart=restart
    )
    with stage("comparing with the integer reference"):
        verdict = check(program, lowered, ids, policy.prompt[0], run_result)
        entries = _entries(sources, run_result, tokenizer)
        if texts > 1 and verdict.bit_exact:
            _check_alone(lowered, entries, policy, search)
        agreements = compare(
            model, lowered, [(own["input_ids"], [policy.prompt[0], *own["tokens"][:-1]]) for own in entries]
        )
    result = {
        "schema": results.SCHEMA,
        "ternbin": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "name": folder.resolve().name,
        "bits": lowered.meta["bits"],
        "model": describe_model(folder, lowered),
        "hardware": hw.asdict() | {"peak_macs": hw.peak_macs},
        "memory": {
            "latency": job.memory.latency,
            "bandwidth": job.memory.bandwidth,
            "stall_seed": job.memory.stall_seed,
            "dram": job.dram,
        },
        **(entries[0] if texts == 1 else _together(entries)),
        **verdict.asdict(),
        **summarize(program, lowered, run_result, dram=job.dram),
        "fidelity": [
            {
                "name": a.name,
                "op": a.op,
                "values": a.total,
                "agree": a.rate,
                "largest": a.largest,
                "farthest": a.farthest,
            }
            for a in agreements
        ],
        "evaluation": evaluation(folder),
    }
    more = [found_fields(found, search) for found in run_result.found]
    if search is not None:
        result["search"] = asdict(search) | (more[0] if texts == 1 else {})
    if texts > 1:
        result["texts"] = [entry | own for entry, own in zip(entries, more, strict=True)]
    return results.validate(result), artefacts(hw, program, lowered)


def _entries(sources: Sequence[tuple[list[int], str | None]], run_result: RunResult, tokenizer) -> list[dict]:
    """Each text with what was generated for it."""
    found = [text.tokens for text in run_result.found] or [run_result.tokens]
    return [
        {
            "text": text,
            "input_ids": ids,
            "tokens": tokens,
            "summary": None if tokenizer is None else tokenizer.decode(tokens, skip_special_tokens=True).strip(),
        }
        for (ids, text), tokens in zip(sources, found, strict=True)
    ]


def found_fields(found: Found, search: Search | None) -> dict:
    """What a result says of a search, or of a text of a batch."""
    fields = {"steps": len(found.trace)}
    return fields if search is None else {"score": found.score, **fields, "short": found.short}


def _together(entries: list[dict]) -> dict:
    """The fields of one text for a batch: ids and tokens one text after the other, so that they count those of all."""
    joined = {name: [token for entry in entries for token in entry[name]] for name in ("input_ids", "tokens")}
    return {"text": None, "summary": None} | joined


def _check_alone(lowered: Lowered, entries: Sequence[dict], policy: Policy, search: Search | None) -> None:
    """Raises CheckError unless each text of a batch got the tokens that the reference gives it alone."""
    for number, entry in enumerate(entries, 1):
        wanted = reference_tokens(lowered, entry["input_ids"], policy.max_new_tokens, search)
        if entry["tokens"] != wanted:
            raise CheckError(f"text {number}: the tokens must be {wanted}, not {entry['tokens']}")


def artefacts(hw: HwConfig, program: Program, lowered: Lowered) -> dict[str, str]:
    """Files beside the result: Verilog, manifest, program listing, graph as text and picture."""
    files = {f"rtl/{name}": text for name, text in verilog(hw).items()}
    files["rtl/manifest.json"] = json.dumps(manifest(hw), indent=1) + "\n"
    files["program.txt"] = listing(program)
    files["graph.txt"] = "\n".join(dump(graph) for graph in lowered.stacks)
    files["graph.svg"] = picture(lowered)
    return files

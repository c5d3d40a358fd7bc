"""Data set: parsing of the index, families, splits, tokenizer."""

import json

import pytest

from ternbin.errors import InputError
from ternbin.models.task import data as dataset

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


def test_parse_index_joins_lines_and_paragraphs():
    [(package, synopsis, paragraphs)] = dataset.parse_index(make_index([("foo", "a tool", "Foo is a tool")]))
    assert (package, synopsis) == ("foo", "a tool")
    assert paragraphs == ["Foo is a tool second line of foo", "Another paragraph."]


def test_parse_index_skips_stanzas_without_description():
    assert list(dataset.parse_index("Package: foo\nDescription-en: only a synopsis\n")) == []


def test_collect_examples_drops_repeated_pairs():
    rows = [("foo", "a tool", "Same text")] * 2
    assert len(dataset.collect_examples(make_index(rows))) == 1


def test_families_join_near_duplicates_only():
    base = "the quick brown fox jumps over the lazy dog and runs through the green field every day"
    other = "an entirely different text about compilers that nobody will ever confuse with animals in fields"
    documents = [[base, "one"], [base + " again", "one"], [other, "one"]]
    a, b, c = dataset.find_families(documents)
    assert a == b != c


def test_split_by_family_caps_and_never_crosses():
    paragraphs = [[f"family {i // 6} {'abcdefgh'[i // 6] * 9}"] for i in range(48)]
    rows = [(dataset.Example(package=f"p{i}", source=p[0], target=str(i)), p) for i, p in enumerate(paragraphs)]
    splits = dataset.split_by_family(rows, seed=1, validation=4, test=6)
    assert {k: len(v) for k, v in splits.items()} == {"test": 6, "validation": 4, "train": 20}
    sources = {split: {e.source for e in examples} for split, examples in splits.items()}
    assert not sources["test"] & sources["train"] and not sources["validation"] & sources["train"]


def test_split_by_name_leaves_out_packages_that_are_gone():
    example = dataset.Example(package="foo", source="s", target="t")
    splits = dataset.split_by_name([(example, ["s"])], {"train": ["foo", "gone"], "validation": [], "test": []})
    assert splits == {"train": [example], "validation": [], "test": []}


def test_build_dataset_from_a_given_index(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "BUNDLED", tmp_path / "none")
    rows = [(f"p{i}", f"synopsis {i}", f"Description number {i} of {'xyz'[i % 3] * (i + 3)}") for i in range(9)]
    counts = dataset.build_dataset(tmp_path / "set", index=make_index(rows))
    assert sum(counts.values()) >= 4
    tokenizer = dataset.load_tokenizer(tmp_path / "set")
    ids = tokenizer("Foo is a tool")["input_ids"]
    assert ids[0] == dataset.BOS and ids[-1] == dataset.EOS
    assert str(tokenizer.decode(ids, skip_special_tokens=True)).strip() == "Foo is a tool"


def test_build_dataset_wants_descriptions(tmp_path):
    with pytest.raises(InputError, match="must hold at least one package with a long description, not none"):
        dataset.build_dataset(tmp_path, index="")


def test_bundled_splits_are_disjoint_and_hold_the_demo_texts():
    committed = dataset.bundled_split_names()
    assert committed is not None
    names = {split: set(packages) for split, packages in committed.items()}
    assert len(names["test"]) == 1000 and len(names["validation"]) == 500
    assert not names["train"] & (names["test"] | names["validation"])
    demos = dataset.demo_examples()
    assert len(demos) == 36 and {e.package for e in demos} <= names["test"]


def test_bundled_tokenizer_has_bart_ids():
    tokenizer = dataset.load_tokenizer(dataset.BUNDLED)
    assert tokenizer.convert_tokens_to_ids(list(dataset.SPECIAL_TOKENS)) == [0, 1, 2, 3, 4]
    assert len(tokenizer) == dataset.VOCAB_SIZE
    for example in dataset.demo_examples():
        [ids] = dataset.encode(tokenizer, [example.target], 64)
        assert str(tokenizer.decode(ids, skip_special_tokens=True)).strip() == example.target


def test_cut_keeps_the_end_token():
    assert dataset.cut([0, 5, 6, 7, 2], 4) == [0, 5, 6, 2]
    assert dataset.cut([0, 5, 2], 4) == [0, 5, 2]


def test_unknown_split_and_missing_files_are_named(tmp_path):
    with pytest.raises(InputError, match="split must be one of train, validation, test, not 'dev'"):
        dataset.read_examples(tmp_path, "dev")
    with pytest.raises(InputError, match="data folder must hold train.jsonl"):
        dataset.read_examples(tmp_path, "train")
    with pytest.raises(InputError, match="must hold tokenizer.json"):
        dataset.load_tokenizer(tmp_path)


def test_examples_round_trip(tmp_path):
    examples = [dataset.Example(package="é", source="a\nb", target="c")]
    dataset.write_examples(tmp_path / "test.jsonl", examples)
    assert dataset.read_examples(tmp_path, "test") == examples
    assert json.loads((tmp_path / "test.jsonl").read_text())["package"] == "é"

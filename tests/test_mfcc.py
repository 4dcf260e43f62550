import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from clockwork.data import mfcc

SPEECH = Path(__file__).parent / "data" / "making_fl_rms.wav"


def plain_mfcc(samples, rate):
    """The definition once more, in float64 and by NumPy alone."""
    window, step, bands = int(0.025 * rate), int(0.01 * rate), 26
    starts = range(0, len(samples) - window + 1, step)
    frames = np.stack([samples[start : start + window] for start in starts]) * 32768.0  # (T, N)
    frames = frames - frames.mean(1, keepdims=True)
    energy = np.log(np.maximum((frames**2).sum(1), 1.0))
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    tapered = (frames - 0.97 * before) * np.hamming(window)
    size = 2 ** int(np.ceil(np.log2(window)))
    power = np.abs(np.fft.rfft(tapered, size)) ** 2  # (T, size/2 + 1)

    def mel(hertz):
        return 1127 * np.log1p(np.asarray(hertz) / 700)

    edges = np.linspace(mel(20), mel(rate / 2), bands + 2)
    bins = mel(np.arange(size // 2 + 1) * rate / size)
    rise = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    weights = np.maximum(np.minimum(rise, fall), 0)  # (bands, size/2 + 1)
    logs = np.log(np.maximum(power @ weights.T, np.finfo(np.float32).eps))
    order, band = np.arange(1, 13), np.arange(bands)
    cosines = np.sqrt(2 / bands) * np.cos(np.pi * order[:, None] * (band + 0.5) / bands)
    lifter = 1 + 11 * np.sin(np.pi * order / 22)
    return np.column_stack([energy, (logs @ cosines.T) * lifter])


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100])
def test_it_is_the_stated_definition_at_any_rate(rate):
    speech, _ = soundfile.read(SPEECH)
    expected = plain_mfcc(speech, rate)
    features = mfcc(speech, rate)
    assert features.shape == expected.shape
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-3 * expected.std(0).min())


def test_energy_rises_with_loudness_and_the_cepstrum_does_not():
    speech, rate = soundfile.read(SPEECH)
    loud, soft = mfcc(speech, rate), mfcc(speech / 4, rate)
    np.testing.assert_allclose(loud[:, 0] - soft[:, 0], np.log(16), rtol=1e-4)
    np.testing.assert_allclose(loud[:, 1:], soft[:, 1:], atol=1e-2)


def test_frames_are_whole_windows_every_ten_milliseconds():
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 1000)
    assert [len(mfcc(noise[:n], 16000)) for n in (400, 559, 560, 719, 720, 1000)] == [1, 1, 2, 2, 3, 4]
    np.testing.assert_array_equal(mfcc(noise, 16000)[2:], mfcc(noise[320:], 16000))


def test_the_features_of_one_recording_are_always_the_same():
    speech, rate = soundfile.read(SPEECH)
    np.testing.assert_array_equal(mfcc(speech, rate), mfcc(speech.copy(), rate))
    np.testing.assert_array_equal(mfcc(speech[::-1], rate), mfcc(speech[::-1].copy(), rate))


def test_digital_silence_is_finite():
    silence = mfcc(np.zeros(800), 16000)
    assert np.isfinite(silence).all()
    np.testing.assert_array_equal(silence[:, 0], 0)
    np.testing.assert_allclose(silence[:, 1:], 0, atol=1e-3)
    assert np.isfinite(mfcc(np.full(800, 0.7), 16000)).all()


def test_what_is_not_speech_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match=r"at least 400, one window of 25 ms at 16000 Hz, got 399"):
        mfcc(np.zeros(399), 16000)
    with pytest.raises(ValueError, match="samples must be finite, got nan"):
        mfcc(np.where(np.arange(500) == 7, np.nan, 0.0), 16000)
    with pytest.raises(ValueError, match=r"one channel of shape \(n,\), got shape \(500, 2\)"):
        mfcc(np.zeros((500, 2)), 16000)
    rates: list[Any] = [7999, 0, float("nan"), 1e300, 16000.5, "fast"]
    for rate in rates:
        with pytest.raises(ValueError, match=rf"rate must be .*, got {re.escape(repr(rate))}"):
            mfcc(np.zeros(500), rate)


@pytest.mark.parametrize("loud", [2e6, 1e20, 1e300])
def test_what_would_overflow_is_refused(loud):
    noise = loud * np.random.default_rng(0).uniform(-1, 1, 2000)
    with pytest.raises(ValueError, match=r"samples must be about in \[-1, 1\], got a magnitude of .*e\+"):
        mfcc(noise, 16000)


@pytest.mark.parametrize("rate", [8000, 192000, 10**7])
def test_the_loudest_that_is_taken_is_finite(rate):
    noise = 1e6 * np.sign(np.random.default_rng(0).normal(size=rate // 40))
    assert np.isfinite(mfcc(noise, rate)).all()

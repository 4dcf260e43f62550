"""The inputs of the spoken word task: mel-frequency cepstral coefficients and energy."""

import numpy as np

from clockwork.checks import ArgumentError, finite
from clockwork.optional import require

# Koutník et al. 2014, sec. 4.2, give the window, the step, the pre-emphasis, and twelve coefficients plus energy;
# the rest follows HTK's usual values, which the speech tasks of the time were prepared with.
WINDOW_MS, STEP_MS = 25, 10
PRE_EMPHASIS = 0.97
BANDS = 26
LIFTER = 22
LOW_HZ = 20.0
CHANNELS = 13

# The rate of telephone speech, the lowest in use for speech; and a rate above that of any converter.
MIN_RATE, MAX_RATE = 8000, 10**7

# The least energy of a frame, that of one 16-bit sample of ±1. It keeps digital silence finite, at log 1 = 0.
ENERGY_FLOOR = 1.0

# Full scale is 1; far louder samples overflow float32 in the power spectrum.
LOUDEST = 1e6


def mfcc(samples: np.ndarray, rate: int) -> np.ndarray:
    """Log energy and 12 mel-frequency cepstral coefficients of speech, every 10 ms over a 25 ms window.

    The definition is that of Kaldi's ``compute-mfcc-feats``, computed by the library kaldi-native-fbank. A frame ``x``
    has ``N = ⌊0.025 rate⌋`` samples, scaled by 32768, minus their mean, without dither; an incomplete last frame is
    left out (``--snip-edges``):

        x'[n] = x[n] − 0.97 x[max(n − 1, 0)]
        P[k]  = |FFT(hamming · x')|²                      zeros to the next power of two
        m[b]  = ln max(Σₖ wᵦ[k] P[k], 1.2e-7)             26 triangles even in 1127 ln(1 + f/700), 20 Hz to rate/2
        c[i]  = (1 + 11 sin(π i/22)) √(2/26) Σᵦ m[b] cos(π i (b + ½)/26)        i = 1 … 12
        c[0]  = ln max(Σₙ x[n]², 1)                       the energy before pre-emphasis and window

    The paper names the window, the step, the pre-emphasis and the 12 + 1 channels (Koutník et al. 2014,
    sec. 4.2); the number of bands, the lifter and the Hamming window are the usual ones of HTK.

    Args:
        samples: ``(n,)``, in [-1, 1], one channel.
        rate: samples per second, a whole number, at least 8000.

    Returns:
        ``(T, 13)``, float32, ``T = 1 + (n − ⌊0.025 rate⌋) // ⌊0.01 rate⌋``: log energy first. Not normalised.

    Raises:
        ValueError: if ``samples`` is not one channel, is shorter than a window, not finite or beyond a million
            times full scale, or if ``rate`` is out of range or not a whole number.
        ImportError: if kaldi-native-fbank is not installed; it is in the extra ``[experiments]``.

    Example:
        >>> import numpy as np
        >>> tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
        >>> features = mfcc(tone, 16000)
        >>> features.shape, features.dtype
        ((98, 13), dtype('float32'))
        >>> round(float(features[0, 0]), 2)  # ln(400 · 16384² / 2)
        24.71
    """
    samples = np.asarray(samples)
    if finite("rate", rate, least=MIN_RATE, most=MAX_RATE) != int(rate):
        raise ArgumentError("rate", f"must be a whole number of samples per second, got {rate}")
    if samples.ndim != 1:
        raise ValueError(f"samples must be one channel of shape (n,), got shape {samples.shape}")
    window = int(rate) * WINDOW_MS // 1000
    if len(samples) < window:
        raise ValueError(
            f"samples must be at least {window}, one window of {WINDOW_MS} ms at {rate} Hz, got {len(samples)}"
        )
    if not np.isfinite(samples).all():
        raise ValueError(f"samples must be finite, got {samples[~np.isfinite(samples)][0]}")
    if (peak := np.abs(samples, dtype=np.float64).max()) > LOUDEST:
        raise ValueError(f"samples must be about in [-1, 1], got a magnitude of {peak:g}")
    kaldi = require("kaldi_native_fbank")
    extractor = kaldi.OnlineMfcc(_options(kaldi, int(rate)))
    extractor.accept_waveform(float(rate), (samples * 32768.0).astype(np.float32))
    extractor.input_finished()
    # The rows are views of the extractor's memory; stacking copies them.
    features = np.stack([extractor.get_frame(t) for t in range(extractor.num_frames_ready)]).astype(np.float32)
    if not np.isfinite(features).all():
        raise ValueError(f"samples at {rate} Hz have features that are not finite")
    return features


def _options(kaldi, rate: int):
    options = kaldi.MfccOptions()
    frame, mel = options.frame_opts, options.mel_opts
    frame.samp_freq = float(rate)
    frame.frame_length_ms, frame.frame_shift_ms = float(WINDOW_MS), float(STEP_MS)
    frame.preemph_coeff = PRE_EMPHASIS
    frame.window_type = "hamming"
    frame.dither = 0.0
    frame.remove_dc_offset = True
    frame.round_to_power_of_two = True
    frame.snip_edges = True
    mel.num_bins = BANDS
    mel.low_freq, mel.high_freq = LOW_HZ, rate / 2
    options.num_ceps = CHANNELS
    options.use_energy = options.raw_energy = True
    options.energy_floor = ENERGY_FLOOR
    options.cepstral_lifter = float(LIFTER)
    options.htk_compat = False
    return options

import hashlib

import numpy as np
import pytest
import soundfile

from clockwork.data import embedded_clips, read_clip
from clockwork.data.audio import Clip, clip_credits, clip_name, scale


def test_the_embedded_clips_are_the_credited_ones():
    clips, credit = embedded_clips(), clip_credits()
    assert len(clips) == len(credit) == 5
    for clip, entry in zip(clips.values(), credit, strict=True):
        assert clip.name in entry["file"] or clip.name == "guitar"
        assert entry["licence"] == "CC0-1.0"
        digest = hashlib.sha256(clip.samples.astype("<i2").tobytes()).hexdigest()[:16]
        assert digest == entry["sha256_int16"]
        assert clip.rate == 44100


def test_a_clip_is_scaled_from_minimum_to_maximum():
    scaled = scale(Clip("x", np.array([3.0, 5.0, 4.0]), 8000))
    np.testing.assert_array_equal(scaled, np.array([-1, 1, 0], np.float32))
    for clip in embedded_clips().values():
        assert (scale(clip).min(), scale(clip).max()) == (-1, 1)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_any_part_of_a_sound_file_is_read_with_its_channels_averaged(tmp_path, suffix):
    rate, wave = 8000, np.sin(np.arange(4000) / 20)
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, 0.5 * np.stack([wave, 0.5 * wave], axis=1), rate)
    clip = read_clip(path, start=0.1, samples=500)
    assert (clip.name, clip.rate, clip.samples.shape) == ("tone", 8000, (500,))
    tolerance = 0.1 if suffix == "ogg" else 1e-4
    np.testing.assert_allclose(clip.samples, 0.375 * wave[800:1300], atol=tolerance)


def test_a_clip_is_named_after_its_file_in_a_name_fit_for_everything(tmp_path):
    path = write(tmp_path / "cash $5_$6 | ü.wav", np.sin(np.arange(400.0)))
    assert read_clip(path).name == clip_name(path) == "cash_5__6_ü"
    assert len(clip_name("x" * 240 + ".wav")) == 60


def write(path, samples, rate=8000, **kwargs):
    soundfile.write(path, samples, rate, **kwargs)
    return path


def test_what_cannot_be_read_is_named_in_a_sentence(tmp_path):
    tone = write(tmp_path / "tone.wav", np.sin(np.arange(100.0)))
    with pytest.raises(ValueError, match=r"none\.wav does not exist"):
        read_clip(tmp_path / "none.wav")
    with pytest.raises(ValueError, match="is a folder"):
        read_clip(tmp_path)
    (tmp_path / "empty.wav").write_bytes(b"")
    with pytest.raises(ValueError, match=r"empty\.wav cannot be read as audio"):
        read_clip(tmp_path / "empty.wav")
    (tmp_path / "text.wav").write_text("this is no sound at all" * 10)
    with pytest.raises(ValueError, match=r"text\.wav cannot be read as audio"):
        read_clip(tmp_path / "text.wav")
    with pytest.raises(ValueError, match=r"holds no samples"):
        read_clip(write(tmp_path / "silent.wav", np.zeros(0)))
    with pytest.raises(ValueError, match=r"has 100 samples at 8000 Hz, too few for 320 from 0 s"):
        read_clip(tone)
    with pytest.raises(ValueError, match=r"too few for 50 from 0\.01 s \(sample 80\)"):
        read_clip(tone, start=0.01, samples=50)
    with pytest.raises(ValueError, match=r"start must be finite, at least 0 and at most 1e[+]09, got -1"):
        read_clip(tone, start=-1, samples=50)
    with pytest.raises(ValueError, match=r"got 1e\+308"):
        read_clip(tone, start=1e308, samples=50)
    with pytest.raises(ValueError, match="got nan"):
        read_clip(tone, start=float("nan"), samples=50)
    with pytest.raises(ValueError, match="samples must be an integer, 2 or more, got 1"):
        read_clip(tone, samples=1)
    broken = np.sin(np.arange(400.0))
    broken[7] = np.nan
    with pytest.raises(ValueError, match="not finite, such as nan"):
        read_clip(write(tmp_path / "nan.wav", broken, subtype="FLOAT"))
    with pytest.raises(ValueError, match=r"'flat' is constant \(0\.25\)"):
        scale(read_clip(write(tmp_path / "flat.wav", np.full(400, 0.25))))


def test_a_file_cut_in_the_middle_is_refused(tmp_path):
    whole = write(tmp_path / "whole.flac", np.random.default_rng(0).normal(size=40000).clip(-1, 1) * 0.5)
    cut = tmp_path / "cut.flac"
    cut.write_bytes(whole.read_bytes()[:3000])
    with pytest.raises(ValueError, match=r"cut\.flac"):
        read_clip(cut, start=3.0)

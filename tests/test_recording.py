"""Sound files that are not what they seem: each is one sentence, soon."""

import io
import os
import struct
import sys

import numpy as np
import pytest
import soundfile

from clockwork.data import read_clip, recording
from clockwork.data.recording import read_recording, resample
from clockwork.data.words import read_words

NOISE = 0.3 * np.random.default_rng(0).uniform(-1, 1, 8000)
READERS = [read_recording, lambda path: read_clip(path, samples=100)]


def absurd_flac(path, count):
    """A FLAC file of 8000 samples whose header promises ``count``."""
    soundfile.write(path, NOISE, 16000)
    content = bytearray(path.read_bytes())
    assert content[:4] == b"fLaC"
    packed = int.from_bytes(content[18:26], "big")  # rate, channels, bits, and 36 bits of count
    assert packed % 2**36 == 8000
    content[18:26] = (packed - 8000 + count).to_bytes(8, "big")
    path.write_bytes(content)
    return path


def test_a_flac_file_with_an_absurd_count_of_samples_gives_a_clip(tmp_path):
    path = absurd_flac(tmp_path / "absurd.flac", 2**36 - 1)
    with pytest.raises(ValueError, match=r"absurd\.flac lasts 4294967 s; at most 60 s can be used"):
        read_recording(path)
    np.testing.assert_allclose(read_clip(path, 0.25, 100).samples, NOISE[4000:4100], atol=1e-4)
    with pytest.raises(ValueError, match=r"absurd\.flac (is cut short: 0 of 100|cannot be read as audio)"):
        read_clip(path, 1000.0, 100)
    unknown = absurd_flac(tmp_path / "unknown.flac", 0)
    for read in READERS:
        with pytest.raises(ValueError, match=r"unknown\.flac does not say how many samples it has"):
            read(unknown)


@pytest.mark.parametrize(
    "head",
    [b"", b"RIFF\0\0\0\0WAVE", b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16000, 32000, 2, 16)],
)
@pytest.mark.parametrize("read", READERS)
def test_a_sparse_file_of_zeros_is_not_walked_through(tmp_path, head, read):
    path = tmp_path / "zeros.wav"
    path.write_bytes(head)
    os.truncate(path, 400_000_000)
    with pytest.raises(ValueError, match=r"zeros\.wav cannot be read as audio"):
        read(path)


def test_the_walk_over_a_files_chunks_ends():
    class Counted(io.BytesIO):
        reads = 0

        def read(self, *arguments):
            self.reads += 1
            return super().read(*arguments)

    zeros = Counted(b"RIFF\0\0\0\0WAVE" + bytes(10**6))
    assert recording._promised_by_riff(zeros) is None
    assert zeros.reads < 10_000  # of 250,000 in steps of 8 bytes


def test_a_recording_that_lasts_for_hours_is_no_word(tmp_path):
    path = tmp_path / "ann" / "yes.wav"
    path.parent.mkdir()
    form = struct.pack("<IHHIIHH", 16, 1, 1, 16000, 32000, 2, 16)
    size = 400_000_000
    path.write_bytes(b"RIFF" + struct.pack("<I", size + 36) + b"WAVEfmt " + form + b"data" + struct.pack("<I", size))
    os.truncate(path, size + 44)
    with pytest.raises(ValueError, match=r"yes\.wav lasts 12500 s; at most 60 s can be used"):
        read_words(tmp_path)
    assert read_clip(path, 3600.0, 100).samples.shape == (100,)


@pytest.mark.parametrize("read", READERS)
def test_pipes_folders_and_what_nobody_may_read(tmp_path, read):
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(ValueError, match=r"audio file .*pipe\.wav is a pipe or a device"):
        read(tmp_path / "pipe.wav")
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(ValueError, match=r"audio file .*folder\.wav is a folder"):
        read(tmp_path / "folder.wav")
    (tmp_path / "link.wav").symlink_to(tmp_path / "gone.wav")
    with pytest.raises(ValueError, match=r"audio file .*link\.wav does not exist"):
        read(tmp_path / "link.wav")
    with pytest.raises(ValueError, match=r"audio file .* cannot be read: File name too long"):
        read(tmp_path / ("x" * 300 + ".wav"))
    (tmp_path / "plain.raw").write_bytes(b"no header")
    with pytest.raises(ValueError, match=r"plain\.raw cannot be read as audio"):
        read(tmp_path / "plain.raw")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
@pytest.mark.parametrize(
    "name", [b"caf\xe9.wav", "日本語のとても長い名前".encode() * 6 + b".wav", b"x" * 251 + b".wav"]
)
def test_any_name_that_a_file_can_have(tmp_path, name):
    path = tmp_path / os.fsdecode(name)
    with path.open("wb") as file:
        soundfile.write(file, NOISE, 16000, format="WAV")
    assert len(read_recording(path)[0]) == 8000
    clip = read_clip(path)
    assert 0 < len(clip.name.encode()) <= 60
    clip.file.encode()


def test_channels_are_averaged_block_by_block(tmp_path, monkeypatch):
    path = tmp_path / "three.wav"
    channels = np.random.default_rng(1).uniform(-0.5, 0.5, (8000, 3))
    soundfile.write(path, channels, 16000, subtype="DOUBLE")
    whole, rate = read_recording(path)
    assert rate == 16000
    np.testing.assert_allclose(whole, channels.mean(1), atol=1e-12)
    monkeypatch.setattr("clockwork.data.recording.BLOCK", 300)
    np.testing.assert_array_equal(read_recording(path)[0], whole)


def test_another_rate_is_the_same_tone():
    def tone(rate):
        return np.sin(2 * np.pi * 440 * np.arange(rate) / rate)

    for rate in (8000, 22050, 48000):
        found = resample(tone(rate), rate, 16000)
        assert abs(len(found) - 16000) <= 1
        np.testing.assert_allclose(found[800:15000], tone(16000)[800:15000], atol=1e-2)
    assert resample(NOISE, 16000, 16000) is NOISE

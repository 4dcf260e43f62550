import numpy as np
import pytest
import soundfile

from clockwork.data.speech import PAPER_GROUPS, PAPER_WORDS, read_folder, read_timit
from clockwork.data.takes import PLACES

NOISE = np.random.default_rng(0).integers(-8000, 8000, 12000).astype("<i2")


LACKS = ["ann lacks maybe", "bob lacks no"]


def sphere(path, samples=NOISE, rate=16000, promised=None, coding=""):
    """A file of the LDC's disc: a header of 1024 bytes of text, then little-endian 16-bit samples."""
    lines = [
        "NIST_1A",
        "   1024",
        "database_id -s5 TIMIT",
        "database_version -s3 1.0",
        "utterance_id -s8 cjf0_sx3",
        "channel_count -i 1",
        f"sample_count -i {promised or len(samples)}",
        f"sample_rate -i {rate}",
        f"sample_min -i {samples.min()}",
        f"sample_max -i {samples.max()}",
        "sample_n_bytes -i 2",
        "sample_byte_format -s2 01",
        "sample_sig_bits -i 16",
        *([f"sample_coding -s{len(coding)} {coding}"] if coding else []),
        "end_head",
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(("\n".join(lines) + "\n").encode().ljust(1024, b" ") + samples.tobytes())
    return path


def riff(path, samples=NOISE, rate=16000):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        soundfile.write(file, samples, rate, format="WAV")
    return path


def disc(root, marks, **kwargs):
    """A tree as on the disc, from ``{"DR1/FCJF0/SX37": "0 4000 making"}``."""
    for name, text in marks.items():
        path = root / "TRAIN" / name
        sphere(path.with_suffix(".WAV"), **kwargs)
        path.with_suffix(".WRD").write_text(text + "\n")
    return root


def test_the_words_are_the_papers():
    assert list(PAPER_GROUPS) == ["ing", "ical", "ition", "ions", "way"]
    assert len(PAPER_WORDS) == len(set(PAPER_WORDS)) == 25
    odd = [word for suffix, words in PAPER_GROUPS.items() for word in words if not word.endswith(suffix)]
    assert odd == ["musicians"]  # of the paper's own group "ions": by sound, not by letters


def test_words_are_cut_from_the_disc_at_their_own_marks(tmp_path):
    root = disc(tmp_path, {"DR1/FCJF0/SX37": "0 4000 making\n3900 8000 don't\n8000 12000 Critical"})
    utterances, missing = read_timit(root, ["critical", "MAKING", "don't"], per_word=1)
    assert missing == []
    assert [(u.word, u.speaker, u.rate) for u in utterances] == [
        ("critical", "FCJF0", 16000),
        ("making", "FCJF0", 16000),
        ("don't", "FCJF0", 16000),
    ]
    for utterance, (start, end) in zip(utterances, [(8000, 12000), (0, 4000), (3900, 8000)], strict=True):
        np.testing.assert_array_equal(utterance.samples, NOISE[start:end] / 32768)
        assert utterance.samples.dtype == np.float64
        assert utterance.source == f"TRAIN/DR1/FCJF0/SX37.WAV[{start}:{end}]"


@pytest.mark.parametrize(
    ("marks", "audio"),
    [
        ("timit/train/dr1/fcjf0/sx37.wrd", "timit/train/dr1/fcjf0/sx37.wav"),
        ("data/TRAIN/DR1/FCJF0/SX37.WRD", "data/TRAIN/DR1/FCJF0/SX37.wav"),
        ("TRAIN/DR1/FCJF0/SX37.WRD", "TRAIN/DR1/FCJF0/SX37.WAV.wav"),
        ("FCJF0/SX37.wrd", "FCJF0/sx37.Wav"),
    ],
)
def test_unpacked_audio_is_read_in_either_case_anywhere_below(tmp_path, marks, audio):
    riff(tmp_path / audio)
    (tmp_path / marks).write_text("100 4100 making\n")
    (tmp_path / marks).with_name("._SX37.WRD").write_bytes(b"\0\5\x16\7 not marks")
    (utterance,), _ = read_timit(tmp_path)
    assert (utterance.speaker, utterance.source) == ("FCJF0", f"{audio}[100:4100]")
    np.testing.assert_array_equal(utterance.samples, NOISE[100:4100] / 32768)


def test_a_riff_copy_is_preferred_to_the_discs_own_file(tmp_path):
    root = disc(tmp_path, {"DR1/FCJF0/SX37": "0 4000 making"}, coding="pcm,embedded-shorten-v2.00")
    with pytest.raises(ValueError, match=r"SX37\.WAV is compressed by shorten: unpack it first"):
        read_timit(root)
    riff(root / "TRAIN/DR1/FCJF0/SX37.WAV.wav")
    assert read_timit(root)[0][0].samples.shape == (4000,)


def test_of_each_word_the_first_speakers_say_one_token_each(tmp_path):
    tokens = {f"DR{i}/M{i}/SX{j}": f"0 {1000 * (j + 1)} subway" for i in range(1, 6) for j in (1, 2)}
    root = disc(tmp_path, tokens | {"DR1/M1/SA1": "0 5000 highway\n5000 9000 highway"})
    utterances, missing = read_timit(root, ["subway", "leeway", "highway"], per_word=3)
    assert [(u.word, u.speaker, len(u.samples)) for u in utterances] == [
        ("subway", "M1", 2000),
        ("subway", "M2", 2000),
        ("subway", "M3", 2000),
        ("highway", "M1", 5000),
    ]
    assert missing == [
        "1 of the 3 words is absent (leeway)",
        "fewer than 3 speakers say some words: highway has 1",
        "the first 3 speakers of each word are used, of subway 5; --per-word takes more",
    ]
    assert len(read_timit(root, ["subway"], per_word=16)[0]) == 5
    lower = tmp_path / "lower"
    for name, text in tokens.items():
        riff(lower / f"{name.lower()}.wav")
        (lower / f"{name.lower()}.wrd").write_text(text)
    assert [u.speaker for u in read_timit(lower, ["subway"], 3)[0]] == ["M1", "M2", "M3"]


@pytest.mark.parametrize(
    "line", ["0 4000", "0 4000 making it", "zero 4000 making", "-5 4000 making", "0.5 4000 making"]
)
def test_a_malformed_line_is_named(tmp_path, line):
    root = disc(tmp_path, {"DR1/FCJF0/SX37": f"0 400 walking\n\n{line}"})
    with pytest.raises(ValueError, match=r"SX37\.WRD, line 3, should read 'start end word', in samples, got") as error:
        read_timit(root)
    assert repr(line) in str(error.value)


@pytest.mark.parametrize("mark", ["8000 12001 making", "4000 4000 making", "5000 4000 making"])
def test_a_mark_outside_the_audio_is_refused(tmp_path, mark):
    root = disc(tmp_path, {"DR1/FCJF0/SX37": mark})
    start, end, _ = mark.split()
    with pytest.raises(
        ValueError, match=rf"SX37\.WRD marks 'making' at samples {start} to {end}, but SX37\.WAV has 12000 samples"
    ):
        read_timit(root)


def test_audio_cut_short_against_its_header_is_refused(tmp_path):
    disc(tmp_path / "disc", {"DR1/FCJF0/SX37": "0 4000 making"}, promised=50000)
    with pytest.raises(ValueError, match=r"SX37\.WAV is cut short: 12000 of the 50000 samples its header promises"):
        read_timit(tmp_path / "disc")
    whole = riff(tmp_path / "folder" / "ann" / "making.wav")
    whole.write_bytes(whole.read_bytes()[:-1001])
    with pytest.raises(ValueError, match=r"making\.wav is cut short: 11499 of the 12000 samples"):
        read_folder(tmp_path / "folder")


def test_a_riff_file_from_a_pipe_has_no_length_to_keep(tmp_path):
    piped = riff(tmp_path / "ann" / "making.wav")
    content = piped.read_bytes()
    at = content.index(b"data") + 4
    piped.write_bytes(content[:at] + b"\xff\xff\xff\xff" + content[at + 4 :])
    assert read_folder(tmp_path)[0][0].samples.shape == (12000,)


def test_what_is_no_timit_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="nowhere does not exist or is not a folder"):
        read_timit(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"no \.WRD file below"):
        read_timit(tmp_path)
    marks = tmp_path / "FCJF0" / "SX37.WRD"
    marks.parent.mkdir()
    marks.write_text("0 4000 making\n")
    with pytest.raises(ValueError, match=r"SX37\.WRD has no audio beside it, such as SX37\.WAV"):
        read_timit(tmp_path)
    with pytest.raises(ValueError, match=r"none of the words subway, leeway is in the 1 \.WRD files below"):
        read_timit(tmp_path, ["subway", "leeway"])
    with pytest.raises(ValueError, match="words must name at least one word, got none"):
        read_timit(tmp_path, [])
    with pytest.raises(ValueError, match="per_word must be an integer, 1 or more, got 0"):
        read_timit(tmp_path, per_word=0)
    marks.with_suffix(".WAV").write_text("no sound" * 300)
    with pytest.raises(ValueError, match=r"SX37\.WAV cannot be read as audio"):
        read_timit(tmp_path)


def test_a_folder_has_a_folder_for_each_speaker(tmp_path):
    stereo = np.stack([NOISE, NOISE // 2], axis=1)
    for name in ("ann/Yes.flac", "ann/no.WAV", "bob/yes.wav", "bob/maybe.wav"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as file:
            soundfile.write(file, stereo, 22050, format=path.suffix[1:].upper())
    (tmp_path / "ann" / "notes.txt").write_text("nothing to hear")
    riff(tmp_path / "stray.wav")
    utterances, missing = read_folder(tmp_path)
    assert [(u.word, u.speaker, u.rate, u.source) for u in utterances] == [
        ("maybe", "bob", 22050, "bob/maybe.wav"),
        ("no", "ann", 22050, "ann/no.WAV"),
        ("yes", "ann", 22050, "ann/Yes.flac"),
        ("yes", "bob", 22050, "bob/yes.wav"),
    ]
    assert [note.partition(":")[0] for note in missing] == [f"sound files elsewhere than {PLACES} are not used", *LACKS]
    assert missing[0].endswith("stray.wav")
    np.testing.assert_allclose(utterances[2].samples, stereo.mean(1) / 32768, atol=1e-9)
    utterances, missing = read_folder(tmp_path, ["yes", "NO", "never"])
    assert [u.word for u in utterances] == ["yes", "yes", "no"]
    assert missing[1:] == [
        "1 of the 3 words is absent (never)",
        "bob lacks no",
    ]


def test_what_is_no_folder_of_words_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"no SPEAKER/WORD\.wav below"):
        read_folder(tmp_path)
    riff(tmp_path / "ann" / "yes.wav")
    with pytest.raises(ValueError, match="none of the words leeway is among the files below"):
        read_folder(tmp_path, ["leeway"])
    twice = riff(tmp_path / "ann" / "YES.wav")
    with pytest.raises(ValueError, match=r"are the same word of the same speaker: keep one"):
        read_folder(tmp_path)
    twice.unlink()
    silent = riff(tmp_path / "ann" / "no.wav", NOISE[:0])
    with pytest.raises(ValueError, match=r"no\.wav holds no samples"):
        read_folder(tmp_path)
    silent.write_bytes(b"")
    with pytest.raises(ValueError, match=r"no\.wav cannot be read as audio"):
        read_folder(tmp_path)


def test_all_audio_of_a_corpus_has_one_rate(tmp_path):
    riff(tmp_path / "ann" / "yes.wav")
    riff(tmp_path / "bob" / "yes.wav", rate=8000)
    with pytest.raises(ValueError, match=r"one sampling rate, but .*ann/yes\.wav has 16000 Hz and .*bob/yes\.wav 8000"):
        read_folder(tmp_path)
    disc(tmp_path / "disc", {"DR1/FCJF0/SX37": "0 4000 making"})
    disc(tmp_path / "disc", {"DR1/MCJF0/SX38": "0 4000 making"}, rate=8000)
    with pytest.raises(ValueError, match=r"SX37\.WAV has 16000 Hz and .*SX38\.WAV 8000 Hz"):
        read_timit(tmp_path / "disc")

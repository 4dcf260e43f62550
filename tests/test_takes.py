"""Several takes of a word, in folders and in tables: nobody is in training and test, and nothing is left out unsaid."""

import os
import sys

import numpy as np
import pytest
import soundfile

from clockwork.data import read_words, split
from clockwork.data.speech import read_folder
from clockwork.data.table import read_table
from clockwork.tasks import Words

SOUND = 0.3 * np.random.default_rng(0).uniform(-1, 1, 1600)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def record(root, *places):
    for place in places:
        path = root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            soundfile.write(file, SOUND, 16000, format="WAV")
    return root


def said(root, **options):
    utterances, notes = read_folder(root, **options)
    return [(u.speaker, u.word, u.source.rpartition("/")[2]) for u in utterances], notes


@pytest.mark.parametrize(
    ("places", "words"),
    [
        (["yes.wav", "yes_2.wav", "yes_10.wav"], {"yes"}),
        (["yes_1.wav", "yes_2.wav", "no.wav"], {"yes", "no"}),
        (["yes-1.wav", "Yes-2.wav"], {"yes"}),
        (["yes 1.wav", "yes 2.wav"], {"yes"}),
        (["yes(1).wav", "yes(2).wav"], {"yes"}),
        (["yes.wav", "yes (2).wav"], {"yes"}),
        (["yes1.wav", "yes2.wav"], {"yes"}),
        (["yes.wav", "yes_2.wav", "yes_2_1.wav"], {"yes"}),
        (["yes/a.wav", "yes/b.wav", "no/a.wav"], {"yes", "no"}),
        (["yes/a.wav", "yes.wav", "yes_3/a.wav"], {"yes"}),
        (["1.wav", "2.wav", "12.wav"], {"1", "2", "12"}),
        (["7_1.wav", "7_2.wav", "8_1.wav", "8_2.wav"], {"7", "8"}),
        (["mp3.wav", "yes.wav"], {"mp3", "yes"}),
    ],
)
def test_takes_are_told_from_words(tmp_path, places, words):
    record(tmp_path, *(f"{speaker}/{place}" for speaker in ("ann", "bob") for place in places))
    tokens, notes = said(tmp_path)
    assert {word for _, word, _ in tokens} == words
    assert len(tokens) == 2 * len(places)
    numbered = any(place.removesuffix(".wav").split("/")[0].lower() not in words for place in places)
    assert any("count as takes" in note for note in notes) == numbered


def test_a_word_may_be_alone_with_one_speaker_and_numbered_with_another(tmp_path):
    record(tmp_path, "ann/yes.wav", "bob/yes_2.wav", "cat/yes/x.wav")
    assert said(tmp_path)[0] == [("ann", "yes", "yes.wav"), ("bob", "yes", "yes_2.wav"), ("cat", "yes", "x.wav")]


def test_words_that_are_asked_for_are_words_whatever_they_end_in(tmp_path):
    record(tmp_path, *(f"{speaker}/{word}.wav" for speaker in ("ann", "bob") for word in ("a4", "a5")))
    assert {word for _, word, _ in said(tmp_path)[0]} == {"a"}
    assert [word for _, word, _ in said(tmp_path, words=["A5", "a4"])[0]] == ["a5", "a5", "a4", "a4"]


@pytest.mark.parametrize(
    ("folders", "sentence"),
    [
        (["take1", "take2"], r"take1, take2: named like takes, but a folder directly below .* must hold all of one"),
        (["ann_take1", "ann_take2"], "ann_take1, ann_take2: named like takes"),
        (["Ann session 1", "bob"], "Ann session 1: named like takes"),
        (["ann", "ann_2"], "ann and ann_2 are named like one speaker"),
        (["Ann", "ann (2)"], r"Ann and ann \(2\) are named like one speaker"),
        pytest.param(
            ["ann", "Ann"],
            "differ by their case only",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="elsewhere they are one folder"),
        ),
    ],
)
def test_one_persons_takes_in_several_folders_are_refused(tmp_path, folders, sentence):
    record(tmp_path, *(f"{folder}/{word}.wav" for folder in folders for word in ("yes", "no")))
    with pytest.raises(ValueError, match=sentence):
        read_folder(tmp_path)


def test_folders_that_may_be_one_persons_are_named(tmp_path):
    record(tmp_path, *(f"{name}/yes.wav" for name in ("ann_1", "ann_2", "speaker_1", "speaker_2", "mjrh0", "mjrh1")))
    _, notes = said(tmp_path)
    assert notes == ["ann_1, ann_2 count as 2 speakers; if they are one, put all into one folder"]


def test_no_speaker_is_ever_split(tmp_path):
    rng = np.random.default_rng(0)
    people = [f"p{i}" for i in range(9)]
    places = [f"{p}/{w}_{i}.wav" for p in people for w in ("yes", "no", "oh") for i in range(rng.integers(1, 5))]
    record(tmp_path, *places, *(f"{p}/{w}.wav" for p in people for w in ("yes", "no", "oh")))
    corpus = read_words(tmp_path)
    assert len(corpus.labels) == len(places) + 27
    for number in range(8):
        for test_per_word in (1, 2, 4):
            train, test = split(corpus, number, test_per_word)
            trained, tested = ({corpus.speakers[i] for i in side} for side in (train, test))
            assert not trained & tested
            assert len(tested) == test_per_word
            assert len(train) + len(test) == len(corpus.labels)


def test_all_sixteen_speakers_are_used_or_it_is_said_which_are_not(tmp_path):
    record(tmp_path / "d", *(f"p{i:02}/{word}.wav" for i in range(16) for word in ("yes", "no")))
    task = Words(data_folder=str(tmp_path / "d"), test_per_word=4)
    (side,) = task.sides.values()
    assert (len(side.train), len(side.test)) == (24, 8)
    assert task.remarks()[:2] == [
        "Data: d (2 words, 16 speakers, 32 tokens).",
        "Words: no, yes; speakers: p00, p01, p02, p03, p04 and 11 more.",
    ]
    few = Words(data_folder=str(tmp_path / "d"), per_word=7)
    assert few.corpus.speakers == tuple(f"p{i:02}" for i in range(7)) * 2
    assert few.remarks()[3:] == [
        "Note: the first 7 speakers of each word are used, of no 16, yes 16; --per-word takes more."
    ]
    with pytest.raises(ValueError, match="per_word must be an integer, 2 or more, got 1"):
        Words(data_folder=str(tmp_path / "d"), per_word=1)
    with pytest.raises(ValueError, match="per_word chooses speakers of recordings, and none are given"):
        Words(per_word=7)


def test_a_word_of_one_speaker_is_left_out_and_named(tmp_path):
    record(tmp_path, *(f"{p}/{w}.wav" for p in ("ann", "bob", "cat") for w in ("yes", "no")), "bob/yess.wav")
    task = Words(data_folder=str(tmp_path))
    assert task.settings()["words"] == ["no", "yes"]
    assert task.corpus.notes == ("words that one speaker alone says are left out: yess",)
    with pytest.raises(ValueError, match=r"every word needs two speakers.*but only one says yess"):
        Words(data_folder=str(tmp_path), word_list=("yes", "yess")).settings()


def test_a_folder_for_each_word_is_told_to_need_one_for_each_speaker(tmp_path):
    record(tmp_path, "yes/ann.wav", "yes/bob.wav", "no/cat.wav")
    with pytest.raises(ValueError, match=r"two speakers.*each folder directly below the root is a speaker"):
        Words(data_folder=str(tmp_path)).settings()


def test_many_names_are_counted_and_not_listed(tmp_path):
    record(tmp_path, *(f"p{i}/word{chr(97 + i // 26)}{chr(97 + i % 26)}.wav" for i in range(200)))
    for task in (Words(data_folder=str(tmp_path)), Words(data_folder=str(tmp_path), word_list=("nix", "nil"))):
        with pytest.raises(ValueError, match=r"and \d+ more|none of the words nix, nil") as refused:
            task.settings()
        assert len(str(refused.value)) < 1500


def table(path, *lines, header="file,word,speaker"):
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def test_a_table_lists_files_wherever_they_lie(tmp_path):
    record(tmp_path, "data/x/1.wav", "data/x/2.wav", "data/3.wav", "elsewhere/4.wav", "data/5.wav")
    path = table(
        tmp_path / "data" / "words.csv",
        "x/1.wav,Yes,ann,loud", "x/2.wav,yes,ann,", "3.wav,yes,bob", "", "../elsewhere/4.wav,no,Bob Bee",
        f'"{tmp_path / "data" / "5.wav"}",no,ann',
        header="\ufeffFile,Word, speaker,remark",
    )  # fmt: skip
    utterances, notes = read_table(path)
    assert [(u.word, u.speaker, u.source) for u in utterances][:2] == [
        ("no", "ann", str(tmp_path / "data" / "5.wav")),
        ("no", "Bob Bee", "../elsewhere/4.wav"),
    ]
    assert [(u.word, u.speaker, u.source) for u in utterances][2:] == [
        ("yes", "ann", "x/1.wav"),
        ("yes", "ann", "x/2.wav"),
        ("yes", "bob", "3.wav"),
    ]
    assert notes == ["bob lacks no", "Bob Bee lacks yes"]
    corpus = read_words(path)
    assert (corpus.name, corpus.origin, corpus.words) == ("words", "table", ("no", "yes"))
    record(tmp_path, "data/6.wav")
    path.write_text(path.read_text("utf-8") + "6.wav,no,bob\n", "utf-8")
    assert len(read_words(path).labels) == 6  # the features that are kept are of another table
    for suffix, delimiter in ((".tsv", "\t"), (".csv", ";")):
        other = table(tmp_path / f"other{suffix}", delimiter.join(["a", "data/3.wav", "b"]), header=delimiter.join(
            ["word", "file", "speaker"]))  # fmt: skip
        assert [(u.word, u.speaker) for u in read_table(other)[0]] == [("a", "b")]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "has no column, or several, named file and word and speaker: a table must begin with"),
        (b"file,word\n1.wav,yes\n", "has no column, or several, named speaker"),
        (b"file,word,speaker,word\n", "has no column, or several, named word"),
        (b"file,word,speaker\n", "lists no recording"),
        (b"file,word,speaker\n1.wav,yes\n", "line 2, needs a file, a word and a speaker"),
        (b"file,word,speaker\n1.wav,yes,ann\n\n1.wav,no,ann\n", "has 1.wav in line 2 and in line 4"),
        (b"file,word,speaker\n1.wav,yes,ann\n2.wav,yes,Ann\n", "speakers ann and Ann, which differ by their case only"),
        (b"file,word,speaker\nno.wav,yes,ann\nnil.wav,yes,ann\n", r"files that do not exist: no\.wav, nil\.wav"),
        (b"file,word,speaker\n" + b"".join(b"%d.wav,yes,ann\n" % i for i in range(3000)), "4.wav and 2995 more"),
        (b"file,word,speaker\n\xff.wav,yes,ann\n", "is not in UTF-8"),
        (b'file,word,speaker\n"1.wav,yes,ann\n', "cannot be read: unexpected end of data"),
        (b"file,word,speaker\n" + b"x" * 200_000 + b",yes,ann\n", "cannot be read: field larger than"),
        (b"file,word,speaker\n1\0.wav,yes,ann\n", "cannot be read: line contains NUL|do not exist"),
        (b"file,word,speaker\n.,yes,ann\n", "is a folder"),
    ],
)
def test_what_is_no_table_is_refused_in_a_sentence(tmp_path, content, sentence):
    path = tmp_path / "words.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=sentence) as refused:
        read_words(path)
    assert len(str(refused.value)) < 800


def test_what_is_neither_folder_nor_table(tmp_path):
    with pytest.raises(ValueError, match=r"folder or table .*nowhere does not exist"):
        read_words(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(ValueError, match=r"pipe\.csv is a pipe or a device"):
        read_words(tmp_path / "pipe.csv")
    (tmp_path / "words.xlsx").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"words\.xlsx is neither a folder nor a table \(\.csv or \.tsv\)"):
        read_words(tmp_path / "words.xlsx")


def test_pipes_and_folders_among_the_recordings_are_named(tmp_path):
    record(tmp_path, "ann/yes.wav", "ann/no.wav", "bob/no.wav")
    os.mkfifo(tmp_path / "bob" / "yes.wav")
    with pytest.raises(ValueError, match=r"bob/yes\.wav is a pipe or a device"):
        read_words(tmp_path)
    (tmp_path / "bob" / "yes.wav").unlink()
    (tmp_path / "bob" / "yes.wav").mkdir()
    with pytest.raises(ValueError, match=r"bob/yes\.wav is a folder"):
        read_words(tmp_path)


def test_marks_that_are_a_pipe_or_a_folder_are_named(tmp_path):
    record(tmp_path, "FCJF0/SX37.wav")
    os.mkfifo(tmp_path / "FCJF0" / "SX37.WRD")
    with pytest.raises(ValueError, match=r"file of marks .*SX37\.WRD is a pipe or a device"):
        read_words(tmp_path)
    (tmp_path / "FCJF0" / "SX37.WRD").unlink()
    (tmp_path / "FCJF0" / "SX37.WRD").mkdir()
    with pytest.raises(ValueError, match=r"file of marks .*SX37\.WRD is a folder"):
        read_words(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_not_utf_8_become_escapes(tmp_path):
    folder = tmp_path / os.fsdecode(b"d\xe9")
    for speaker in (b"ren\xe9", b"ann", b"bob"):
        for word in (b"no\xebl", b"yes"):
            record(folder / os.fsdecode(speaker), os.fsdecode(word + b".wav"))
    corpus = read_words(folder)
    assert (corpus.name, corpus.words) == (r"d\xe9", (r"no\xebl", "yes"))
    assert r"ren\xe9" in corpus.speakers
    for text in (*corpus.sources, *corpus.notes, *Words(data_folder=str(folder)).remarks()):
        text.encode()
    assert read_words(folder).sources == corpus.sources  # as they were kept


def test_too_loud_a_recording_is_named(tmp_path):
    record(tmp_path, *(f"{p}/{w}.wav" for p in "abc" for w in ("yes", "no")))
    for loud in (1e20, 1e300):
        soundfile.write(tmp_path / "b" / "no.wav", loud * SOUND, 16000, subtype="DOUBLE")
        with pytest.raises(ValueError, match=r"'no' in b/no\.wav cannot be used: samples must be about in \[-1, 1\]"):
            Words(data_folder=str(tmp_path)).settings()


def test_a_sample_of_timit_says_what_is_absent_and_proposes_others(tmp_path):
    for i in range(4):
        record(tmp_path, f"DR1/S{i}/SA1.wav")
        marks = ["0 500 she", "500 900 had", "900 1600 making"] if i == 0 else ["0 500 she", "500 900 had"]
        (tmp_path / f"DR1/S{i}/SA1.WRD").write_text("\n".join(marks))
    record(tmp_path, "DR1/S9/SA2.wav")
    (tmp_path / "DR1/S9/SA2.WRD").write_text("0 1600 subway")
    with pytest.raises(
        ValueError,
        match=r"two speakers.*making, subway.*; 23 of the 25 words are absent \(walking.* and 18 more\); "
        "--word-list chooses others, such as had, she",
    ):
        Words(data_folder=str(tmp_path)).settings()
    with pytest.raises(ValueError, match=r"none of the words zebra is in the 5 \.WRD files.*such as had, she"):
        Words(data_folder=str(tmp_path), word_list=("zebra",)).settings()
    assert Words(data_folder=str(tmp_path), word_list=("had", "she")).settings()["words"] == ["had", "she"]
    with pytest.raises(ValueError, match="has one word, she: there is nothing to tell apart"):
        Words(data_folder=str(tmp_path), word_list=("she",)).settings()

from pathlib import Path

import numpy as np
import pytest
import soundfile

from clockwork.data import Corpus, embedded_words, mfcc, read_words, split
from clockwork.data import words as module
from clockwork.data.make_words import SPEAKERS
from clockwork.data.speech import PAPER_WORDS
from clockwork.data.words import embedded_credits

SPEECH = Path(__file__).parent / "data" / "making_fl_rms.wav"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "clockwork" / "features"


@pytest.fixture
def recordings(tmp_path):
    """Four speakers of three words."""
    rng = np.random.default_rng(0)
    for speaker in ("ann", "bob", "cat", "dan"):
        for word in ("yes", "no", "leeway"):
            path = tmp_path / "my words" / speaker / f"{word}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, rng.uniform(-0.5, 0.5, 1000 * len(word)), 16000)
    return tmp_path / "my words"


def people_of(corpus, indices):
    return {corpus.speakers[i] for i in indices}


def made_up(spoken):
    """A corpus without sound, from ``[(word, speaker), ...]``."""
    words = tuple(dict.fromkeys(word for word, _ in spoken))
    labels = np.array([words.index(word) for word, _ in spoken], np.int32)
    speakers, count = tuple(speaker for _, speaker in spoken), len(spoken)
    features, lengths = np.zeros((count, 1, 13), np.float32), np.ones(count, np.int32)
    return Corpus("made up", features, lengths, labels, words, speakers, speakers, 16000, (), False)


def timit_like(seed, people=120):
    rng = np.random.default_rng(seed)
    return made_up([(w, f"S{p:03}") for w in PAPER_WORDS for p in rng.choice(people, 7, replace=False)])


def test_the_embedded_words_are_the_papers_by_seven_voices():
    corpus = embedded_words()
    assert corpus.words == PAPER_WORDS
    assert corpus.features.shape == (175, corpus.lengths.max(), 13)
    assert (corpus.features.dtype, corpus.lengths.dtype, corpus.labels.dtype) == (np.float32, np.int32, np.int32)
    np.testing.assert_array_equal(np.bincount(corpus.labels), 7)
    assert len({source.split("/")[0] for source in corpus.sources}) == len(SPEAKERS) == 7
    for source, label, speaker in zip(corpus.sources, corpus.labels, corpus.speakers, strict=True):
        voice, word = source.removesuffix(".wav").split("/")
        assert (word, SPEAKERS[voice]) == (corpus.words[label], speaker)
    assert corpus.synthetic
    assert "synthetic speech" in corpus.notes[0]
    assert "not comparable to the paper's" in corpus.notes[1]
    assert np.isfinite(corpus.features).all()
    beyond = np.arange(corpus.features.shape[1]) >= corpus.lengths[:, None]
    assert not corpus.features[beyond].any()
    assert embedded_words() is corpus


def test_the_stored_features_are_those_of_the_recordings():
    corpus, (samples, rate) = embedded_words(), soundfile.read(SPEECH)
    i = corpus.sources.index("fl_rms/making.wav")
    expected = mfcc(samples, rate)
    assert corpus.lengths[i] == len(expected)
    np.testing.assert_allclose(corpus.features[i, : len(expected)], expected, rtol=2**-11, atol=1e-6)


def test_every_embedded_voice_is_credited():
    credit = embedded_credits()
    assert {entry["voice"]: entry["speaker"] for entry in credit["voices"]} == SPEAKERS
    assert {entry["licence"] for entry in credit["voices"]} == set(credit["licences"])
    assert all("WARRANTIES" in " ".join(licence["notice"]) for licence in credit["licences"].values())
    assert Path(module.__file__).with_name(credit["recipe"]).is_file()


@pytest.mark.parametrize("number", range(21))
def test_a_split_of_the_embedded_words_keeps_speakers_and_two_tokens_of_each_word_apart(number):
    corpus = embedded_words()
    train, test = split(corpus, number)
    assert (train.dtype, test.dtype) == (np.int32, np.int32)
    np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(175))
    assert (np.diff(train) > 0).all()
    assert (np.diff(test) > 0).all()
    np.testing.assert_array_equal(np.bincount(corpus.labels[test]), 2)
    assert not people_of(corpus, train) & people_of(corpus, test)
    again = split(corpus, number)
    np.testing.assert_array_equal(again.test, test)
    if number == 0:
        assert people_of(corpus, test) == {"rms", "ked"}


def test_the_embedded_words_have_five_splits_and_the_numbers_reach_them_all():
    corpus = embedded_words()
    drawn = {frozenset(people_of(corpus, split(corpus, number).test)) for number in range(41)}
    pairs = ("rms", "ked"), ("rms", "kal16"), ("ked", "kal16")
    assert drawn == {frozenset({"slt"}), frozenset({"awb"}), *map(frozenset, pairs)}


@pytest.mark.parametrize("seed", range(5))
def test_words_that_share_speakers_are_split_exactly(seed):
    corpus = timit_like(seed)
    drawn = set()
    for number in range(4):
        train, test = split(corpus, number)
        np.testing.assert_array_equal(np.bincount(corpus.labels[test]), 2)
        np.testing.assert_array_equal(np.bincount(corpus.labels[train]), 5)
        assert not people_of(corpus, train) & people_of(corpus, test)
        np.testing.assert_array_equal(split(corpus, number).train, train)
        drawn.add(tuple(test))
    assert len(drawn) == 4


def test_where_two_tokens_cannot_be_had_each_word_still_has_one_on_either_side():
    few = made_up([("a", "p"), ("a", "q"), ("b", "p"), ("b", "q"), ("b", "r"), ("c", "r"), ("c", "s"), ("c", "t")])
    for number in range(10):
        train, test = split(few, number)
        np.testing.assert_array_equal(np.bincount(few.labels[test]), [1, 2, 2])
        assert set(few.labels[train]) == {0, 1, 2}
    # p says both words three times each, so that exactly two test tokens of either are out of reach.
    heavy = made_up([(word, speaker) for word in "ab" for speaker in "pppqqq"])
    for number in range(4):
        np.testing.assert_array_equal(np.bincount(heavy.labels[split(heavy, number).test]), 3)


def test_a_word_that_cannot_be_split_is_named():
    with pytest.raises(ValueError, match=r"every word needs two speakers.*but only one says lone, twice: leave out"):
        split(made_up([("a", "p"), ("a", "q"), ("lone", "p"), ("twice", "q"), ("twice", "q")]), 0)
    triangle = made_up([("x", "p"), ("x", "q"), ("y", "q"), ("y", "r"), ("z", "r"), ("z", "p")])
    with pytest.raises(
        ValueError, match=r"found no split by speakers that leaves tokens of [xyz] for both training and test"
    ):
        split(triangle, 0)
    with pytest.raises(ValueError, match="the split's number must be an integer, 0 or more, got -1"):
        split(embedded_words(), -1)
    with pytest.raises(ValueError, match="test_per_word must be an integer, 1 or more, got 0"):
        split(embedded_words(), 1, test_per_word=0)


def test_a_folder_is_read_as_a_corpus_and_remembered(recordings, cache, monkeypatch):
    (recordings / "dan" / "no.wav").unlink()
    first = read_words(recordings)
    assert (first.name, first.words, first.synthetic) == ("my words", ("leeway", "no", "yes"), False)
    assert first.notes == ("dan lacks no",)
    assert first.speakers == ("ann", "bob", "cat", "dan", "ann", "bob", "cat", "ann", "bob", "cat", "dan")
    samples, rate = soundfile.read(recordings / "bob" / "no.wav")
    np.testing.assert_array_equal(first.features[5, : first.lengths[5]], mfcc(samples, rate))
    assert not first.features[5, first.lengths[5] :].any()
    assert len(list(cache.iterdir())) == 1

    with monkeypatch.context() as patch:
        patch.setattr(module, "mfcc", None)
        same(read_words(recordings), first)
        with pytest.raises(TypeError):
            read_words(recordings, ["yes"])
        soundfile.write(recordings / "ann" / "yes.wav", samples[:1000], rate)
        with pytest.raises(TypeError):
            read_words(recordings)
    assert read_words(recordings).lengths[7] == 4


def same(corpus, other):
    for one, two in zip(corpus, other, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("damage", [lambda whole: b"", lambda whole: whole[:500], lambda whole: b"x" * 500])
def test_a_damaged_cache_counts_as_absent(recordings, cache, damage):
    first = read_words(recordings)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    same(read_words(recordings), first)
    assert file.read_bytes() == whole


def test_without_a_place_to_write_nothing_is_cached(recordings, cache, monkeypatch):
    cache.parents[1].write_text("a file where the folder should be")
    assert read_words(recordings).lengths.shape == (12,)


def test_timit_is_told_by_its_marks(tmp_path):
    folder = tmp_path / "corpus" / "train" / "dr1" / "fcjf0"
    folder.mkdir(parents=True)
    soundfile.write(folder / "sx37.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 9000), 16000)
    (folder / "sx37.wrd").write_text("0 3000 equipment\n3000 6000 subway\n6000 9000 making\n")
    corpus = read_words(tmp_path / "corpus")
    assert (corpus.name, corpus.words, corpus.speakers) == ("timit", ("making", "subway"), ("FCJF0", "FCJF0"))
    assert corpus.notes == (
        "23 of the 25 words are absent (walking, cooking, looking, working, biblical and 18 more)",
        "fewer than 7 speakers say some words: making has 1, subway has 1",
    )
    assert corpus.origin == "timit"
    assert read_words(tmp_path / "corpus", ["equipment"]).words == ("equipment",)
    (folder / "sx37.wrd").write_text("0 300 making\n")
    with pytest.raises(ValueError, match=r"'making' in train/dr1/fcjf0/sx37\.wav\[0:300\] cannot be used: .*got 300"):
        read_words(tmp_path / "corpus")
    with pytest.raises(ValueError, match="words must name at least one word"):
        read_words(tmp_path / "corpus", [])
    with pytest.raises(ValueError, match="nowhere does not exist"):
        read_words(tmp_path / "nowhere")

"""Makes ``music.npz``: pieces in four parts, composed by this program. Run ``python -m clockwork.data.make_music``."""

import itertools
from pathlib import Path

import numpy as np

SEED, PIECES = 1685, 180
MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 11)  # the leading note is raised in minor
# The degrees of the scale, from 0, that may follow each degree, with their weights.
FOLLOWS = {
    0: {1: 2, 3: 4, 4: 4, 5: 3, 2: 1}, 1: {4: 6, 6: 1, 3: 1}, 2: {5: 3, 3: 3}, 3: {4: 5, 0: 2, 1: 3, 6: 1},
    4: {0: 6, 5: 2, 3: 1}, 5: {1: 4, 3: 4, 4: 2, 2: 1}, 6: {0: 5},
}  # fmt: skip
CADENCES = (((1, 4, 0), 4), ((3, 4, 0), 4), ((0, 4), 2), ((3, 0), 1), ((4, 5), 1))
RANGES = ((60, 79), (55, 72), (48, 67), (40, 60))  # soprano, alto, tenor, bass
STEPS = 2  # steps per beat


def compose(rng: np.random.Generator) -> np.ndarray:
    """A piece, MIDI numbers ``(T, 4)``, soprano first."""
    tonic, scale = int(rng.integers(12)), (MAJOR, MINOR)[int(rng.random() < 0.4)]
    phrases = int(rng.integers(2, 5))
    rows, before = [], None
    for number in range(phrases):
        chords = progression(rng, last=number == phrases - 1)
        for place, degree in enumerate(chords):
            held = 2 if place == len(chords) - 1 else 1
            before = voicing(rng, tonic, scale, degree, before)
            rows += [(before, held * STEPS)]
    return ornamented(rng, rows, {(tonic + step) % 12 for step in scale})


def progression(rng: np.random.Generator, last: bool) -> list[int]:
    """The degrees of a phrase of eight chords, with a cadence at its end."""
    cadences = CADENCES[:2] if last else CADENCES
    weights = np.array([weight for _, weight in cadences], float)
    cadence = cadences[int(rng.choice(len(cadences), p=weights / weights.sum()))][0]
    chords = [0]
    while len(chords) < 8 - len(cadence):
        follows = FOLLOWS[chords[-1]]
        p = np.array(list(follows.values()), float)
        chords.append(int(rng.choice(list(follows), p=p / p.sum())))
    return [*chords, *cadence]


def voicing(
    rng: np.random.Generator, tonic: int, scale: tuple[int, ...], degree: int, before: tuple[int, ...] | None
) -> tuple[int, ...]:
    """The four notes of a chord that move least from those before, with the root in the bass, or at times the third."""
    tones = [(tonic + scale[(degree + third) % 7]) % 12 for third in (0, 2, 4)]
    bass = tones[int(rng.random() < 0.2)] if before is not None else tones[0]
    choices = [[note for note in range(low, high + 1) if note % 12 in tones] for low, high in RANGES[:3]]
    choices.append([note for note in range(*RANGES[3]) if note % 12 == bass])
    best, least = None, np.inf
    for notes in itertools.product(*choices):
        if not (notes[0] > notes[1] > notes[2] >= notes[3] and notes[0] - notes[1] <= 12 and notes[1] - notes[2] <= 12):
            continue
        if {note % 12 for note in notes} != set(tones):
            continue
        cost = rng.random()
        if before is None:
            cost += abs(notes[0] - 69) / 4
        else:
            moves = [abs(new - old) for new, old in zip(notes, before, strict=True)]
            cost += sum(moves[:3]) + 0.5 * moves[3] + 2 * (moves[0] == 0) + 20 * parallels(before, notes)
        if cost < least:
            best, least = notes, cost
    assert best is not None
    return best


def parallels(before: tuple[int, ...], after: tuple[int, ...]) -> int:
    """How many pairs of parts move in parallel fifths or octaves."""
    return sum(
        (before[i] - before[j]) % 12 in (0, 7) and (before[i] - before[j]) % 12 == (after[i] - after[j]) % 12
        and before[i] != after[i]
        for i, j in itertools.combinations(range(4), 2)
    )  # fmt: skip


def ornamented(rng: np.random.Generator, chords: list[tuple[tuple[int, ...], int]], tones: set[int]) -> np.ndarray:
    """The chords in steps; passing notes fill some of the thirds that a part moves by."""
    rows = []
    for (now, steps), (following, _) in itertools.pairwise([*chords, (chords[-1][0], 0)]):
        for step in range(steps):
            notes = list(now)
            if step == steps - 1 and steps == STEPS:
                for part in (0, 1, 2, 3):
                    gap = following[part] - now[part]
                    between = range(min(now[part], following[part]) + 1, max(now[part], following[part]))
                    passing = [n for n in between if n % 12 in tones]
                    if abs(gap) in (3, 4) and passing and rng.random() < (0.6 if part == 0 else 0.25):
                        notes[part] = passing[0]
            rows.append(notes)
    return np.array(rows, np.uint8)


def main() -> None:
    """Write the pieces beside this file."""
    pieces = [compose(np.random.default_rng((SEED, number))) for number in range(PIECES)]
    ends = np.cumsum([len(piece) for piece in pieces]).astype(np.int32)
    np.savez_compressed(Path(__file__).with_name("music.npz"), voices=np.concatenate(pieces), ends=ends)


if __name__ == "__main__":
    main()

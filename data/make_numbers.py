"""Makes the two embedded corpora: `numbers`, whose lengths correlate, and `repeat`, whose lengths do not.

    python data/make_numbers.py [--to DIR]

writes DIR/numbers/{train,valid,test}.{en,de} and DIR/repeat/{train,valid,test}.{source,target}. The script needs the
standard library alone and writes the same bytes everywhere: of `random`, it calls only `Random.random`, the one
method whose sequence Python promises to keep.

numbers: a number below a million in English words and in German, which is one long word:

    two hundred seventeen thousand forty-three      zweihundertsiebzehntausenddreiundvierzig

repeat: a count, a symbol and filler words that mean nothing; the target is the symbol, count times:

    three owl do re do mi                           owl owl owl
"""

import argparse
import random
from collections.abc import Iterator
from pathlib import Path

Pair = tuple[str, str]

# Both corpora together stay under 2 MB.
NUMBERS_SIZES = {"train": 11500, "valid": 500, "test": 500}
REPEAT_SIZES = {"train": 8000, "valid": 300, "test": 300}

# fmt: off
ENGLISH_SMALL = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]
ENGLISH_TENS = ["-", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
GERMAN_SMALL = [
    "null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn", "elf", "zwölf",
    "dreizehn", "vierzehn", "fünfzehn", "sechzehn", "siebzehn", "achtzehn", "neunzehn",
]
GERMAN_TENS = ["-", "zehn", "zwanzig", "dreißig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig"]
SYMBOLS = [
    "sun", "sky", "sea", "oak", "fox", "owl", "bee", "cat", "dog", "hen", "cow", "elk", "ant", "bat", "rat", "pig",
    "yak", "emu", "eel", "gnu",
]
FILLERS = ["do", "re", "mi", "fa", "so", "la", "ti", "um", "er", "ah", "oh", "eh"]
# fmt: on
MOST_REPEATS = 20
MOST_FILLERS = 38  # source lengths 3 to 40: the count, the symbol and 1 to 38 fillers


def english(number: int) -> str:
    """Spell a number from 0 to 999,999 in English words.

    Example:
      >>> english(217_043)
      'two hundred seventeen thousand forty-three'
    """
    _check_range(number)
    if number < 20:
        return ENGLISH_SMALL[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return ENGLISH_TENS[tens] + (f"-{ENGLISH_SMALL[ones]}" if ones else "")
    unit, name = (1000, "thousand") if number >= 1000 else (100, "hundred")
    count, rest = divmod(number, unit)
    return f"{english(count)} {name}" + (f" {english(rest)}" if rest else "")


def german(number: int) -> str:
    """Spell a number from 0 to 999,999 in German, in full ("einhundert", not "hundert").

    Example:
      >>> german(217_043)
      'zweihundertsiebzehntausenddreiundvierzig'
    """
    _check_range(number)
    if number < 20:
        return GERMAN_SMALL[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return (f"{_german_stem(ones)}und" if ones else "") + GERMAN_TENS[tens]
    unit, name = (1000, "tausend") if number >= 1000 else (100, "hundert")
    count, rest = divmod(number, unit)
    return _german_stem(count) + name + (german(rest) if rest else "")


def _german_stem(number: int) -> str:
    """The number before another word: a final "eins" loses its s (einundzwanzig, einhunderteintausend)."""
    word = german(number)
    return word[:-1] if word.endswith("eins") else word


def _check_range(number: int) -> None:
    if not 0 <= number < 1_000_000:
        raise ValueError(f"numbers are spelled from 0 to 999,999, got {number}")


def make_numbers(seed: int = 1) -> dict[str, list[Pair]]:
    """Make the `numbers` corpus: (English, German) pairs by split, all distinct."""
    rng = random.Random(seed)
    numbers = _distinct_numbers(sum(NUMBERS_SIZES.values()), rng)
    # The numbers to 20 hold words that no other has, so all are trained on: what is held out is their composition.
    numbers = [*range(21), *_shuffle([n for n in numbers if n > 20], rng)]
    splits = _cut(numbers, NUMBERS_SIZES)
    return {split: [(english(n), german(n)) for n in _shuffle(part, rng)] for split, part in splits.items()}


def _distinct_numbers(count: int, rng: random.Random) -> list[int]:
    """Distinct numbers, those to 20 among them: half are uniform in magnitude, half are more or less round."""
    numbers = dict.fromkeys(range(21))
    while len(numbers) < count:
        numbers[int(1_000_000 ** rng.random())] = None
        numbers[_round_number(rng)] = None
    return list(numbers)[:count]


def _round_number(rng: random.Random) -> int:
    """Six random digits, of which a random share is zero: without these, nearly all numbers would be long."""
    zeros = rng.random()
    return sum(10**place * int(10 * rng.random()) for place in range(6) if rng.random() >= zeros)


def make_repeat(seed: int = 2) -> dict[str, list[Pair]]:
    """Make the `repeat` corpus: (source, target) pairs by split, all sources distinct."""
    rng = random.Random(seed)
    splits = {}
    seen = set()
    for split, size in REPEAT_SIZES.items():
        lengths = _independent_lengths(size, rng)
        splits[split] = [_repeat_pair(repeats, fillers, seen, rng) for repeats, fillers in lengths]
    return splits


def _independent_lengths(size: int, rng: random.Random) -> list[tuple[int, int]]:
    """(repeats, fillers) pairs, uniform and uncorrelated.

    The points of a two-dimensional additive recurrence, shuffled: of 300 pairs drawn at random, the lengths would by
    chance correlate by 0.1 now and then. Source: M. Roberts, "The unreasonable effectiveness of quasirandom
    sequences", 2018.
    """
    plastic = 1.324717957244746
    points = [(i / plastic % 1, i / plastic**2 % 1) for i in range(1, size + 1)]
    return _shuffle([(1 + int(MOST_REPEATS * x), 1 + int(MOST_FILLERS * y)) for x, y in points], rng)


def _repeat_pair(repeats: int, fillers: int, seen: set[str], rng: random.Random) -> Pair:
    """One pair whose source is not among those seen; adds it to them."""
    while True:
        symbol = _choose(SYMBOLS, rng)
        source = " ".join([english(repeats), symbol, *(_choose(FILLERS, rng) for _ in range(fillers))])
        if source not in seen:
            seen.add(source)
            return source, " ".join([symbol] * repeats)


def _choose(words: list[str], rng: random.Random) -> str:
    return words[int(len(words) * rng.random())]


def _shuffle(items: list, rng: random.Random) -> list:
    return sorted(items, key=lambda _: rng.random())


def _cut(items: list, sizes: dict[str, int]) -> dict[str, list]:
    """Consecutive slices of the items, one a split."""
    rest = iter(items)
    return {split: [next(rest) for _ in range(size)] for split, size in sizes.items()}


def write(folder: Path, splits: dict[str, list[Pair]], suffixes: tuple[str, str]) -> Iterator[Path]:
    """Write one file a split and side, a line a pair, UTF-8, and yield their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, pairs in splits.items():
        for suffix, lines in zip(suffixes, zip(*pairs, strict=True), strict=True):
            path = folder / f"{split}.{suffix}"
            path.write_bytes("".join(f"{line}\n" for line in lines).encode())
            yield path


def main(arguments: list[str] | None = None) -> None:
    """Make both corpora."""
    parser = argparse.ArgumentParser(description="Makes the corpora `numbers` and `repeat`, the same bytes everywhere.")
    parser.add_argument("--to", type=Path, default=Path(__file__).parent, metavar="DIR", help="default: %(default)s")
    folder = parser.parse_args(arguments).to
    for path in write(folder / "numbers", make_numbers(), ("en", "de")):
        print(path)
    for path in write(folder / "repeat", make_repeat(), ("source", "target")):
        print(path)


if __name__ == "__main__":
    main()

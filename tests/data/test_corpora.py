"""The embedded corpora `numbers` and `repeat`, and the script that makes them."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from seq2split.corpus.parallel_text import read_parallel

DATA = Path(__file__).parents[2] / "data"
SUFFIXES = {"numbers": ("en", "de"), "repeat": ("source", "target")}
SIZES = {
    "numbers": {"train": 11500, "valid": 500, "test": 500},
    "repeat": {"train": 8000, "valid": 300, "test": 300},
}
SPLITS = ("train", "valid", "test")
NAMES = [f"{corpus}/{split}.{suffix}" for corpus in SIZES for split in SPLITS for suffix in SUFFIXES[corpus]]


def load_script():
    spec = importlib.util.spec_from_file_location("make_numbers", DATA / "make_numbers.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make = load_script()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    make.main(["--to", str(folder)])
    return folder


@pytest.fixture(scope="module")
def corpora():
    """The committed pairs by corpus and split."""

    def read(corpus, split):
        paths = {suffix: [DATA / corpus / f"{split}.{suffix}"] for suffix in SUFFIXES[corpus]}
        return list(zip(*read_parallel(paths).values(), strict=True))

    return {corpus: {split: read(corpus, split) for split in SPLITS} for corpus in SIZES}


@pytest.mark.parametrize(
    ("number", "english", "german"),
    [
        (0, "zero", "null"),
        (1, "one", "eins"),
        (2, "two", "zwei"),
        (6, "six", "sechs"),
        (7, "seven", "sieben"),
        (10, "ten", "zehn"),
        (11, "eleven", "elf"),
        (12, "twelve", "zwölf"),
        (13, "thirteen", "dreizehn"),
        (15, "fifteen", "fünfzehn"),
        (16, "sixteen", "sechzehn"),
        (17, "seventeen", "siebzehn"),
        (18, "eighteen", "achtzehn"),
        (19, "nineteen", "neunzehn"),
        (20, "twenty", "zwanzig"),
        (21, "twenty-one", "einundzwanzig"),
        (22, "twenty-two", "zweiundzwanzig"),
        (30, "thirty", "dreißig"),
        (36, "thirty-six", "sechsunddreißig"),
        (40, "forty", "vierzig"),
        (50, "fifty", "fünfzig"),
        (60, "sixty", "sechzig"),
        (66, "sixty-six", "sechsundsechzig"),
        (70, "seventy", "siebzig"),
        (77, "seventy-seven", "siebenundsiebzig"),
        (80, "eighty", "achtzig"),
        (90, "ninety", "neunzig"),
        (99, "ninety-nine", "neunundneunzig"),
        (100, "one hundred", "einhundert"),
        (101, "one hundred one", "einhunderteins"),
        (110, "one hundred ten", "einhundertzehn"),
        (111, "one hundred eleven", "einhundertelf"),
        (121, "one hundred twenty-one", "einhunderteinundzwanzig"),
        (212, "two hundred twelve", "zweihundertzwölf"),
        (700, "seven hundred", "siebenhundert"),
        (1000, "one thousand", "eintausend"),
        (1001, "one thousand one", "eintausendeins"),
        (1100, "one thousand one hundred", "eintausendeinhundert"),
        (7016, "seven thousand sixteen", "siebentausendsechzehn"),
        (11000, "eleven thousand", "elftausend"),
        (16017, "sixteen thousand seventeen", "sechzehntausendsiebzehn"),
        (21000, "twenty-one thousand", "einundzwanzigtausend"),
        (31031, "thirty-one thousand thirty-one", "einunddreißigtausendeinunddreißig"),
        (100000, "one hundred thousand", "einhunderttausend"),
        (101000, "one hundred one thousand", "einhunderteintausend"),
        (101101, "one hundred one thousand one hundred one", "einhunderteintausendeinhunderteins"),
        (217043, "two hundred seventeen thousand forty-three", "zweihundertsiebzehntausenddreiundvierzig"),
        (300005, "three hundred thousand five", "dreihunderttausendfünf"),
        (
            999999,
            "nine hundred ninety-nine thousand nine hundred ninety-nine",
            "neunhundertneunundneunzigtausendneunhundertneunundneunzig",
        ),
    ],
)
def test_spelling(number, english, german):
    assert make.english(number) == english
    assert make.german(number) == german


@pytest.mark.parametrize("spell", [make.english, make.german])
@pytest.mark.parametrize("number", [-1, 1_000_000])
def test_spelling_out_of_range(spell, number):
    with pytest.raises(ValueError, match=f"from 0 to 999,999, got {number}"):
        spell(number)


@pytest.mark.parametrize("spell", [make.english, make.german])
def test_spelling_tells_all_numbers_apart(spell):
    numbers = range(0, 1_000_000, 7)
    assert len({spell(n) for n in numbers}) == len(numbers)


def test_makes_these_files_and_no_others(made):
    assert sorted(str(p.relative_to(made)) for p in made.rglob("*.*")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_committed_file_is_what_the_script_makes(made, name):
    assert (DATA / name).read_bytes() == (made / name).read_bytes(), "run data/make_numbers.py"


def test_committed_files_are_small():
    assert sum((DATA / name).stat().st_size for name in NAMES) < 2_000_000


@pytest.mark.parametrize("corpus", SIZES)
def test_sizes(corpora, corpus):
    assert {split: len(pairs) for split, pairs in corpora[corpus].items()} == SIZES[corpus]


@pytest.mark.parametrize("corpus", SIZES)
def test_sources_are_distinct_within_and_between_splits(corpora, corpus):
    sources = [source for pairs in corpora[corpus].values() for source, _ in pairs]
    assert len(sources) == len(set(sources))


@pytest.mark.parametrize("corpus", SIZES)
def test_training_knows_every_word(corpora, corpus):
    def words(split):
        return {word for source, _ in corpora[corpus][split] for word in source.replace("-", " ").split()}

    assert words("valid") | words("test") <= words("train")


@pytest.mark.parametrize("split", SPLITS)
def test_numbers_are_translations(corpora, split):
    # An independent reading of the English, word by word; the German is checked against the table of spellings.
    values = {make.english(n): n for n in (*range(20), *range(20, 100, 10))}
    for source, target in corpora["numbers"][split]:
        thousands, _, ones = source.rpartition("thousand")
        number = 1000 * below_thousand(thousands, values) + below_thousand(ones, values)
        assert target == make.german(number)


def below_thousand(words, values):
    hundreds, _, rest = words.rpartition("hundred")
    return 100 * values.get(hundreds.strip(), 0) + sum(values[word] for word in rest.replace("-", " ").split())


@pytest.mark.parametrize("split", SPLITS)
def test_repeat_targets_follow_from_their_sources(corpora, split):
    counts = {make.english(n): n for n in range(1, 21)}
    for source, target in corpora["repeat"][split]:
        count, symbol, *fillers = source.split(" ")
        assert target == " ".join([symbol] * counts[count])
        assert 3 <= len(source.split(" ")) <= 40
        assert not {symbol, *target.split(" ")} & set(fillers)


@pytest.mark.parametrize("split", SPLITS)
def test_lengths_of_numbers_correlate(corpora, split):
    lengths = np.array([(len(source), len(target)) for source, target in corpora["numbers"][split]])  # characters
    assert np.corrcoef(lengths.T)[0, 1] > 0.9


@pytest.mark.parametrize("split", SPLITS)
def test_lengths_of_repeat_are_independent(corpora, split):
    lengths = np.array([(len(source.split()), len(target.split())) for source, target in corpora["repeat"][split]])
    assert abs(np.corrcoef(lengths.T)[0, 1]) < 0.05
    assert set(lengths[:, 0]) == set(range(3, 41))
    assert set(lengths[:, 1]) == set(range(1, 21))


@pytest.mark.parametrize("split", SPLITS)
def test_short_and_long_numbers_are_both_frequent(corpora, split):
    words = np.array([len(source.split()) for source, _ in corpora["numbers"][split]])
    assert np.mean(words <= 3) > 0.1
    assert np.mean(words == 7) > 0.25

"""Keys at odds with each other."""

import pytest
from configurations import DATA, only_problem_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "[model]\ntied_embeddings = true\nunits = 8\n",
            "run.toml: got model.tied_embeddings = true, model.embedding = 256, model.units = 8; expected embedding",
        ),
        (
            "[vocabulary]\ntarget_model = '/t.model'\n",
            'got vocabulary.joint = true, vocabulary.target_model = "/t.model"; expected no target_model',
        ),
        (
            "[search]\nmin_length_ratio = 2\nmax_length_ratio = 1.5\n",
            "got search.min_length_ratio = 2.0, search.max_length_ratio = 1.5; expected no minimum above the maximum",
        ),
    ],
)
def test_each_rule_names_the_keys_and_the_mend(write, text, expected):
    problem = only_problem_of(write(text))
    assert expected in problem
    assert "run.toml: " in problem


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('"train.en"', '["/a", "/b"]', 'data.train_source = ["/a", "/b"], data.train_target = ["'),
        ('["valid.de"]', '["/a", "/b"]', 'data.valid_target = ["/a", "/b"]; expected as many source as target files'),
    ],
)
def test_each_rule_of_the_data(write, old, new, expected):
    assert old in DATA
    assert expected in only_problem_of(write(data=DATA.replace(old, new)))


def test_rules_are_not_checked_on_values_that_are_invalid(write):
    assert "model.units: got" in only_problem_of(write("[model]\ntied_embeddings = true\nunits = 'x'\nembedding = 8\n"))

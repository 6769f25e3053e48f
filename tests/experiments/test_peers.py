"""The measured model in PyTorch and JAX is ours: losses and gradients agree, and a step learns."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import seq2split as s2s
from seq2split.models import RecurrentDecoder, RecurrentEncoder, TransformerDecoder, TransformerEncoder
from seq2split.split.sequences import Sequences

sys.path.append(str(Path(__file__).parents[2] / "experiments"))
from efficiency import peer_choice, plan
from efficiency.peer_process import PeerError, PeerProcess
from efficiency.weights import variables_of, weights_of

SOURCES, TARGETS, EMBEDDING, UNITS, BOS = 13, 11, 5, 6, 2
LAYERS, HEADS, FEEDFORWARD = 2, 3, 10
MISSING = peer_choice.left_out(plan.FULL)


def needs(name):
    return pytest.mark.skipif(name in MISSING, reason=f"{name} {MISSING.get(name)}")


def make_torch(weights, precision="float32", shapes=None):
    given = {"precision": precision, "threads": 2, "shapes": shapes}
    return start("TorchSubject", weights, given, {"OMP_WAIT_POLICY": "passive"})


def make_compiled(weights):
    return make_torch(weights, shapes="dynamic")


def make_jax(weights):
    return start("JaxSubject", weights)


def start(name, weights, given=None, environment=None):
    options = {"bos": BOS, "learning_rate": 1e-2, "heads": heads_of(weights)} | (given or {})
    return PeerProcess(f"efficiency.peers:{name}", weights, options, environment)


def heads_of(weights):
    return HEADS if "encoder/final_norm/gamma" in weights else None


def recurrent(bidirectional=False, layers=1, **options):
    encoder = RecurrentEncoder(SOURCES, EMBEDDING, UNITS, layers=layers, bidirectional=bidirectional, name="encoder")
    return encoder, RecurrentDecoder(
        TARGETS, UNITS, BOS, units=UNITS, name="decoder", **{"embedding": EMBEDDING, **options}
    )


def transformer(**options):
    inner = LAYERS, HEADS, FEEDFORWARD
    encoder = TransformerEncoder(SOURCES, UNITS, *inner, name="encoder")
    return encoder, TransformerDecoder(TARGETS, UNITS, BOS, UNITS, *inner, name="decoder", **options)


every_peer = pytest.mark.parametrize(
    "make",
    [
        pytest.param(make_torch, id="torch", marks=needs("torch")),
        pytest.param(make_compiled, id="torch-compile", marks=needs("torch-compile")),
        pytest.param(make_jax, id="jax", marks=needs("jax")),
    ],
)


@pytest.fixture(scope="module", params=[recurrent, transformer], ids=lambda make: make.__name__)
def layers(request):
    """Every weight is random, so that no bias hides behind zeros."""
    encoder, decoder = request.param()
    rng = np.random.default_rng(1)
    for variable in encoder.trainable_variables + decoder.trainable_variables:
        variable.assign(rng.normal(size=variable.shape) * 0.5)
    return encoder, decoder


@pytest.fixture(scope="module")
def batch():
    """Sources and targets of independent lengths, among them the shortest; padded with zeros."""
    rng = np.random.default_rng(2)
    lengths = {"source": [7, 3, 1, 5, 4], "target": [2, 6, 4, 1, 5]}
    sizes = {"source": SOURCES, "target": TARGETS}
    return {side: padded(rng, np.array(each, np.int32), sizes[side]) for side, each in lengths.items()}


def padded(rng, lengths, vocabulary):
    values = rng.integers(0, vocabulary, [len(lengths), lengths.max()])
    return Sequences(np.where(np.arange(lengths.max()) < lengths[:, None], values, 0).astype(np.int32), lengths)


@pytest.fixture(scope="module")
def expected(layers, batch):
    """The loss and gradients of ours, named."""
    encoder, decoder = layers
    model = s2s.SplitModel(
        [
            s2s.Node(s2s.Part(encoder), ["source"], s2s.Buckets([7])),
            s2s.Node(s2s.Part(decoder), ["encoder", "target"], s2s.Buckets([6]), loss=True),
        ]
    )
    loss, gradients = model.loss_and_gradients(batch)
    found = {
        id(variable): np.array(gradient)
        for layer in layers
        for variable, gradient in zip(layer.trainable_variables, map(dense, gradients[layer.name]), strict=True)
    }
    return float(loss), {name: found[id(variable)] for name, variable in variables_of(*layers).items()}


def dense(gradient):
    import tensorflow as tf

    return tf.convert_to_tensor(gradient)


@every_peer
def test_losses_and_gradients_are_those_of_ours(make, layers, batch, expected):
    loss, gradients = make(weights_of(*layers)).loss_and_gradients(batch)
    assert loss == pytest.approx(expected[0], rel=1e-5)
    assert gradients.keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        np.testing.assert_allclose(
            gradients[name], gradient, rtol=1e-4, atol=1e-4 * np.abs(gradient).max(), err_msg=name
        )


@every_peer
def test_steps_lower_the_loss_and_leave_the_given_weights_alone(make, layers, batch, expected):
    weights = weights_of(*layers)
    subject = make(weights)
    losses = [subject.loss_and_gradients(batch)[0]]
    for _ in range(3):
        assert subject.step(batch) > 0
        losses.append(subject.loss_and_gradients(batch)[0])
    assert losses[0] == pytest.approx(expected[0], rel=1e-5)
    assert all(later < earlier for earlier, later in pairwise(losses))
    for name, weight in weights_of(*layers).items():
        np.testing.assert_array_equal(weights[name], weight)


@every_peer
def test_a_step_moves_every_weight(make, layers, batch):
    """The first step of Adam moves each number by the learning rate, against the sign of its gradient."""
    subject = make(weights_of(*layers))
    _, gradients = subject.loss_and_gradients(batch)
    subject.step(batch)
    for name, weight in subject.weights().items():
        moved = weight - weights_of(*layers)[name]
        clear = np.abs(gradients[name]) > 1e-4
        assert clear.any(), name
        np.testing.assert_allclose(moved[clear], -1e-2 * np.sign(gradients[name][clear]), rtol=5e-3, err_msg=name)


@needs("torch")
def test_bfloat16_is_near_and_not_float32(layers, batch, expected):
    try:
        loss, gradients = make_torch(weights_of(*layers), "mixed_bfloat16").loss_and_gradients(batch)
    except PeerError as error:
        if "primitive descriptor" not in str(error):
            raise
        pytest.skip(f"this processor's oneDNN has no LSTM in bfloat16: {error}")
    assert loss == pytest.approx(expected[0], rel=2e-2)
    assert gradients.keys() == expected[1].keys()
    for name, wanted in expected[1].items():
        assert np.linalg.norm(gradients[name] - wanted) < 0.5 * np.linalg.norm(wanted), name  # others have 1.4
    found, wanted = (each["decoder/output_projection"] for each in (gradients, expected[1]))
    assert not np.allclose(found, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


@needs("torch")
def test_an_unknown_precision_is_refused():
    with pytest.raises(PeerError, match="expected one of"):
        make_torch({}, "float16")


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (recurrent, {"bidirectional": True}),
        (recurrent, {"layers": 2}),
        (recurrent, {"cell": "gru"}),
        (recurrent, {"attention": "bahdanau"}),
        (recurrent, {"tied_embeddings": True, "embedding": UNITS}),
        (transformer, {"norm": "post"}),
        (transformer, {"positions": "learned"}),
        (transformer, {"tied_embeddings": True}),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_another_model_is_refused(make, options):
    with pytest.raises(ValueError, match="the peers have the variables"):
        weights_of(*make(**options))

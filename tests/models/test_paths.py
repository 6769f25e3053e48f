"""The paths of variables, which are public names: people freeze and group by them."""

from __future__ import annotations

from seq2split.models import RecurrentDecoder, RecurrentEncoder, TransformerDecoder, TransformerEncoder

DENSE, NORM, RECURRENT = ("kernel", "bias"), ("gamma", "beta"), ("kernel", "recurrent_kernel", "bias")


def under(place, names):
    return [f"{place}/{name}" for name in names]


def test_recurrent():
    encoder = RecurrentEncoder(9, 4, 8, name="encoder")
    decoder = RecurrentDecoder(9, [8, 8], 2, 4, 8, 2, cell="gru", attention="bahdanau", name="decoder")
    attention = ("kernel", "query_kernel", "bias", "score")
    assert [variable.path for variable in (*encoder.variables, *decoder.variables)] == [
        "encoder/embeddings",
        *under("encoder/lstm_0", RECURRENT),
        *under("encoder/lstm_0_reverse", RECURRENT),
        "decoder/embeddings",
        "decoder/output_projection",
        "decoder/output_bias",
        *under("decoder/gru_0", (*RECURRENT, "recurrent_bias")),
        *under("decoder/gru_1", (*RECURRENT, "recurrent_bias")),
        *under("decoder/attention", attention),
        *under("decoder/attention2", attention),
        *under("decoder/bridge", DENSE),
        *under("decoder/combine", DENSE),
    ]


def test_transformer():
    encoder = TransformerEncoder(9, 8, 2, 2, 12, positions="learned", name="encoder")
    decoder = TransformerDecoder(9, [8, 8], 2, 8, 1, 2, 12, name="decoder")
    expected = ["encoder/embeddings", "encoder/position_embeddings"]
    for depth in range(2):
        layer = f"encoder/layer_{depth}"
        for name in ("self_attention/query_key_value", "self_attention/output", "feedforward_in", "feedforward_out"):
            expected += under(f"{layer}/{name}", DENSE)
        for name in ("self_attention_norm", "feedforward_norm"):
            expected += under(f"{layer}/{name}", NORM)
    expected += [*under("encoder/final_norm", NORM), "decoder/embeddings", "decoder/output_projection"]
    expected += ["decoder/output_bias"]
    cross = [
        f"{name}/{each}"
        for name in ("cross_attention", "cross_attention2")
        for each in ("query", "key_value", "output")
    ]
    for name in (
        "self_attention/query_key_value",
        "self_attention/output",
        *cross,
        "feedforward_in",
        "feedforward_out",
    ):
        expected += under(f"decoder/layer_0/{name}", DENSE)
    for name in ("self_attention_norm", "cross_attention_norm", "cross_attention2_norm", "feedforward_norm"):
        expected += under(f"decoder/layer_0/{name}", NORM)
    expected += under("decoder/final_norm", NORM)
    assert [variable.path for variable in (*encoder.variables, *decoder.variables)] == expected

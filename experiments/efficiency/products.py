"""The matrix products of a training step alone: what no arrangement of graphs can save."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import tensorflow as tf

from efficiency.plan import Sizes
from seq2split.engine.graph_function import GraphFunction
from seq2split.split.threads import Workers

GATES = {"lstm": 4, "gru": 3}


class Product(NamedTuple):
    """A product `[batch, rows, inner]` times `[batch, inner, columns]`.

    Attributes:
        batch: 0 for a plain one.
        rows: Of the result.
        inner: What is summed over.
        columns: Of the result.
        times: How often it runs, on other numbers each time.
    """

    batch: int
    rows: int
    inner: int
    columns: int
    times: int = 1

    @property
    def operations(self) -> int:
        """Multiplications and additions."""
        return 2 * max(1, self.batch) * self.rows * self.inner * self.columns * self.times


def encoder_products(sizes: Sizes, rows: int, source: int) -> list[Product]:
    """The products of the encoder's forward and backward over one group of rows of a padded length."""
    if sizes.model == "transformer":
        return sizes.layers * [*_self_attention(sizes, rows, source), *_feedforward(sizes, rows * source)]
    return _recurrence(sizes, rows, source)


def decoder_products(sizes: Sizes, rows: int, source: int, target: int) -> list[Product]:
    """Likewise the decoder's; `source` is the time of the memory."""
    of_model = _transformer_decoder if sizes.model == "transformer" else _recurrent_decoder
    return [*of_model(sizes, rows, source, target), *_layer(rows * target, sizes.units, sizes.vocabulary)]


def runner(
    sizes: Sizes, precision: str, shapes: Iterable[tuple[int, ...]], threads: int
) -> Callable[[], list[list[tf.Tensor]]]:
    """A function that runs the products of one step.

    Args:
        sizes: Of the model.
        precision: The Keras policy.
        shapes: `(rows, source)` for each group of the encoder, `(rows, source, target)` for each of the decoder.
        threads: How many groups run at once.

    Returns:
        The function; when it returns, all are done. It returns a number for each group, the sum of one entry of each
        product, so that none is left out.
    """
    dtype = tf.bfloat16 if precision == "mixed_bfloat16" else tf.float32
    groups = [products_of(sizes, shape) for shape in shapes]
    groups.sort(key=lambda products: -sum(product.operations for product in products))
    runs = [_compile(products, dtype) for products in groups]
    workers = Workers(threads)
    return lambda: workers.each(lambda run: run(), runs)


def products_of(sizes: Sizes, shape: tuple[int, ...]) -> list[Product]:
    """Those of one group, as in `runner`."""
    return encoder_products(sizes, *shape) if len(shape) == 2 else decoder_products(sizes, *shape)


def _recurrent_decoder(sizes: Sizes, rows: int, source: int, target: int) -> list[Product]:
    """Without the projection onto the vocabulary."""
    units = sizes.units
    return [
        *_layer(rows, units, units),  # the first state
        *_recurrence(sizes, rows, target),
        *_layer(rows * source, units, units),  # the keys of attention
        *_attention(rows, target, units, source),
        *_layer(rows * target, 2 * units, units),
    ]


def _transformer_decoder(sizes: Sizes, rows: int, source: int, target: int) -> list[Product]:
    """Likewise."""
    units = sizes.units
    reading = [
        *_layer(rows * target, units, units),  # the queries
        *_layer(rows * source, units, 2 * units),  # the keys and values
        *_attention(rows * sizes.heads, target, units // sizes.heads, source),
        *_layer(rows * target, units, units),
    ]
    return sizes.layers * [*_self_attention(sizes, rows, target), *reading, *_feedforward(sizes, rows * target)]


def _self_attention(sizes: Sizes, rows: int, time: int) -> list[Product]:
    units = sizes.units
    return [
        *_layer(rows * time, units, 3 * units),  # the queries, keys and values
        *_attention(rows * sizes.heads, time, units // sizes.heads, time),
        *_layer(rows * time, units, units),
    ]


def _feedforward(sizes: Sizes, positions: int) -> list[Product]:
    return [*_layer(positions, sizes.units, sizes.feedforward), *_layer(positions, sizes.feedforward, sizes.units)]


def _attention(batch: int, queries: int, units: int, time: int) -> list[Product]:
    """Score and contexts, each with one forward and two backward."""
    scores, contexts = (Product(batch, queries, units, time), Product(batch, queries, time, units))
    return [scores, contexts, Product(batch, time, queries, units)] * 2


def _layer(positions: int, inner: int, outer: int) -> list[Product]:
    """A dense layer: its outputs, its inputs' cotangents, its kernel's gradient."""
    return [
        Product(0, positions, inner, outer),
        Product(0, positions, outer, inner),
        Product(0, inner, positions, outer),
    ]


def _recurrence(sizes: Sizes, rows: int, time: int) -> list[Product]:
    """A recurrent layer: one product each for all inputs, and two at each step; one for the recurrent gradient."""
    units, columns = sizes.units, sizes.units * GATES[sizes.model]
    steps = [Product(0, rows, units, columns, time), Product(0, rows, columns, units, time)]
    return [*_layer(rows * time, units, columns), *steps, Product(0, units, rows * time, columns)]


def _compile(products: list[Product], dtype: tf.DType) -> Callable[[], list[tf.Tensor]]:
    """One graph of the products of a group, on numbers of its own."""
    factors = [factor for product in products for factor in _factors(product, dtype)]

    def run(*factors):
        factors, ends = iter(factors), []
        for product in products:
            right = next(factors)
            ends += [tf.reshape(tf.matmul(next(factors), right), [-1])[0] for _ in range(product.times)]
        return tf.add_n(ends)

    specs = [tf.TensorSpec(factor.shape, factor.dtype) for factor in factors]
    compiled = GraphFunction(tf.function(run, autograph=False).get_concrete_function(*specs), [])
    return lambda: compiled(factors)


def _factors(product: Product, dtype: tf.DType) -> list[tf.Tensor]:
    """The right factor, and as many left ones as the product runs: of the same two, the graph would run it once."""
    batch, rows, inner, columns, times = product
    shapes = [[batch, inner, columns], *[[batch, rows, inner]] * times]
    return [
        tf.cast(tf.random.stateless_uniform(shape if batch else shape[1:], [1, at], -1.0), dtype)
        for at, shape in enumerate(shapes)
    ]

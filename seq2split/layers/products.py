"""Matrix products made cheap: a bias as one more column, and sizes that matrix units and caches like."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

_BLOCK = 32  # oneDNN's kernels want a multiple: a product over 257 columns takes a sixth longer than one over 288
_COLLIDING = 512  # columns, 2 kB of float32: rows a multiple of that apart fall on the same few lines of a cache


def widened(matrix: tf.Tensor, vectors: Sequence[tf.Tensor], axis: int, dtype: str) -> tf.Tensor:
    """Return a matrix with further columns or rows, and zeros up to a multiple of 32 of them.

    A product of two widened matrices adds the products of what they were widened by: a bias costs the other factor a
    column of ones. Added to the product itself it costs another pass over the result, and where that is as wide as a
    vocabulary, as much again as the product.

    Args:
        matrix: `[rows, columns]`.
        vectors: The new columns, each `[rows]`, or rows, each `[columns]`.
        axis: 0 for further rows, 1 for further columns.
        dtype: The dtype of the result.

    Returns:
        The wider matrix.

    Example:
        >>> import tensorflow as tf
        >>> widened(tf.ones([2, 3]), [tf.zeros([2])], axis=1, dtype="float32").shape.as_list()
        [2, 32]
    """
    zeros = [-(matrix.shape[axis] + len(vectors)) % _BLOCK]
    zeros.insert(1 - axis, tf.shape(matrix)[1 - axis])
    parts = [matrix, tf.stack(vectors, axis=axis), tf.zeros(zeros, matrix.dtype)]
    return tf.concat([tf.cast(part, dtype) for part in parts], axis=axis)


def spread(columns: int) -> int:
    """Return the number of columns that a matrix should have in place of those, so that its rows don't collide.

    Where all rows begin on the same lines of a cache, each evicts the others: on a processor without AVX-512 a product
    that writes 1,024 columns takes twice as long as one that writes 1,056.

    Args:
        columns: The number of columns that are needed.

    Example:
        >>> spread(1024), spread(768)
        (1056, 768)
    """
    return columns if columns % _COLLIDING else columns + _BLOCK

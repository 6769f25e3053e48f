"""Softmax cross-entropy over a vocabulary, fused with the projection onto it.

A batch has thousands of positions and the vocabulary thousands of pieces: every pass over the logits costs as much as
the recurrent layers of an encoder. Here two operations pass over them in the forward, the product and the softmax, and
two in the backward, its two products. What the label and label smoothing add is of rank one, and is added to the
results instead: with probabilities `p`, label `y`, smoothing `e` and `V` pieces the gradient of a position's loss with
respect to its logits is `p - (1 - e) * onehot(y) - e / V`, whose products with the features and the kernel are the
products of `p`, less rows of the one or the other, less a mean.

The backward reads `p`, which is as large as the logits. Where these would take more than 128 MiB, the vocabulary is
gone through in chunks, one after the other, and the backward computes the logits again: one product more, and memory
that no vocabulary exceeds. (In chunks of positions each would go through the whole kernel, and add to its whole
gradient, which took half as long again.) A graph of any number of rows is cut as for 1,024 positions.

Label smoothing: Szegedy et al. (2016), https://arxiv.org/abs/1512.00567.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from seq2split.layers.products import widened

_MOST_BYTES = 2**27  # of logits at once: those of 4,194 positions and 8,000 pieces in float32, or 524 and 64,000
_USUAL = 1024  # positions of a graph that takes any number: a batch of 4,096 on two sides and two threads
_LEAST = 1e-37  # the least probability that every float type but float16 holds in full precision


Products = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, ...]]
"""Takes the features times the cotangents of the losses, and these cotangents; returns what `_products` returns."""


def projected_logits(features: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor, compute_dtype: str) -> tf.Tensor:
    """Return the logits `features @ kernel^T + bias` whose softmax `projected_cross_entropy` takes.

    Args:
        features: `[positions, units]`, float.
        kernel: `[classes, units]`, of any float dtype.
        bias: `[classes]`, in the dtype of the result.
        compute_dtype: The dtype of the product.

    Returns:
        `[positions, classes]`.

    Example:
        >>> import tensorflow as tf
        >>> projected_logits(tf.ones([1, 3]), tf.ones([2, 3]), tf.constant([0.0, 0.5]), "float32").numpy().tolist()
        [[3.0, 3.5]]
    """
    features, kernel = (tf.cast(factor, compute_dtype) for factor in (features, kernel))
    return tf.cast(tf.matmul(features, kernel, transpose_b=True), bias.dtype) + bias


def projected_cross_entropy(
    features: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor, labels: tf.Tensor, *, smoothing: float, compute_dtype: str
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the loss of each position, whose logits are `features @ kernel^T + bias`.

    Args:
        features: `[positions, units]`, float.
        kernel: `[classes, units]`, of the same dtype.
        bias: `[classes]`, likewise.
        labels: `[positions]`, integers.
        smoothing: The probability that is spread over all classes; 0 for none.
        compute_dtype: The dtype of the products and the softmax. In bfloat16 a probability, and so the loss, is good
            to 0.4 %.

    Returns:
        The smoothed loss, which carries the gradient, and the negative log-likelihood in nats, which is only reported;
        each `[positions]`, in the dtype of `features`.

    Example:
        >>> import tensorflow as tf
        >>> ones, zeros = tf.ones([1, 3]), tf.zeros([4])
        >>> loss, nll = projected_cross_entropy(
        ...     ones, tf.ones([4, 3]), zeros, tf.constant([2]), smoothing=0.1, compute_dtype="float32"
        ... )
        >>> [round(float(x[0]), 4) for x in (loss, nll)]  # log(4)
        [1.3863, 1.3863]
    """
    classes, dtype = kernel.shape[0], features.dtype
    chunks = _chunks(classes, features.shape[0], tf.as_dtype(compute_dtype).size)

    @tf.custom_gradient
    def losses(features, kernel, bias):
        wide_features = widened(features, [tf.ones_like(features[:, 0])], 1, compute_dtype)
        factors = wide_features, widened(kernel, [bias], 1, compute_dtype), tf.cast(kernel, compute_dtype)
        softmax = (
            _softmax(*factors, labels, dtype)
            if len(chunks) == 1
            else _softmax_in_chunks(*factors, labels, dtype, chunks)
        )
        nll, products = softmax
        loss, label_kernel = nll, tf.gather(kernel, labels)
        if smoothing:
            mean_kernel = tf.reduce_mean(kernel, axis=0)
            label_logit = tf.reduce_sum(features * label_kernel, axis=1) + tf.gather(bias, labels)
            mean_logit = tf.linalg.matvec(features, mean_kernel) + tf.reduce_mean(bias)
            loss = nll + smoothing * (label_logit - mean_logit)

        def backward(loss_ct, nll_ct):
            scaled = loss_ct[:, None] * features
            target = (1.0 - smoothing) * label_kernel + smoothing * mean_kernel if smoothing else label_kernel
            with_kernel, *with_cotangents = products(tf.cast(scaled, compute_dtype), tf.cast(loss_ct, compute_dtype))
            features_ct = loss_ct[:, None] * (with_kernel - target)
            kernel_ct, bias_ct = map(less_targets, with_cotangents, (scaled, loss_ct))
            return features_ct, kernel_ct, bias_ct

        def less_targets(total, values):
            """Subtract the smoothed targets' products with values `[positions, ...]` from `total [classes, ...]`."""
            if smoothing:
                total -= smoothing / classes * tf.reduce_sum(values, axis=0)
                values = (1.0 - smoothing) * values
            return tf.tensor_scatter_nd_sub(total, labels[:, None], values)

        return (loss, nll), backward

    return losses(features, kernel, bias)


def _softmax(
    wide_features: tf.Tensor, wide_kernel: tf.Tensor, kernel: tf.Tensor, labels: tf.Tensor, dtype: tf.DType
) -> tuple[tf.Tensor, Products]:
    """Return the negative log-likelihood of each position, and the products of the probabilities for the backward.

    Args:
        wide_features: The features widened by ones, in the compute dtype.
        wide_kernel: The kernel widened by the bias, likewise.
        kernel: The kernel, likewise.
        labels: `[positions]`.
        dtype: The dtype of the results.
    """
    logits = tf.matmul(wide_features, wide_kernel, transpose_b=True)
    probabilities = tf.nn.softmax(logits)

    def at_labels(values):
        return tf.cast(tf.gather(values, labels, batch_dims=1), dtype)

    likelihood = at_labels(probabilities)
    nll = tf.cond(
        tf.reduce_all(likelihood > _LEAST),
        lambda: -tf.math.log(likelihood),
        lambda: tf.reduce_logsumexp(tf.cast(logits, dtype), axis=1) - at_labels(logits),
    )
    return nll, lambda scaled, loss_ct: _products(probabilities, kernel, scaled, loss_ct, dtype)


def _softmax_in_chunks(
    wide_features: tf.Tensor,
    wide_kernel: tf.Tensor,
    kernel: tf.Tensor,
    labels: tf.Tensor,
    dtype: tf.DType,
    chunks: list[slice],
) -> tuple[tf.Tensor, Products]:
    """Return what `_softmax` returns, from the logits of one chunk of classes at a time."""

    def logits(chunk):
        return tf.cast(tf.matmul(wide_features, wide_kernel[chunk], transpose_b=True), dtype)

    def normalizer_and_label(chunk, before):
        chunk_logits, place = logits(chunk), labels - chunk.start
        is_inside = (place >= 0) & (labels < chunk.stop)
        label_logit = tf.gather(chunk_logits, tf.where(is_inside, place, 0), batch_dims=1)
        label_logit = tf.where(is_inside, label_logit, before[1] if before else tf.zeros_like(label_logit))
        return tf.reduce_logsumexp(chunk_logits, axis=1), label_logit

    found = _in_turn(normalizer_and_label, chunks)
    normalizer = tf.reduce_logsumexp(tf.stack([each for each, _ in found]), axis=0)

    def products(scaled, loss_ct):
        def of_chunk(chunk, before):
            probabilities = tf.cast(tf.exp(logits(chunk) - normalizer[:, None]), kernel.dtype)
            with_kernel, *others = _products(probabilities, kernel[chunk], scaled, loss_ct, dtype)
            return with_kernel + before[0] if before else with_kernel, *others

        found = _in_turn(of_chunk, chunks)
        _, with_features, with_ct = zip(*found, strict=True)
        return found[-1][0], tf.concat(with_features, 0), tf.concat(with_ct, 0)

    return normalizer - found[-1][1], products


def _products(
    probabilities: tf.Tensor, kernel: tf.Tensor, scaled: tf.Tensor, loss_ct: tf.Tensor, dtype: tf.DType
) -> tuple[tf.Tensor, ...]:
    """Return the probabilities' products: with the kernel, with the scaled features, and with the cotangents."""
    with_kernel = tf.matmul(probabilities, kernel)
    with_features = tf.matmul(probabilities, scaled, transpose_a=True)
    with_ct = tf.matmul(loss_ct[None], probabilities)[0]
    return tuple(tf.cast(each, dtype) for each in (with_kernel, with_features, with_ct))


def _chunks(classes: int, positions: int | None, itemsize: int) -> list[slice]:
    """Return chunks of about equally many classes, whose logits don't take too many bytes."""
    count = -(-classes * (positions or _USUAL) * itemsize // _MOST_BYTES)
    size = -(-classes // count)
    return [slice(begin, min(begin + size, classes)) for begin in range(0, classes, size)]


def _in_turn(run: Callable[[slice, Any], Any], chunks: list[slice]) -> list:
    """Run a function of a chunk, and of what it has found on the one before, on each when it has ended on that one.

    TensorFlow would else begin with all at once, and hold what each of them makes on the way.
    """
    found: list = []
    for chunk in chunks:
        with tf.control_dependencies(tf.nest.flatten(found[-1:])):
            found.append(run(chunk, found[-1] if found else None))
    return found

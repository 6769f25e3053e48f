"""Softmax cross-entropy over a vocabulary, fused with the projection onto it.

A batch has thousands of positions and the vocabulary thousands of pieces: every pass over the logits costs as much as
the recurrent layers of an encoder. Here two operations pass over them in the forward, the product and the softmax, and
two in the backward, its two products. What the label and label smoothing add is of rank one, and is added to the
results instead: with probabilities `p`, label `y`, smoothing `e` and `V` pieces the gradient of a position's loss with
respect to its logits is `p - (1 - e) * onehot(y) - e / V`, whose products with the features and the kernel are the
products of `p`, less rows of the one or the other, less a mean.

Label smoothing: Szegedy et al. (2016), https://arxiv.org/abs/1512.00567.
"""

from __future__ import annotations

import tensorflow as tf

from seq2split.layers.products import widened

_LEAST = 1e-37  # the least probability that every float type but float16 holds in full precision


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

    def product(a, b, **transposed):
        return tf.matmul(tf.cast(a, compute_dtype), tf.cast(b, compute_dtype), **transposed)

    def at_labels(values):
        return tf.cast(tf.gather(values, labels, batch_dims=1), dtype)

    @tf.custom_gradient
    def losses(features, kernel, bias):
        ones = tf.ones_like(features[:, 0])
        logits = product(
            widened(features, [ones], 1, compute_dtype), widened(kernel, [bias], 1, compute_dtype), transpose_b=True
        )
        probabilities = tf.nn.softmax(logits)
        label_kernel = tf.gather(kernel, labels)
        likelihood = at_labels(probabilities)
        loss = nll = tf.cond(
            tf.reduce_all(likelihood > _LEAST),
            lambda: -tf.math.log(likelihood),
            lambda: tf.reduce_logsumexp(tf.cast(logits, dtype), axis=1) - at_labels(logits),
        )
        if smoothing:
            mean_kernel = tf.reduce_mean(kernel, axis=0)
            label_logit = tf.reduce_sum(features * label_kernel, axis=1) + tf.gather(bias, labels)
            mean_logit = tf.linalg.matvec(features, mean_kernel) + tf.reduce_mean(bias)
            loss = nll + smoothing * (label_logit - mean_logit)

        def backward(loss_ct, nll_ct):
            scaled = loss_ct[:, None] * features
            target = (1.0 - smoothing) * label_kernel + smoothing * mean_kernel if smoothing else label_kernel
            features_ct = loss_ct[:, None] * (tf.cast(product(probabilities, kernel), dtype) - target)
            kernel_ct = less_targets(product(probabilities, scaled, transpose_a=True), scaled)
            bias_ct = less_targets(product(loss_ct[None], probabilities)[0], loss_ct)
            return features_ct, kernel_ct, bias_ct

        def less_targets(total, values):
            """Subtract the smoothed targets' products with values `[positions, ...]` from `total [classes, ...]`."""
            total = tf.cast(total, dtype)
            if smoothing:
                total -= smoothing / classes * tf.reduce_sum(values, axis=0)
                values = (1.0 - smoothing) * values
            return tf.tensor_scatter_nd_sub(total, labels[:, None], values)

        return (loss, nll), backward

    return losses(features, kernel, bias)

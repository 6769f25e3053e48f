"""The softmax cross-entropy of a vocabulary, with label smoothing (Szegedy et al., 2016, arXiv:1512.00567)."""

from __future__ import annotations

import tensorflow as tf


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor, smoothing: float) -> tuple[tf.Tensor, tf.Tensor]:
    """The loss of each position.

    With smoothing `e` over `V` classes, the target is `1 - e + e / V` for the label and `e / V` for the others, so the
    loss is `nll + e * (logit[label] - mean(logits))`. The gradient of both terms is written out: autodiff would make
    several more passes over the logits.

    Args:
        logits: `[positions, classes]`, float.
        labels: `[positions]`, integers.
        smoothing: The probability that is spread over all classes; 0 for none.

    Returns:
        The smoothed loss, which carries the gradient, and the negative log-likelihood in nats, which is only reported;
        each `[positions]`.

    Example:
        >>> import tensorflow as tf
        >>> loss, nll = cross_entropy(tf.zeros([1, 4]), tf.constant([2]), smoothing=0.1)
        >>> [round(float(x[0]), 4) for x in (loss, nll)]  # log(4)
        [1.3863, 1.3863]
    """

    @tf.custom_gradient
    def smoothed(logits):
        nll, difference = tf.raw_ops.SparseSoftmaxCrossEntropyWithLogits(features=logits, labels=labels)
        loss = nll
        if smoothing:
            loss += smoothing * (tf.gather(logits, labels, batch_dims=1) - tf.reduce_mean(logits, axis=1))

        def backward(loss_ct, nll_ct):
            logits_ct = loss_ct[:, None] * (difference - smoothing / logits.shape[-1])
            if smoothing:
                places = tf.stack([tf.range(tf.shape(labels)[0], dtype=labels.dtype), labels], axis=1)
                logits_ct = tf.tensor_scatter_nd_add(logits_ct, places, smoothing * loss_ct)
            return logits_ct

        return (loss, nll), backward

    return smoothed(logits)

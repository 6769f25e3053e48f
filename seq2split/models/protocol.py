"""What an encoder and a decoder must be for this package to train them, search with them and draw their attention.

Nothing has to be inherited. An encoder is any callable layer; a decoder trains with its call alone, and each further
use needs the methods of one protocol:

| use | the decoder needs |
| --- | --- |
| training, evaluation of the loss, export | `Decoder`: a call that returns the loss |
| translation, sampling | `StepDecoder`: `bos`, `start`, `step` |
| pictures of attention, a coverage penalty | `AttentiveDecoder`: `bos`, `start`, `step_with_weights` |

`RecurrentDecoder` and `TransformerDecoder` have all of them.

The context and the state
-------------------------
`start` reads what the encoders returned for some *sentences*, and returns two nests of tensors. A *row* is a hypothesis
that is followed; every sentence has `width` of them, and `width` may be another at every step. At the first it is one.

- The **context** never changes. The first axis of each of its tensors has an entry for each sentence.
- The **state** is that of the rows. The first axis of each of its tensors has an entry for each row,
  `sentences * width` in all: first those of the first sentence, then those of the second, and so on. Row `r` belongs
  to sentence `r // width`. `step` returns a state of the same nest, dtypes and shapes.

Between two steps a search picks, repeats and reorders the rows of the state, and may drop sentences whose search is
over from both, by `tf.gather` along the first axis and nothing else. So hypotheses share the context of their sentence
and it is never repeated: a step views what belongs to the rows as `[sentences, width, ...]` to read it.

Both methods are traced once, for any number of sentences, any width and any padded length of a source: sizes must be
taken from `tf.shape` where `tensor.shape` has `None`. An axis that grows from step to step, as a cache of keys does,
must have no static length when it leaves `start`.
"""

from __future__ import annotations

from typing import Any, Protocol

import tensorflow as tf

from seq2split.split.sequences import Sequences

Nest = Any
"""A tensor, or tuples, named tuples, lists and dictionaries of them."""


class Encoder(Protocol):
    """An encoder: any callable layer, such as one of Keras."""

    def __call__(self, *inputs: Nest, training: bool = False) -> Nest:
        """Encode a batch.

        Args:
            *inputs: What the part reads, in the order of its node: fields of the batch, as `Sequences` of
                values `[rows, time, ...]` and lengths `[rows]` (int32), or the outputs of other parts.
            training: Whether to drop; an encoder without dropout need not take it.

        Returns:
            Any nest of tensors. What has a time axis is wrapped in `Sequences`; everything else has an entry for each
            row.
        """


class Decoder(Protocol):
    """A decoder that can be trained."""

    def __call__(self, *inputs: Nest, training: bool = False) -> tf.Tensor | tuple[tf.Tensor, ...]:
        """Return the loss of a batch.

        Args:
            *inputs: What each encoder returned, and last the target: pieces `[rows, time]`, each row ending in the
                end-of-sentence piece, and lengths `[rows]` (int32).
            training: Whether to drop, and to smooth labels; a decoder that does neither need not take it.

        Returns:
            The loss, a scalar: the sum over the real positions of the target. Or a tuple, best a named one, whose first
            entry is that; the others are scalars summed alike, and are reported, such as `Losses.nll`.
        """


class StepDecoder(Protocol):
    """A decoder that predicts piece by piece. See the module for the context and the state.

    Attributes:
        bos: The piece that stands before the first.
    """

    bos: int

    def start(self, *encoded: Nest) -> tuple[Nest, Nest]:
        """Return the context and the first state.

        Args:
            *encoded: What each encoder returned, for `sentences` rows.

        Returns:
            The context and the state, of one row for each sentence.
        """

    def step(self, context: Nest, state: Nest, pieces: tf.Tensor) -> tuple[tf.Tensor, Nest]:
        """Predict the next piece of each row.

        Args:
            context: The context, of each sentence.
            state: The state of each row.
            pieces: The last piece of each row, `[rows]`, int32; `bos` at first.

        Returns:
            The logits of the next piece, `[rows, vocabulary]`, float, and the next state.
        """


class AttentiveDecoder(Protocol):
    """A decoder that shows what it attends to. See the module for the context and the state.

    Attributes:
        bos: The piece that stands before the first.
    """

    bos: int

    def start(self, *encoded: Nest) -> tuple[Nest, Nest]:
        """Return the context and the first state, as in `StepDecoder`."""

    def step_with_weights(
        self, context: Nest, state: Nest, pieces: tf.Tensor
    ) -> tuple[tf.Tensor, Nest, tuple[tf.Tensor, ...]]:
        """Predict the next piece of each row, and return the attention weights.

        Args:
            context: The context, of each sentence.
            state: The state of each row.
            pieces: The last piece of each row, `[rows]`, int32; `bos` at first.

        Returns:
            The logits and the next state, as in `StepDecoder`; and for each encoder, in the order of `start`, the
            weights with which the row attends to its positions, `[rows, time]`, float: zero at padding, and one in
            sum. The positions are those of the first `Sequences` that the encoder returned.
        """


def require(decoder: Any, method: str, purpose: str) -> None:
    """Check that a decoder has a method of the protocol.

    Args:
        decoder: The decoder.
        method: The name of the method, or of the attribute.
        purpose: What it is needed for, as the subject of a sentence.

    Raises:
        ValueError: It has none.

    Example:
        >>> require(object(), "step", "a search")
        Traceback (most recent call last):
        ...
        ValueError: a search needs step of the decoder, but object has no step; add it to the class as \
seq2split.models.protocol describes it, or choose a decoder that has it.
    """
    if not hasattr(decoder, method):
        name = type(decoder).__name__
        raise ValueError(
            f"{purpose} needs {method} of the decoder, but {name} has no {method}; add it to the class as "
            f"{__name__} describes it, or choose a decoder that has it."
        )


def attended_positions(encoded: Nest) -> Sequences:
    """Return the positions that attention weights are of: the first `Sequences` that an encoder returned.

    Args:
        encoded: What an encoder returned.

    Returns:
        Values `[rows, time, ...]` and lengths `[rows]`.

    Raises:
        ValueError: There are none.

    Example:
        >>> from seq2split.models import Encoded
        >>> attended_positions(Encoded(Sequences("outputs", "lengths"), "summary"))
        Sequences(values='outputs', lengths='lengths')
    """
    found = _first_sequences(encoded)
    if found is None:
        raise ValueError(
            f"attention weights are of an encoder's positions, but it returned {type(encoded).__name__} without any "
            "Sequences; wrap what the decoder attends to in seq2split.Sequences(values, lengths)."
        )
    return found


def _first_sequences(nest: Nest) -> Sequences | None:
    if isinstance(nest, Sequences) or not isinstance(nest, list | tuple | dict):
        return nest if isinstance(nest, Sequences) else None
    entries = nest.values() if isinstance(nest, dict) else nest
    return next((found for found in map(_first_sequences, entries) if found is not None), None)

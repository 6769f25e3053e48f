"""Beam search: the likeliest outputs for a batch of sentences, a few hypotheses of each followed at once.

An encoder runs once for each sentence. A step then is one call of one graph: it puts the decoder's state in the order
of the hypotheses that survived, predicts, and picks the next ones; only pieces and log-probabilities leave it. Which
hypotheses have ended, and which sentences are done, is kept track of with numpy. A sentence that is done leaves the
batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
import tensorflow as tf

from seq2split.search.decoder_graphs import DecoderGraphs
from seq2split.search.hypotheses import Hypotheses, Hypothesis, Identity
from seq2split.search.options import SearchOptions, check_n_best
from seq2split.split.model import SplitModel
from seq2split.split.sequences import Sequences


class BeamSearch:
    """Searches with a model of encoders and a decoder.

    The encoders run in the part graphs of their buckets; what they return is any nest. The decoder is anything with

    - `bos`, the piece that stands before the first;
    - `start(*encoded) -> (context, state)`, nests of tensors whose first axis is sentences;
    - `step(context, state, pieces) -> (logits, state)`, with the last pieces `[rows]`, int32, the state `[rows, ...]`
      and the next piece's logits `[rows, vocabulary]`. The context is that of `start`, `[sentences, ...]`: every
      sentence has as many rows, which share its context, and those of the first sentence stand first. The state keeps
      its nest, its dtypes, and the shapes that are known in `start`;
    - for coverage `step_with_weights(context, state, pieces) -> (logits, state, weights)`, with the attention weights
      of each encoder's positions `[rows, time]`, zero at padding. The padding is that of the first `Sequences` in what
      the encoder returned.

    These methods are traced once, without AutoGraph, for sentences, rows and times of unknown number.

    Args:
        model: The model.
        encoders: The names of its encoders, in the order in which the decoder reads them.
        decoder: The decoder.
        eos: The piece that ends a sentence.
        max_length: The most pieces of a hypothesis, its end included.
        identity: A function of the pieces of a hypothesis, `[pieces]`, before its end. Of several with the same result,
            such as the same text cut in two ways, only the best is returned. By default all differ.

    Raises:
        ValueError: Hypotheses are allowed no piece.

    Example:
        >>> import seq2split as s2s
        >>> from seq2split.models import RecurrentDecoder, RecurrentEncoder
        >>> encoder = RecurrentEncoder(50, 4, 8, name="encoder")
        >>> decoder = RecurrentDecoder(50, 8, 2, 4, 8, name="decoder")
        >>> node = s2s.Node(encoder, "source", s2s.Buckets([4]))
        >>> model = s2s.SplitModel([node, s2s.Node(decoder, [node, "target"], s2s.Buckets([6]), loss=True)])
        >>> search = BeamSearch(model, ["encoder"], decoder, eos=3, max_length=6)
        >>> batch = {"source": Sequences(np.array([[7, 8, 3], [9, 3, 0]], np.int32), np.array([3, 2], np.int32))}
        >>> found = search(batch, SearchOptions(beam=4), n_best=2)
        >>> [len(hypotheses) for hypotheses in found], found[0][0].score >= found[0][1].score
        ([2, 2], True)
    """

    def __init__(
        self,
        model: SplitModel,
        encoders: Sequence[str],
        decoder: Any,
        *,
        eos: int,
        max_length: int,
        identity: Identity = np.ndarray.tobytes,
    ):
        if max_length < 1:
            raise ValueError(f"max_length is {max_length}; expected at least 1, the end of a sentence.")
        self._model, self._encoders, self._decoder = model, encoders, decoder
        self._eos, self._max_length, self._identity = eos, max_length, identity
        self._graphs: dict[bool, DecoderGraphs] = {}
        self._building = Lock()

    @property
    def traces(self) -> int:
        """The number of times that the Python code of the decoder has been traced: twice, and again with coverage."""
        return sum(graphs.traces for graphs in self._graphs.values())

    def __call__(
        self, batch: Mapping[str, Sequences], options: SearchOptions | None = None, n_best: int = 1
    ) -> list[list[Hypothesis]]:
        """Search for a batch.

        Args:
            batch: For each field that an encoder reads values `[rows, time, ...]` and lengths `[rows]`, of any lengths
                that the encoder has buckets for.
            options: How to search; by default `SearchOptions()`.
            n_best: The most hypotheses that are wanted of a sentence, at most the beam.

        Returns:
            For each row its hypotheses, no two of the same identity, the best first: as many as are wanted, or as ended
            within the longest length. Where none did they are those that it cut off. The best doesn't depend on how
            many are wanted.

        Raises:
            ValueError: More hypotheses are wanted than the beam has; the decoder lacks what the search needs of it, or
                gives no sequence a probability.
            FloatingPointError: The decoder's logits or attention weights are not finite.
        """
        options = options or SearchOptions()
        check_n_best(n_best, options.beam)
        encoded = [self._model.infer(batch, encoder) for encoder in self._encoders]
        graphs = self._graphs_for(coverage=options.coverage > 0)
        context, state = graphs.start.infer(*encoded)
        lengths, identity = self._source_lengths(batch), self._identity if n_best > 1 else np.ndarray.tobytes
        hypotheses = Hypotheses(lengths, self._decoder.bos, self._max_length, n_best, options, identity)
        while True:
            result = graphs.step.infer(context, state, *hypotheses.step_inputs(), np.int32(options.beam))
            state = result.state
            hypotheses.update(tf.nest.map_structure(lambda each: each.numpy(), result._replace(state=())))
            if hypotheses.done:
                return hypotheses.best()
            if (rows := hypotheses.drop_done()) is not None:
                context = tf.nest.map_structure(partial(tf.gather, indices=rows), context)

    def _graphs_for(self, coverage: bool) -> DecoderGraphs:
        with self._building:  # searches may run in threads
            if coverage not in self._graphs:
                encoded = {name: self._model.output_specs(name) for name in self._encoders}
                self._graphs[coverage] = DecoderGraphs(self._decoder, encoded, eos=self._eos, coverage=coverage)
            return self._graphs[coverage]

    def _source_lengths(self, batch: Mapping[str, Any]) -> np.ndarray:
        """Return the lengths of the sources, `[sentences]`; of several of a sentence the longest."""
        fields = {self._model.parts[part].field for name in self._encoders for part in self._model.upstream(name)}
        given = [batch[field] for field in sorted(fields - {None})]
        lengths = [each.lengths if isinstance(each, Sequences) else [len(row) for row in each] for each in given]
        return np.max(np.asarray(lengths), axis=0)

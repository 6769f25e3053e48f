"""Scalars and texts for TensorBoard.

`tf.summary.scalar` needs the tensorboard package to write; `tf.summary.write` needs it only to be looked at, later and
elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
import tensorflow as tf

from seq2split.common.files import explain_failure

_SCALAR, _TENSOR = 1, 2  # tensorboard's DataClass


class SummaryWriter:
    """Appends to the event files of a directory, if there is one.

    Args:
        path: The directory, made when something is written; `None` to write nothing.
    """

    def __init__(self, path: Path | None):
        self._path = path

    @cached_property
    def _writer(self) -> tf.summary.SummaryWriter:
        return tf.summary.create_file_writer(str(self._path)) if self._path else tf.summary.create_noop_writer()

    def scalars(self, step: int, **values: float) -> None:
        """Write numbers, each under its name.

        Raises:
            OSError: They can't be written.
        """
        with self._explained():
            for name, value in values.items():
                self._write(name, tf.constant(np.array(value), tf.float32), step, "scalars", _SCALAR)
            self._writer.flush()

    def text(self, step: int, name: str, text: str) -> None:
        """Write a text in Markdown.

        Raises:
            OSError: It can't be written.
        """
        with self._explained():
            self._write(name, tf.constant([text]), step, "text", _TENSOR)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except tf.errors.OpError as error:
            raise OSError(f"TensorBoard's files in {self._path} can't be written: {explain_failure(error)}.") from error

    def _write(self, name: str, value: tf.Tensor, step: int, plugin: str, data_class: int) -> None:
        metadata = tf.compat.v1.SummaryMetadata(data_class=data_class)
        metadata.plugin_data.plugin_name = plugin
        with self._writer.as_default():
            tf.summary.write(name, value, step=step, metadata=metadata)

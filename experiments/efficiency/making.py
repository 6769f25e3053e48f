"""Makes subjects by their names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from efficiency.apart import CacheAll, Rerun, Tape
from efficiency.packed import Packed
from efficiency.setting import Setting, by_batch
from efficiency.subjects import Joint, Model, Split, Subject

_KINDS: dict[str, Callable[[Setting, Model | None], Subject]] = {
    "split": Split,
    "joint-pairs": lambda setting, model: Joint(setting, model, setting.by_bucket, setting.pairs),
    "tape": Tape,
    "rerun": Rerun,
    "rerun-encoder": lambda setting, model: Rerun(setting, model, fused=True),
    "cache-all": CacheAll,
    "diagonal": lambda setting, model: Joint(setting, model, setting.by_diagonal, setting.diagonal),
    "dynamic": lambda setting, model: Joint(setting, model, by_batch, [setting.longest], dynamic=True),
    "packed": Packed,
    "padded": lambda setting, model: Joint(setting, model, setting.by_longest, [setting.longest]),
}
_SUFFIXES = ("-mixed", "-fine")


class Subjects:
    """Makes subjects, and keeps them while their setting is of use.

    A subject on mixed batches is the one on homogeneous batches: it would build the same graphs again. For the same
    reason workloads whose buckets are the same share their subjects. All train one model, but for those that change it.
    """

    def __init__(self):
        self._made: dict[tuple[str, Setting], Subject] = {}
        self._models: dict[tuple, Model] = {}

    def get(self, name: str, setting: Setting) -> Subject:
        """The subject of a name in a setting."""
        key = (kind(name), setting if kind(name) == "diagonal" else replace(setting, diagonal=()))
        if key not in self._made:
            self._made[key] = make(*key, None if _changes_layers(*key) else self._model(setting))
        return self._made[key]

    def _model(self, setting: Setting) -> Model:
        key = (setting.sizes, setting.precision, setting.threads)
        if key not in self._models:
            self._models = {key: Model(setting)}
        return self._models[key]

    def keep(self, *settings: Setting) -> None:
        """Forget the subjects that none of some settings has a use for."""
        kept = {*settings, *(replace(setting, diagonal=()) for setting in settings)}
        self._made = {key: subject for key, subject in self._made.items() if key[1] in kept}


def _changes_layers(name: str, setting: Setting) -> bool:
    """Whether a subject needs a model of its own."""
    return name == "dynamic" and setting.sizes.model != "transformer"


def kind(name: str) -> str:
    """The name of a subject whatever its batches and its buckets."""
    return next((name.removesuffix(suffix) for suffix in _SUFFIXES if name.endswith(suffix)), name)


def make(name: str, setting: Setting, model: Model | None = None) -> Subject:
    """Make a subject of TensorFlow; of a model of its own by default."""
    return _KINDS[kind(name)](setting, model)

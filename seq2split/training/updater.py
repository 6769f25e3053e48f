"""How gradients move the variables: added up, clipped over all parts, and applied by the optimizer of each rule."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from seq2split.split.gradients import add_up_dense
from seq2split.split.threads import Workers
from seq2split.training.clipping import clip_scale, global_norm
from seq2split.training.rules import UpdateRule, check_rules, rule_of

# Those whose `update_step` is all that they do to a variable, apart from weight decay.
_PLAIN = tuple(getattr(keras.optimizers, name) for name in ("Adam", "AdamW", "SGD", "Adagrad", "RMSprop"))
_OWN_OPTIONS = ("clipnorm", "clipvalue", "global_clipnorm", "use_ema", "gradient_accumulation_steps")


class _Target(NamedTuple):
    """A variable and the name of its rule."""

    variable: Any
    rule: str


class Updater:
    """Clips the gradients of all parts together and applies them.

    The variables of plain optimizers are dealt out over threads, so that each moves as many numbers as any other; what
    moves those of one thread is compiled into passes that read and write each number once. Other optimizers, those with
    options that look at all of their variables (their own clipping, moving average or accumulation), and variables with
    constraints go through Keras's `apply`.

    Args:
        variables: The trainable variables of each part. One that stands in several parts belongs to the first.
        rules: The rules by name; see `rules.make_rules`.
        clip_norm: The global norm over all variables that gradients are scaled down to; 0 for no clipping.
        workers: The threads that share the work.

    Attributes:
        optimizers: The optimizers by the name of their rule.
        settings: What the optimizers and the clipping were made with, as JSON can hold it.

    Raises:
        ValueError: A group matches no variable, or an optimizer was built for other variables.
    """

    def __init__(
        self, variables: Mapping[str, Sequence], rules: Mapping[str, UpdateRule], *, clip_norm: float, workers: Workers
    ):
        self._rules, self._clip_norm, self._workers = rules, clip_norm, workers
        canonical = _canonical(rules)
        self._targets: list[_Target] = []
        self._places: dict[str, list[int]] = {}
        known: dict[int, int] = {}
        used: list[str] = []
        for part, each in variables.items():
            for variable in each:
                if known.setdefault(id(variable), len(self._targets)) == len(self._targets):
                    rule = rule_of(variable, part, rules, list(variables))
                    used.append(rule)
                    self._targets.append(_Target(variable, canonical[rule]))
            self._places[part] = [known[id(variable)] for variable in each]
        check_rules(rules, used, self.variables, list(variables))
        if all(rules[name].optimizer is None for name in used):
            raise ValueError(
                f"no variable of the parts {list(variables)} has an optimizer, so that nothing would be trained; give "
                "a Keras optimizer, or one for each part by name."
            )
        names = dict.fromkeys(target.rule for target in self._targets)
        self.optimizers = {name: rules[name].optimizer for name in names if rules[name].optimizer is not None}
        for name, optimizer in self.optimizers.items():
            _build(optimizer, [target.variable for target in self._targets if target.rule == name])
        self._deal()
        self.settings = {"clip_norm": clip_norm} | {
            f"{name}: {option}": value
            for name, optimizer in self.optimizers.items()
            for option, value in json.loads(json.dumps(optimizer.get_config(), default=str)).items()
            if option != "name"
        }

    @property
    def variables(self) -> list:
        """The variables of all parts, each once."""
        return [target.variable for target in self._targets]

    @property
    def learning_rates(self) -> dict[str, float]:
        """The learning rate of each optimizer now."""
        return {name: float(optimizer.learning_rate) for name, optimizer in self.optimizers.items()}

    def frozen(self, step: int) -> list[str]:
        """Return the parts of which a step, counted from 1, moves nothing."""
        moving = {name for name, rule in self._rules.items() if rule.moves(step)}
        rules = {part: {self._targets[place].rule for place in places} for part, places in self._places.items()}
        return [part for part, each in rules.items() if not each & moving]

    def apply_changes(self, before: Mapping[str, Any]) -> list[str]:
        """Let the settings hold also for optimizers that were restored: a constant learning rate is restored with them.

        Args:
            before: The settings of the session that saved them; a learning rate that it changed itself goes on.

        Returns:
            The names of the settings that are others now.
        """
        changed = [name for name, value in self.settings.items() if name in before and before[name] != value]
        for name in changed:
            rule, _, option = name.partition(": ")
            if option == "learning_rate" and isinstance(self.settings[name], float):
                self.optimizers[rule].learning_rate = self.settings[name]
        return changed

    def __call__(self, gradients: Mapping[str, Sequence], step: int) -> tf.Tensor:
        """Apply gradients.

        Args:
            gradients: For each part one gradient for each variable; `None` leaves a variable as it is.
            step: The step of the training, counted from 1; it decides which variables move.

        Returns:
            The global norm of those that the step moves variables by, before clipping, a scalar. If it is not finite,
            nothing is moved.
        """
        each = self._workers.each
        flat = each(add_up_dense, self._addends(gradients, step))
        norm = global_norm(flat, each)
        # On the host: a condition in what moves the variables would read and write each number once more.
        if not math.isfinite(float(norm)):
            return norm
        scale = clip_scale(norm, self._clip_norm)
        each(lambda move: move[1]([flat[index] for index in move[0]], scale), self._moves)
        moved = {target.rule for target, gradient in zip(self._targets, flat, strict=True) if gradient is not None}
        for name in moved - self._applied:
            self.optimizers[name].iterations.assign_add(1)
        return norm

    def _addends(self, gradients: Mapping[str, Sequence], step: int) -> list[list]:
        """Return for each variable its gradients, from all parts that it stands in, if the step moves it."""
        addends: list[list] = [[] for _ in self._targets]
        for part, places in self._places.items():
            for place, gradient in zip(places, gradients[part], strict=True):
                if self._rules[self._targets[place].rule].moves(step):
                    addends[place].append(gradient)
        return addends

    def _deal(self) -> None:
        """Plan the moves: pairs of indices of variables and a function that moves them."""
        plain = [at for at, target in enumerate(self._targets) if self._is_plain(target.rule)]
        sizes = [math.prod(self._targets[at].variable.shape) for at in plain]
        shares = [[plain[at] for at in share] for share in deal(sizes, self._workers.count)]
        self._moves = [
            (share, tf.function(partial(self._move, share), autograph=False, jit_compile=True)) for share in shares
        ]
        self._applied = {name for name in self.optimizers if not self._is_plain(name)}
        for name in self._applied:
            own = [at for at, target in enumerate(self._targets) if target.rule == name]
            self._moves.append((own, tf.function(partial(self._apply, own, self.optimizers[name]), autograph=False)))

    def _is_plain(self, name: str) -> bool:
        """Return whether each variable of a rule can be moved apart from the others."""
        optimizer = self.optimizers.get(name)
        own = [target.variable for target in self._targets if target.rule == name]
        constrained = any(getattr(variable, "constraint", None) for variable in own)
        optioned = any(getattr(optimizer, option, None) for option in _OWN_OPTIONS)
        return not constrained and not optioned and (optimizer is None or type(optimizer) in _PLAIN)

    def _move(self, share: list[int], gradients: list[tf.Tensor | None], scale: tf.Tensor) -> None:
        """Move the variables of one thread; what `apply` does but for the count of steps."""
        for index, gradient in zip(share, gradients, strict=True):
            if gradient is not None:
                variable, name = self._targets[index]
                optimizer = self.optimizers[name]
                rate = tf.cast(optimizer.learning_rate, variable.dtype)
                if optimizer.weight_decay and optimizer._use_weight_decay(variable):
                    variable.assign_sub(variable * (optimizer.weight_decay * rate))
                optimizer.update_step(gradient * tf.cast(scale, gradient.dtype), variable, rate)

    def _apply(
        self, own: list[int], optimizer: keras.optimizers.Optimizer, gradients: list[tf.Tensor | None], scale: tf.Tensor
    ) -> None:
        pairs = zip(gradients, own, strict=True)
        moved = [(gradient, self._targets[at].variable) for gradient, at in pairs if gradient is not None]
        if moved:
            optimizer.apply([gradient * tf.cast(scale, gradient.dtype) for gradient, _ in moved], [v for _, v in moved])


def _canonical(rules: Mapping[str, UpdateRule]) -> dict[str, str]:
    """Return for each rule the first one with its optimizer, under whose name it goes."""
    first: dict[int, str] = {}
    canonical = {}
    for name, rule in rules.items():
        canonical[name] = name if rule.optimizer is None else first.setdefault(id(rule.optimizer), name)
        if rules[canonical[name]] != rule:
            raise ValueError(
                f"the rules {canonical[name]!r} and {name!r} share one optimizer, but move their variables in "
                "different steps, so that its steps could not be counted; give each an optimizer of its own."
            )
    return canonical


def _build(optimizer: keras.optimizers.Optimizer, variables: list) -> None:
    """Build an optimizer for its variables; once more for the same is nothing."""
    before = [id(variable) for variable in optimizer._trainable_variables] if optimizer.built else None
    if before not in (None, [id(variable) for variable in variables]):
        raise ValueError(
            f"{optimizer.name!r} was built for {len(before)} other variables before, of another model or other rules; "
            "give each trainer an optimizer of its own."
        )
    optimizer.build(variables)


def deal(sizes: Sequence[int], count: int) -> list[list[int]]:
    """Return the indices of `sizes` in up to `count` shares of about one sum, the largest dealt first.

    Example:
        >>> deal([5, 1, 3, 3], 2)
        [[0, 1], [2, 3]]
    """
    shares: list[list[int]] = [[] for _ in range(min(count, len(sizes)))]
    loads = [0] * len(shares)
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        lightest = loads.index(min(loads))
        shares[lightest].append(index)
        loads[lightest] += sizes[index]
    return shares

"""Peers that need no framework, for the process that a peer runs in; most of them fail."""

from __future__ import annotations

import os
import signal
import sys
import time


class Fake:
    """A subject whose steps do nothing, and whose gradients are the weights that it was given, times a factor."""

    def __init__(self, weights, factor=1.0):
        self._gradients, self.steps = {name: factor * each for name, each in weights.items()}, 0

    def loss_and_gradients(self, _batch):
        return 1.0, self._gradients

    def step(self, _batch):
        self.steps += 1
        self.act()

    def act(self):
        """What it does in a step."""


class Sleeping(Fake):
    def act(self):
        time.sleep(0.02)


class Raising(Fake):
    def act(self):
        raise RuntimeError("out of luck")


class Dying(Fake):
    def act(self):
        if self.steps > 7:  # the rounds have begun
            os.kill(os.getpid(), signal.SIGKILL)


def agrees(weights, **_options):
    return Fake(weights)


def disagrees(weights, **_options):
    return Fake(weights, 1.5)


def sleeps(weights, **_options):
    return Sleeping(weights)


def raises_in_a_step(weights, **_options):
    return Raising(weights)


def crashes_in_mid_run(weights, **_options):
    return Dying(weights)


def crashes_at_once(_weights, **_options):
    print("about to crash", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)


def imports_what_is_missing(_weights, **_options):
    import no_such_framework  # noqa: F401

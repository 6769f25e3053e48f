"""Checks of whole numbers and lengths, and the errors that name what is wrong with them."""

import operator

import numpy as np
from numpy.typing import ArrayLike

LARGEST = int(np.iinfo(np.int64).max)


def checked_int(name: str, value: int, least: int | None = None) -> int:
    """Return a whole number of any type as an int; the errors call it `name`."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}; expected a whole number, such as 16; convert it with int()") from None
    if least is not None and number < least:
        raise ValueError(f"{name} is {number}; expected at least {least}; raise it")
    if number > LARGEST:
        raise ValueError(f"{name} is {number}; expected at most {LARGEST}, the largest int64; lower it")
    return number


def checked_lengths(lengths: ArrayLike, least: int) -> np.ndarray:
    """Return the lengths as int64, in their shape; the errors name the position of one that is below `least`."""
    try:
        array = np.asarray(lengths)
    except ValueError:
        raise ValueError("lengths is ragged; expected one length a sequence: [len(s) for s in sequences]") from None
    if not array.size:
        return np.zeros(array.shape, np.int64)  # numpy takes an empty list for floats
    if array.dtype.kind not in "iu":
        raise TypeError(f"lengths holds {array.dtype}; expected integers; convert them with astype(np.int64)")
    for extreme, refused in ((array.argmin(), array.min() < least), (array.argmax(), array.max() > LARGEST)):
        if refused:
            raise ValueError(
                f"the length at position {position(int(extreme), array.shape)} is {array.flat[extreme]}; expected "
                f"{least} to {LARGEST}; drop such sequences first"
            )
    return array.astype(np.int64, copy=False)


def position(index: int, shape: tuple[int, ...]) -> int | tuple[int, ...]:
    """Return where the entry of a flat index stands in an array of a shape, as messages write it."""
    found = tuple(int(i) for i in np.unravel_index(index, shape))
    return found[0] if len(found) == 1 else found

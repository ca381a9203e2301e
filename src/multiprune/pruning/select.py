"""Top-k selection of scores: the only rankings in this package."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

_INTEGER_OF = {torch.float32: torch.int32, torch.float16: torch.int16, torch.bfloat16: torch.int16}
_DIGIT_BITS = 16
_BINS = 1 << _DIGIT_BITS


def keep_largest(scores: Sequence[Float[Tensor, "..."]], count: int) -> list[Bool[Tensor, "..."]]:
    """Return one boolean mask for each tensor that keeps the ``count`` largest of all scores.

    Exact: ``count`` entries are kept, neither more nor fewer. Ties are broken by position (earlier
    tensors first, then earlier elements), so equal scores never prune more than needed. No sort:
    the threshold is found by radix selection, one histogram for each 16 bits of the floating-point
    format.

    Args:
        scores: float32, float16 or bfloat16 tensors of any shape, without NaN, on one device.
        count: how many to keep, from 0 to the number of scores.
    """
    total = sum(score.numel() for score in scores)
    if not 0 <= count <= total:
        raise ValueError(f"`count` must be in [0, {total}], but is {count}.")
    if count in (0, total):
        return [torch.full_like(score, bool(count), dtype=torch.bool) for score in scores]
    threshold = kth_largest(scores, count)
    masks = [score > threshold for score in scores]
    missing = count - sum(int(mask.count_nonzero()) for mask in masks)
    for score, mask in zip(scores, masks, strict=True):
        if missing == 0:
            break
        missing -= _keep_ties(mask, score == threshold, missing)
    return masks


def keep_largest_groups(
    scores: Sequence[Float[Tensor, "..."]], costs: Sequence[Int[Tensor, "..."]], budget: int
) -> list[Bool[Tensor, "..."]]:
    """Return one mask for each tensor that keeps the groups of largest score that fit ``budget``.

    Groups are taken in the order of their scores until the next one does not fit, so what is kept
    costs at most ``budget``, and less than that group would cost is left over. Of equal scores the
    costliest comes first, then position decides: otherwise a group that was pruned (and scores 0
    since) could return in a later ranking because it is smaller than the one that did not fit.
    Sorts, since groups are few.

    Args:
        scores: tensors of any shape, one score a group, without NaN, on one device.
        costs: what each group costs, at least 1, in the shapes of ``scores``.
        budget: what may be kept, at least 0.
    """
    if budget < 0:
        raise ValueError(f"`budget` must be at least 0, but is {budget}.")
    score = torch.cat([one.reshape(-1) for one in scores])
    cost = torch.cat([one.reshape(-1) for one in costs])
    order = cost.argsort(dim=0, descending=True, stable=True)
    order = order[score[order].argsort(dim=0, descending=True, stable=True)]
    kept = torch.zeros_like(score, dtype=torch.bool)
    kept[order] = cost[order].cumsum(0) <= budget
    parts = torch.split(kept, [one.numel() for one in scores])
    return [part.view(one.shape) for part, one in zip(parts, scores, strict=True)]


def close_smallest(
    scores: Sequence[Float[Tensor, "_"]],
    savings: Sequence[Int[Tensor, "_"]],
    needed: int,
    *,
    final: int | None = None,
) -> list[Bool[Tensor, "_"]]:
    """Return one boolean mask for each vector of groups that leaves out enough of them.

    Groups are closed in ascending order of score, over all vectors, until ``needed`` parameters are
    saved. What a closing saves may depend on how many were closed in the same vector before. Of
    equal scores the earlier stay, as in ``keep_largest``. Where a closing would save as much as the
    smallest group above ``final``, its vector is passed over for others that follow; if there are
    none, the smallest saving goes, unless a later call has to save more.

    Args:
        scores: vectors without NaN, on one device.
        savings: for each vector, what its first, second, ... closing saves, in whole parameters;
            with fewer entries than groups, that many of its best groups are never closed.
        needed: how many parameters to save, from 0 to the sum of all savings.
        final: ``needed`` of the last call that is to come, where this is not the last.
    """
    most = sum(int(saved.sum()) for saved in savings)
    if not 0 <= needed <= most:
        raise ValueError(f"`needed` must be in [0, {most}], but is {needed}.")
    masks = [torch.ones_like(score, dtype=torch.bool) for score in scores]
    if needed == 0:
        return masks
    # Backwards, so that stable sorts have the later of equals first.
    vectors = list(zip(scores, savings, masks, strict=True))[::-1]
    orders = [_ascending(score)[: len(saved)] for score, saved, _ in vectors]
    merged = torch.cat(
        [score[order] for (score, _, _), order in zip(vectors, orders, strict=True)]
    ).argsort(stable=True)
    in_order = torch.cat([saved for _, saved, _ in vectors]).to(merged.device)[merged]
    sizes = torch.tensor([len(order) for order in orders], device=merged.device)
    owners = torch.arange(len(orders), device=merged.device).repeat_interleave(sizes)[merged]
    smallest = min(int(saved.max()) for saved in savings if len(saved))
    going = _closings(in_order, owners, needed, needed if final is None else final, smallest)
    closed = torch.zeros_like(merged, dtype=torch.bool)
    closed[merged[going]] = True
    parts = torch.split(closed, [len(order) for order in orders])
    for (_, _, mask), order, part in zip(vectors, orders, parts, strict=True):
        mask[order[part]] = False
    return masks


def _closings(
    savings: Int[Tensor, "closings"],
    owners: Int[Tensor, "closings"],
    needed: int,
    final: int,
    smallest: int,
) -> list[int] | slice:
    """Return which of the closings, in order, are done: positions in ``savings``."""
    saved = savings.cumsum(0)
    enough = int(torch.searchsorted(saved, needed)) + 1
    fitting = int(torch.searchsorted(saved, final + smallest))
    if enough <= fitting:
        return slice(enough)
    done = int(saved[fitting - 1]) if fitting else 0
    going = list(range(fitting))
    passed_over: dict[int, tuple[int, int]] = {}
    rest = zip(savings[fitting:].tolist(), owners[fitting:].tolist(), strict=True)
    for place, (saving, owner) in enumerate(rest, start=fitting):
        if done >= needed:
            return going
        if owner not in passed_over and done + saving < final + smallest:
            going.append(place)
            done += saving
        else:
            passed_over.setdefault(owner, (saving, place))
    if needed == final and passed_over and done < needed:
        going.append(min(passed_over.values())[1])
    return going


def kth_largest(scores: Sequence[Float[Tensor, "..."]], k: int) -> Float[Tensor, ""]:
    """Return the ``k``-th largest (from 1) of all scores."""
    dtype = scores[0].dtype
    if dtype not in _INTEGER_OF:
        raise TypeError(f"Scores must be float32, float16 or bfloat16, but are {dtype}.")
    integer = _INTEGER_OF[dtype]
    bits = [score.detach().reshape(-1).view(integer) for score in scores]
    prefix: int | None = None
    for shift in range(torch.iinfo(integer).bits - _DIGIT_BITS, -1, -_DIGIT_BITS):
        histogram = _digit_histogram(bits, shift, prefix)
        order = _descending_digits(prefix, histogram.device)
        cumulative = histogram[order].cumsum(0)
        position = int(torch.searchsorted(cumulative, k))
        digit = int(order[position])
        k -= int(cumulative[position] - histogram[digit])
        prefix = digit - _BINS * (digit >= _BINS // 2) if prefix is None else prefix << 16 | digit
    return torch.tensor(prefix, dtype=integer, device=bits[0].device).view(dtype)


def _ascending(score: Float[Tensor, "groups"]) -> Int64[Tensor, "groups"]:
    """Return the positions of a vector by ascending score, of equals the last first."""
    return len(score) - 1 - score.flip(0).argsort(stable=True)


def _digit_histogram(
    bits: Sequence[Int[Tensor, "_"]], shift: int, prefix: int | None
) -> Int64[Tensor, "digits"]:
    """Count the 16-bit digits at ``shift`` of the numbers whose bits above it are ``prefix``."""
    histogram = torch.zeros(_BINS, dtype=torch.int64, device=bits[0].device)
    for number in bits:
        if prefix is not None:
            number = number[number >> (shift + _DIGIT_BITS) == prefix]
        digits = (number.to(torch.int32) >> shift).bitwise_and_(_BINS - 1)
        histogram += torch.bincount(digits, minlength=_BINS)
    return histogram


def _descending_digits(prefix: int | None, device: torch.device) -> Int64[Tensor, "digits"]:
    """Return all digits, that of the largest number first.

    Floating-point numbers are a sign and a magnitude: the digits of negative ones, which have the
    highest bit set, order backwards.
    """
    digits = torch.arange(_BINS, device=device)
    if prefix is None:
        return torch.cat([digits[: _BINS // 2].flip(0), digits[_BINS // 2 :]])
    return digits if prefix < 0 else digits.flip(0)


def _keep_ties(mask: Bool[Tensor, "*shape"], ties: Bool[Tensor, "*shape"], most: int) -> int:
    """Set ``mask`` at the first ``most`` places where ``ties`` is set; return how many it were."""
    count = int(ties.count_nonzero())
    if count <= most:
        mask |= ties
        return count
    first = ties.reshape(-1).nonzero()[:most, 0]
    mask[torch.unravel_index(first, mask.shape)] = True
    return most

"""Compiled loops between scores and patch lengths: one token or one start at a time, in order, on the CPU.

`scan.py` drives them. The vectorised torch functions (`entropy_starts.py`, `space_starts.py`,
`patch_lengths.py`) are the definitions; the tests compare the two. A *decision* is about the token after a
score: decision `i` says whether token `i + 1` starts a patch. Token 0 always does.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from hyena_glt.patching.word_bits import WORD, trailing_zeros, word_above, word_equal, word_of_nan, word_rising

NO_CAP = 1 << 60  # tokens; longer than any patch
CLOSED_AT_ONCE = 128  # words between two looks at the room for lengths
COUNT_BLOCK = 1 << 15  # tokens per step when only counting: mask and lengths stay in the cache


@njit(cache=True, nogil=True)
def has_negative(tokens):
    """True when a number of an int64 matrix is below 0."""
    bits = np.int64(0)
    for row in range(tokens.shape[0]):
        for i in range(tokens.shape[1]):
            bits |= tokens[row, i]
    return bits < 0


@njit(cache=True, nogil=True)
def mark_above(scores, threshold, starts):
    """`starts[i] = scores[i] > threshold`; True when a score is NaN."""
    has_nan = False
    for i in range(scores.size):
        score = scores[i]
        starts[i] = score > threshold
        has_nan |= score != score
    return has_nan


@njit(cache=True, nogil=True)
def mark_rises(scores, previous, threshold, rise, starts):
    """`starts[i] = scores[i] - scores[i - 1] > rise and scores[i] > threshold`; True when a score is NaN."""
    first = scores[0]
    starts[0] = (first - previous > rise) & (first > threshold)
    has_nan = first != first
    for i in range(1, scores.size):
        score = scores[i]
        starts[i] = (score - scores[i - 1] > rise) & (score > threshold)
        has_nan |= score != score
    return has_nan


@njit(cache=True, nogil=True, inline="always")
def pack_words(mask):
    """The mask as bits, 64 entries to a uint64, the first one lowest."""
    whole = mask.size // WORD
    words = np.zeros(whole + 1, np.uint64)
    for w in range(whole):
        part = mask[w * WORD : (w + 1) * WORD]
        word = np.uint64(0)
        for i in range(WORD):
            word |= np.uint64(part[i]) << np.uint64(i)
        words[w] = word
    for i in range(whole * WORD, mask.size):
        words[whole] |= np.uint64(mask[i]) << np.uint64(i - whole * WORD)
    return words


@njit(cache=True, nogil=True)
def next_set(words, position, size):
    """First set bit at or after `position`; `size` when there is none."""
    index = position // WORD
    if index >= words.size:
        return size
    word = (words[index] >> np.uint64(position % WORD)) << np.uint64(position % WORD)
    while not word:
        index += 1
        if index >= words.size:
            return size
        word = words[index]
    return index * WORD + np.int64(trailing_zeros(word))  # type: ignore[call-arg]


@njit(cache=True, nogil=True)
def mark_grid(starts, first_token, origin, size):
    """Mark the tokens `origin + floor(k * size)` among `first_token ...`; `origin <= first_token`."""
    k = np.int64((first_token - origin) / size)
    index = origin + np.int64(np.floor(k * size)) - first_token
    while index < starts.size:
        if index >= 0:
            starts[index] = True
        k += 1
        index = origin + np.int64(np.floor(k * size)) - first_token


@njit(cache=True, nogil=True)
def mark_stride(starts, forced, first_token, origin, size):
    """Mark the tokens `origin + floor(k * size)`; a forced start becomes the new origin, which is returned.

    `starts[i]` and `forced[i]` are about token `first_token + i`; `forced` may be empty.
    """
    starts[:] = False
    edges = pack_words(forced)
    position = 0
    while position < starts.size:
        edge = next_set(edges, position, starts.size)
        mark_grid(starts[position : edge + 1], first_token + position, origin, size)
        if edge < starts.size:
            origin = first_token + edge
        position = edge + 1
    return origin


@njit(cache=True, nogil=True)
def mark_scores(scores, seen, previous, threshold, rise, by_rise, always, never, starts):
    """Decisions of an entropy rule about the tokens `seen + 1 ... seen + scores.size`.

    Args:
        scores: `(n,)` float32, n >= 1; the scores of the tokens `seen ... seen + n - 1`.
        seen: Tokens of the sequence before these.
        previous: Score of token `seen - 1`; any number when `seen` is 0.
        threshold, rise: float32.
        by_rise: Compare the rise of the score as well.
        always: Number of decisions at the start of the sequence that are True whatever the scores.
        never: Decision that is False whatever the scores; -1 for none.
        starts: `(n,)` bool, written.

    Returns:
        True when a score is NaN.
    """
    if by_rise:
        has_nan = mark_rises(scores, previous, threshold, rise, starts)
    else:
        has_nan = mark_above(scores, threshold, starts)
    for i in range(seen, min(always, seen + starts.size)):
        starts[i - seen] = True
    if seen <= never < seen + starts.size:
        starts[never - seen] = False
    return has_nan


@njit(cache=True, nogil=True)
def mark_score_rows(scores, row_lengths, num_next, threshold, rise, by_rise, always, never, starts):
    """`starts[row, token]` of an entropy rule; False past a row's end.

    Returns:
        True when a score is NaN.
    """
    has_nan = False
    for row in range(scores.shape[0]):
        length = row_lengths[row]
        num_starts = length + num_next
        starts[row, :1] = True
        starts[row, num_starts:] = False
        if num_starts > 1:
            used = scores[row, : num_starts - 1]
            decisions = starts[row, 1:num_starts]
            has_nan |= mark_scores(used, 0, used[0], threshold, rise, by_rise, always, never, decisions)
        if length > 0:
            has_nan |= np.isnan(scores[row, length - 1])
    return has_nan


@njit(cache=True, nogil=True)
def mark_top_rows(scores, row_lengths, num_next, budgets, cuts, starts):
    """Starts after the `budgets[row]` highest scores beyond the first; of equal ones the earlier."""
    for row in range(scores.shape[0]):
        length = row_lengths[row]
        cut = cuts[row]
        above = 0
        for i in range(1, length):
            above += scores[row, i] > cut
        ties = budgets[row] - above
        starts[row, :2] = True
        starts[row, length + num_next :] = False
        for i in range(1, length):
            score = scores[row, i]
            is_tie = (score == cut) & (ties > 0)
            ties -= is_tie
            if i + 1 < length + num_next:
                starts[row, i + 1] = (score > cut) | is_tie


@njit(cache=True, nogil=True)
def look_up(tokens, classes, kinds):
    """`kinds[i]` is the class of `tokens[i]`; tokens past the table have the class of its last entry."""
    last = classes.size - 1
    for i in range(tokens.size):
        kinds[i] = classes[np.uint64(min(tokens[i], last))]


@njit(cache=True, nogil=True)
def mark_class_rows(tokens, row_lengths, num_next, classes, always, starts):
    """Starts after tokens by their class: 2 ends a patch, 1 ends it where the token before is of class 0.

    Args:
        tokens: `(batch, length)` integers >= 0 within each row.
        classes: `(260,)` uint8 by token.
        always: Tokens at the start of a row that start a patch whatever the classes.
    """
    kinds = np.empty(tokens.shape[1] + 1, np.uint8)
    for row in range(tokens.shape[0]):
        num_starts = row_lengths[row] + num_next
        decided = max(num_starts - 1, 0)
        look_up(tokens[row, :decided], classes, kinds[1:])
        kinds[0] = 0
        marks = starts[row, 1:num_starts]
        for i in range(decided):
            marks[i] = (kinds[i + 1] == 2) | ((kinds[i + 1] == 1) & (kinds[i] == 0))
        starts[row, :always] = True
        starts[row, num_starts:] = False


@njit(cache=True, nogil=True)
def mark_stride_rows(row_lengths, num_next, size, overlap, starts):
    """Starts of static mode, each row from its own token 0; none but that one in a row's last `overlap` tokens."""
    nothing = np.zeros(0, np.bool_)
    for row in range(starts.shape[0]):
        num_tokens = row_lengths[row] + num_next
        num_starts = max(num_tokens - overlap, min(num_tokens, 1))
        mark_stride(starts[row, :num_starts], nothing, 0, 0, size)
        starts[row, num_starts:] = False


# Lengths are counted by unsigned numbers here: an index that may be negative costs a comparison each time.


@njit(cache=True, nogil=True)
def close_uncapped(words, first_token, last_start, lengths):
    """As `close_words` where every start closes a patch."""
    count = np.uint64(0)
    for w in range(words.size):
        word = words[w]
        while word:
            token = first_token + w * WORD + np.int64(trailing_zeros(word))  # type: ignore[call-arg]
            word &= word - np.uint64(1)
            lengths[count] = token - last_start
            count += np.uint64(1)
            last_start = token
    return count, last_start


@njit(cache=True, nogil=True)
def close_capped(words, first_token, last_start, cap, lengths):
    """As `close_words` with a cap and no minimum."""
    count = np.uint64(0)
    for w in range(words.size):
        word = words[w]
        while word:
            token = first_token + w * WORD + np.int64(trailing_zeros(word))  # type: ignore[call-arg]
            word &= word - np.uint64(1)
            length = token - last_start
            last_start = token
            # The first cut without a branch: whether a patch reaches the cap is a coin toss to the processor.
            lengths[count] = cap
            is_cut = (cap - length) >> 63  # -1 or 0
            count -= np.uint64(is_cut)
            length -= cap & is_cut
            while length > cap:
                lengths[count] = cap
                count += np.uint64(1)
                length -= cap
            lengths[count] = length
            count += np.uint64(1)
    return count, last_start


@njit(cache=True, nogil=True)
def close_limited(words, first_token, last_start, shortest, cap, lengths):
    """As `close_words` with a cap and a minimum."""
    count = np.uint64(0)
    for w in range(words.size):
        word = words[w]
        while word:
            token = first_token + w * WORD + np.int64(trailing_zeros(word))  # type: ignore[call-arg]
            word &= word - np.uint64(1)
            while token - last_start > cap:
                lengths[count] = cap
                count += np.uint64(1)
                last_start += cap
            if token - last_start >= shortest:
                lengths[count] = token - last_start
                count += np.uint64(1)
                last_start = token
    return count, last_start


@njit(cache=True, nogil=True)
def close_words(words, size, first_token, last_start, shortest, cap, lengths):
    """Write the lengths of the patches that end before the tokens `first_token ...`, where no start is forced.

    A start is ignored while the open patch is shorter than `shortest`; a patch that reaches `cap` is cut.

    Args:
        words: uint64; bit `i` of word `w` says whether token `first_token + WORD * w + i` starts a patch. Work space.
        size: Tokens that the words are about.
        last_start: Token at which the open patch started.
        shortest, cap: Tokens, `1 <= shortest <= cap`; `NO_CAP` for none.
        lengths: int64 buffer with room for the patches.

    Returns:
        `(count, last_start)`: lengths written, and the start of the patch that is open now.
    """
    if words.size and last_start == first_token:
        words[0] &= ~np.uint64(1)  # the open patch starts here already
    if shortest > 1:
        count, last_start = close_limited(words, first_token, last_start, shortest, cap, lengths)
    elif cap < NO_CAP:
        count, last_start = close_capped(words, first_token, last_start, cap, lengths)
    else:
        count, last_start = close_uncapped(words, first_token, last_start, lengths)
    while first_token + size - 1 - last_start >= cap:
        lengths[count] = cap
        count += np.uint64(1)
        last_start += cap
    return np.int64(count), last_start


@njit(cache=True, nogil=True)
def close_run(starts, first_token, last_start, shortest, cap, lengths):
    """As `close_words`, with the starts as `(n,)` bool."""
    return close_words(pack_words(starts), starts.size, first_token, last_start, shortest, cap, lengths)


@njit(cache=True, nogil=True)
def close_patches(starts, forced, first_token, last_start, shortest, cap, lengths, known):
    """As `close_run`, with starts that win over `shortest`.

    `forced` and `known` are like `starts` or empty. `known[i]` becomes False where only `forced[i]` makes token
    `first_token + i` a start.
    """
    count = 0
    position = 0
    edges = pack_words(forced)
    while position < starts.size:
        edge = next_set(edges, position, starts.size)
        before, here = starts[position:edge], lengths[count:]
        more, last_start = close_run(before, first_token + position, last_start, shortest, cap, here)
        count += more
        length = first_token + edge - last_start
        if edge < starts.size and length > 0:
            lengths[count] = length
            count += 1
            last_start = first_token + edge
            if known.size and length != cap and not (starts[edge] and length >= shortest):
                known[edge] = False
        position = edge + 1
    return count, last_start


@njit(cache=True, nogil=True)
def close_rows(starts, forced, row_ends, shortest, cap, lengths, counts, known):
    """Patch lengths of every row, one row after the other; `forced` and `known` may have no columns.

    Returns:
        Lengths written in all; `counts[row]` of them belong to each row.
    """
    total = 0
    for row in range(starts.shape[0]):
        num_tokens = row_ends[row]
        counts[row] = 0
        if num_tokens > 0:
            here = lengths[total:]
            edges = forced[row, : min(num_tokens, forced.shape[1])]
            seen_before = known[row, : min(num_tokens, known.shape[1])]
            count, last_start = close_patches(starts[row, :num_tokens], edges, 0, 0, shortest, cap, here, seen_before)
            here[count] = num_tokens - last_start
            counts[row] = count + 1
            total += count + 1
    return total


@njit(cache=True, nogil=True)
def pad_rows(flat, counts, padded):
    """Lay rows of a flat array out as a matrix, right-padded with 0."""
    first = 0
    for row in range(counts.size):
        count = counts[row]
        padded[row, :count] = flat[first : first + count]
        padded[row, count:] = 0
        first += count


@njit(cache=True, nogil=True)
def count_rows(scores, forced, row_ends, threshold, rise, by_rise, always, never, shortest, cap):
    """Number of patches of rows that lie one after the other in `scores`, without keeping their lengths.

    `forced` may be empty. Each row is scanned in blocks, so the work space does not grow with it.
    """
    starts = np.empty(COUNT_BLOCK, np.bool_)
    edges = np.empty(COUNT_BLOCK, np.bool_)
    lengths = np.empty(2 * COUNT_BLOCK, np.int64)
    nothing = np.zeros(0, np.bool_)
    total = 0
    row_start = 0
    for row_end in row_ends:
        last_start = row_start
        for first in range(row_start, row_end - 1, COUNT_BLOCK):
            stop = min(first + COUNT_BLOCK, row_end - 1)
            marks = starts[: stop - first]
            previous = scores[max(first - 1, row_start)]
            mark_scores(
                scores[first:stop],
                first - row_start,
                previous,
                threshold,
                rise,
                by_rise,
                always,
                never,
                marks,
            )
            here = edges[: stop - first] if forced.size else nothing
            here[:] = forced[first + 1 : stop + 1] if forced.size else nothing
            count, last_start = close_patches(marks, here, first + 1, last_start, shortest, cap, lengths, nothing)
            total += count
        total += row_end > row_start
        row_start = row_end
    return total


# One pass from scores or tokens to patch lengths, without a mask: bit `i` of a row's words says whether token `i + 1`
# starts a patch, and bits behind the row's end are 0.


@njit(cache=True, nogil=True)
def score_words(scores, row_lengths, num_next, threshold, rise, by_rise, always, never, words):
    """Decisions of an entropy rule as bits.

    Args:
        scores: `(batch, length)` float32.
        row_lengths: `(batch,)` int64.
        num_next: 1 where rows are one token longer than their scores, else 0.
        threshold, rise, by_rise, always, never: As in `mark_scores`.
        words: `(batch, words)` uint64, written.

    Returns:
        True when a score is NaN.
    """
    one, has_nan = np.uint64(1), False
    for row in range(scores.shape[0]):
        used, end = scores[row], row_lengths[row] + num_next - 1
        for w in range(words.shape[1]):
            first = w * WORD
            stop = min(first + WORD, end)
            if stop - first == WORD and (first > 0 or not by_rise):
                word = word_above(used, first, threshold)
                if by_rise:
                    word &= word_rising(used, first, rise)
                has_nan |= word_of_nan(used, first) != 0
            else:
                word = np.uint64(0)
                for i in range(first, stop):
                    score, previous = used[i], used[max(i - 1, 0)]
                    decision = (score > threshold) & ((not by_rise) | (score - previous > rise))
                    word |= np.uint64(decision) << np.uint64(i - first)
                    has_nan |= score != score
            for i in range(first, min(always, stop)):
                word |= one << np.uint64(i - first)
            if first <= never < stop:
                word &= ~(one << np.uint64(never - first))
            words[row, w] = word
        has_nan |= row_lengths[row] > 0 and np.isnan(used[row_lengths[row] - 1])
    return has_nan


@njit(cache=True, nogil=True)
def class_words(tokens, row_lengths, num_next, classes, always, next_starts, words):
    """Decisions by the class of tokens as bits: 2 ends a patch, 1 ends it where the token before is of class 0.

    Args:
        tokens: `(batch, length)` integers >= 0 within each row.
        row_lengths, num_next: As in `score_words`.
        classes: `(260,)` uint8 by token.
        always: Tokens at the start of a row that start a patch whatever the classes.
        next_starts: Whether the token after a row may start a patch.
        words: `(batch, words)` uint64, written.
    """
    one = np.uint64(1)
    kinds = np.zeros(1 + words.shape[1] * WORD, np.uint8)  # of the token before the row, and of the row's
    for row in range(tokens.shape[0]):
        end = row_lengths[row] + num_next - 1
        look_up(tokens[row, : max(end, 0)], classes, kinds[1:])
        for w in range(words.shape[1]):
            first = w * WORD
            word = word_equal(kinds, first + 1, np.uint8(2))
            run_ends = word_equal(kinds, first + 1, np.uint8(1))
            word |= run_ends & word_equal(kinds, first, np.uint8(0))
            inside = min(max(end - first, 0), WORD)
            if inside < WORD:
                word &= (one << np.uint64(inside)) - one
            for i in range(first, min(always - 1, end)):
                word |= one << np.uint64(i - first)
            last = row_lengths[row] - 1
            if not next_starts and max(first, always - 1) <= last < min(first + WORD, end):
                word &= ~(one << np.uint64(last - first))
            words[row, w] = word


@njit(cache=True, nogil=True)
def patch_score_rows(scores, row_lengths, num_next, threshold, rise, by_rise, always, never, shortest, cap):
    """Patch lengths of rows under an entropy rule; arguments as in `score_words` and `close_words`.

    Returns:
        `(has_nan, lengths)`: True when a score is NaN, and `(batch, most patches)` int64, right-padded with 0.
    """
    words = np.empty((scores.shape[0], num_words(scores.shape[1] + num_next)), np.uint64)
    has_nan = score_words(scores, row_lengths, num_next, threshold, rise, by_rise, always, never, words)
    return has_nan, close_word_rows(words, row_lengths + num_next, shortest, cap)


@njit(cache=True, nogil=True)
def patch_class_rows(tokens, row_lengths, num_next, classes, always, next_starts, shortest, cap):
    """Patch lengths of rows by the class of tokens; arguments as in `class_words` and `close_words`.

    Returns:
        `(is_split, lengths)`: `(batch,)` bool, whether the classes make any token but the first two start a patch, and
        `(batch, most patches)` int64, right-padded with 0.
    """
    words = np.empty((tokens.shape[0], num_words(tokens.shape[1] + num_next)), np.uint64)
    class_words(tokens, row_lengths, num_next, classes, always, next_starts, words)
    is_split = np.empty(tokens.shape[0], np.bool_)
    for row in range(tokens.shape[0]):
        is_split[row] = (words[row, 0] > 1) | words[row, 1:].any()
    return is_split, close_word_rows(words, row_lengths + num_next, shortest, cap)


@njit(cache=True, nogil=True)
def num_words(width):
    """Words for the decisions of rows of `width` tokens, at least 1."""
    return max((width - 1 + WORD - 1) // WORD, 1)


@njit(cache=True, nogil=True)
def close_word_rows(words, row_ends, shortest, cap):
    """Patch lengths of every row, `(batch, most patches)` int64, right-padded with 0.

    Args:
        words: `(batch, words)` uint64.
        row_ends: `(batch,)` int64 tokens of each row.
        shortest, cap: As in `close_words`.
    """
    batch = row_ends.size
    flat = np.empty(words.size * WORD // 4 + 4 * CLOSED_AT_ONCE * WORD, np.int64)
    counts = np.zeros(batch, np.int64)
    total = 0
    for row in range(batch):
        before, last_start, decisions = total, 0, row_ends[row] - 1
        for first in range(0, decisions, CLOSED_AT_ONCE * WORD):
            flat = with_room(flat, total)
            size = min(CLOSED_AT_ONCE * WORD, decisions - first)
            here = words[row, first // WORD : (first + size + WORD - 1) // WORD]
            count, last_start = close_words(here, size, first + 1, last_start, shortest, cap, flat[total:])
            total += count
        if row_ends[row] > 0:
            flat = with_room(flat, total)
            flat[total] = row_ends[row] - last_start
            total += 1
        counts[row] = total - before
    if batch == 1:
        return flat[:total].reshape(1, total)
    lengths = np.empty((batch, counts.max() if batch else 0), np.int64)
    pad_rows(flat, counts, lengths)
    return lengths


@njit(cache=True, nogil=True)
def with_room(flat, used):
    """The same lengths, with room for those that the next words make and one more."""
    if flat.size >= used + 2 * CLOSED_AT_ONCE * WORD:
        return flat
    larger = np.empty(2 * flat.size, np.int64)
    larger[:used] = flat[:used]
    return larger

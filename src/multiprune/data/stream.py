"""Blocks of a corpus, numbered without end in the order that training reads them."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from multiprune.data.pieces import CorpusError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from datasets import Dataset
    from numpy.typing import NDArray

    from multiprune.data.ahead import Ahead
    from multiprune.data.pieces import Piece
    from multiprune.data.streamed_source import Corpus

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """Where in a stream a group of pieces begins.

    Attributes:
        epoch: how often all pieces came before.
        group: number of the group in its epoch.
        first: number of its first block in the stream.
        empty: how many pieces before it hold no text.
    """

    epoch: int = 0
    group: int = 0
    first: int = 0
    empty: int = 0


@dataclass(frozen=True)
class Group:
    """The blocks of some pieces, in the order in which they are read."""

    place: Place
    table: Dataset | None
    order: NDArray[np.int64]
    empty: int

    @property
    def end(self) -> int:
        """The number of the first block behind this group."""
        return self.place.first + len(self.order)

    def blocks(self, numbers: Sequence[int]) -> dict[str, list[Any]]:
        """Return the columns of blocks by their numbers in the stream."""
        rows = self.order[np.asarray(numbers) - self.place.first]
        return dict(self.table[rows.tolist()]) if self.table is not None else {}


class EncodedStream:
    """The blocks of a corpus, encoded as they are read: a table without end.

    Which block has number ``n`` depends on nothing but corpus, encoder and seed. Each time that all
    pieces were read they are shuffled anew; as many as the source's ``buffer`` are a group, whose
    blocks are shuffled together. One group is held at a time, and the next is encoded ahead. Blocks
    are found by reading on from the group of those before, or else from the beginning.

    Args:
        corpus: what is read.
        ahead: encodes the pieces.
        seed: of all shuffling.
        least: blocks that all pieces together must give: a batch.
        turn: rank and number of ranks, which begin with different pieces of a group.
    """

    def __init__(
        self,
        corpus: Corpus,
        ahead: Ahead,
        *,
        seed: Sequence[int],
        least: int,
        turn: tuple[int, int] = (0, 1),
    ) -> None:
        self.corpus, self.ahead, self.seed = corpus, ahead, list(seed)
        self.least, self.turn = least, turn
        self._start = Place()
        self._group: Group | None = None

    def __getitem__(self, numbers: Sequence[int]) -> dict[str, list[Any]]:
        """Return the columns of blocks, in the order of ``numbers``.

        Raises:
            CorpusError: if the corpus cannot be read, or gives fewer blocks than ``least``.
        """
        ordered, places = np.unique(numbers, return_inverse=True)
        wanted: list[int] = ordered.tolist()
        columns: dict[str, list[Any]] = {}
        while wanted:
            group = self._reach(wanted[0])
            here = [number for number in wanted if number < group.end]
            for key, values in group.blocks(here).items():
                columns.setdefault(key, []).extend(values)
            wanted = wanted[len(here) :]
        return {key: [values[place] for place in places] for key, values in columns.items()}

    @property
    def held(self) -> range:
        """The numbers of the blocks of the group that was read last."""
        group = self._group
        return range(0) if group is None else range(group.place.first, group.end)

    def state_dict(self) -> dict[str, Any]:
        """Return what a run that continues must know so as not to begin with the first piece."""
        place = self._start if self._group is None else self._group.place
        return {"corpus": self.corpus.fingerprint, "place": asdict(place)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with the group that ``state_dict`` told.

        Raises:
            CorpusError: if that was of another corpus.
        """
        if state["corpus"] != self.corpus.fingerprint:
            raise CorpusError(
                "A run must go on with the corpus that it began with, but files of "
                f"{self.corpus.origin} have come, gone or changed their size."
            )
        self._start, self._group = Place(**state["place"]), None

    def _reach(self, number: int) -> Group:
        group = self._group or self._read(self._start)
        if number < group.place.first:
            group = self._read(Place())
        while number >= group.end:
            group = self._read(self._behind(group))
        return group

    def _read(self, place: Place) -> Group:
        pieces = self._pieces(place.epoch, place.group)
        self.ahead.ask(self._by_turn(pieces) + self._by_turn(self._pieces_behind(place)))
        tables: dict[str, Dataset] = {}
        for piece in self._by_turn(pieces):
            self.ahead.wait(piece)
            tables[piece.fingerprint] = self.ahead.encoder(piece)
        self._group = self._shuffled(place, [tables[piece.fingerprint] for piece in pieces])
        return self._group

    def _shuffled(self, place: Place, tables: Sequence[Dataset]) -> Group:
        from datasets import concatenate_datasets

        filled = [table for table in tables if len(table)]
        table = concatenate_datasets(filled) if filled else None
        generator = np.random.default_rng([*self.seed, 1, place.epoch, place.group])
        order = generator.permutation(sum(map(len, filled)))
        return Group(place, table, order, len(tables) - len(filled))

    def _behind(self, group: Group) -> Place:
        place, empty = group.place, group.place.empty + group.empty
        if place.group + 1 < self._groups:
            return Place(place.epoch, place.group + 1, group.end, empty)
        if place.epoch == 0:
            self._check_whole(group.end, empty)
        return Place(place.epoch + 1, 0, group.end)

    def _check_whole(self, blocks: int, empty: int) -> None:
        if blocks < self.least:
            raise CorpusError(
                f"A corpus must give a batch of {self.least:,} blocks, but {self.corpus.origin} "
                f"gives {blocks:,}."
            )
        if empty:
            log.warning(
                "%s: %d of %d pieces hold no text.",
                self.corpus.origin, empty, len(self.corpus.pieces),
            )  # fmt: skip

    @property
    def _groups(self) -> int:
        return -(-len(self.corpus.pieces) // self.corpus.source.buffer)

    def _pieces(self, epoch: int, group: int) -> list[Piece]:
        generator = np.random.default_rng([*self.seed, 0, epoch])
        order = generator.permutation(len(self.corpus.pieces))
        buffer = self.corpus.source.buffer
        group_order = order[group * buffer : (group + 1) * buffer]
        return [self.corpus.pieces[index] for index in group_order]

    def _pieces_behind(self, place: Place) -> list[Piece]:
        if place.group + 1 < self._groups:
            return self._pieces(place.epoch, place.group + 1)
        return self._pieces(place.epoch + 1, 0)

    def _by_turn(self, pieces: Sequence[Piece]) -> list[Piece]:
        """Order pieces such that each rank begins with others."""
        rank, ranks = self.turn
        starts = [(rank + shift) % ranks for shift in range(ranks)]
        return [piece for start in starts for piece in pieces[start::ranks]]

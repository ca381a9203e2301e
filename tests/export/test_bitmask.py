import json
import math
import struct
import zlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from multiprune.export.bitmask import KEY, compress, decompress, load_bitmask, save_bitmask

FLOATS = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
INFINITY, NOT_A_NUMBER = float("inf"), float("nan")


def pruned(
    *shape: int, density: float, dtype: torch.dtype = torch.float32, seed: int = 0
) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    kept = torch.rand(shape, generator=random) < density
    # at least 1 in size, so that no kept weight rounds to zero in half precision
    return torch.where(kept, 1 + torch.rand(shape, generator=random), 0.0).to(dtype)


def same_bits(left: Tensor, right: Tensor) -> bool:
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}[left.itemsize]
    same_kind = left.dtype == right.dtype and left.shape == right.shape
    return same_kind and torch.equal(left.view(integers), right.view(integers))


def restored(stored: dict[str, Tensor], metadata: dict[str, str]) -> dict[str, Tensor]:
    return decompress(stored.keys(), stored.__getitem__, metadata)


def rewritten(
    stored: dict[str, Tensor], metadata: dict[str, str], changed: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Replace stored parts of tensor ``a`` and make all checksums match, as a forger would."""
    stored = stored | changed
    header = json.loads(metadata[KEY])
    header["tensors"]["a"]["checksums"] = [
        zlib.crc32(f"{part.dtype} {list(part.shape)}".encode() + part.numpy().tobytes())
        for part in (stored["a.values"], stored["a.mask"])
    ]
    described = json.dumps(header["tensors"], separators=(",", ":"), sort_keys=True)
    return stored, {KEY: json.dumps(header | {"checksum": zlib.crc32(described.encode())})}


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("density", [0.0, 0.001, 0.02, 0.12, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("shape", [(300, 301), (70001,), (3, 7, 1001)], ids=str)
def test_tensors_come_back_bit_for_bit(
    tmp_path: Path, dtype: torch.dtype, density: float, shape: tuple[int, ...]
) -> None:
    tensor = pruned(*shape, density=density, dtype=dtype)
    save_bitmask({"a": tensor}, tmp_path / "file")
    assert same_bits(load_bitmask(tmp_path / "file")["a"], tensor)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_special_values_come_back_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    smallest = torch.finfo(dtype).smallest_normal
    special = [-0.0, INFINITY, -INFINITY, NOT_A_NUMBER, -NOT_A_NUMBER, smallest / 4, -smallest / 4]
    tensor = torch.zeros(64, 64, dtype=dtype)
    tensor[5, 10:17] = torch.tensor(special, dtype=dtype)
    assert tensor.count_nonzero() == 6, "the denormals of this type must not have become zero"
    stored, _ = compress({"a": tensor})
    assert len(stored["a.values"]) == 7
    save_bitmask({"a": tensor}, tmp_path / "file")
    assert same_bits(load_bitmask(tmp_path / "file")["a"], tensor)


def test_payload_of_not_a_number_comes_back(tmp_path: Path) -> None:
    tensor = torch.zeros(64, 64)
    tensor.view(torch.int32)[3, 3] = 0x7F800001
    save_bitmask({"a": tensor}, tmp_path / "file")
    assert load_bitmask(tmp_path / "file")["a"].view(torch.int32)[3, 3] == 0x7F800001


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(0),
        torch.zeros(0, 5),
        torch.tensor(0.0),
        torch.zeros(8),
        torch.ones(200, 200),
        torch.zeros(200, 200, dtype=torch.int64),
        torch.zeros(200, 200, dtype=torch.bool),
        torch.zeros(200, 200, dtype=torch.complex64),
    ],
    ids=lambda tensor: f"{tensor.dtype} {list(tensor.shape)}",
)
def test_tensors_that_do_not_pay_are_stored_as_they_are(tmp_path: Path, tensor: Tensor) -> None:
    save_bitmask({"a": tensor}, tmp_path / "file")
    assert torch.equal(load_file(tmp_path / "file")["a"], tensor)
    loaded = load_bitmask(tmp_path / "file")["a"]
    assert (loaded.dtype, loaded.shape) == (tensor.dtype, tensor.shape)
    assert torch.equal(loaded, tensor)


def test_mask_counts_against_what_is_saved() -> None:
    tensor = torch.ones(1, 4096)
    tensor[0, torch.randperm(4096, generator=torch.Generator().manual_seed(0))[:70]] = 0.0
    # 280 bytes of zeros, and 64 of entropy: too little for the header that two parts take
    assert compress({"a": tensor})[0].keys() == {"a"}


def test_file_is_never_much_larger_than_a_dense_one(tmp_path: Path) -> None:
    tensors = {f"{n}": pruned(n, n, density=0.5, seed=n) for n in range(1, 40)}
    for name, tensor in tensors.items():
        save_file({name: tensor}, tmp_path / "dense")
        save_bitmask({name: tensor}, tmp_path / "file")
        assert (tmp_path / "file").stat().st_size <= (tmp_path / "dense").stat().st_size + 256


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("density", [0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9])
def test_random_masks_take_what_their_entropy_says(
    tmp_path: Path, dtype: torch.dtype, density: float
) -> None:
    tensor = pruned(1000, 1000, density=density, dtype=dtype)
    save_bitmask({"a": tensor}, tmp_path / "file")
    bits = -density * math.log2(density) - (1 - density) * math.log2(1 - density)
    bound = 1e6 * (bits / 8 + density * tensor.itemsize)
    size = (tmp_path / "file").stat().st_size
    # Deflate takes a bit for eight zeros at least, which are less than one where few are kept.
    more = 1.12 if density == 0.02 else 1.02
    assert 0.98 * bound < size < more * bound


def test_a_zero_costs_at_most_one_bit(tmp_path: Path) -> None:
    tensor = pruned(1000, 1000, density=0.5, dtype=torch.float16)
    save_bitmask({"a": tensor}, tmp_path / "file")
    values = 2 * int(tensor.count_nonzero())
    assert (tmp_path / "file").stat().st_size - values <= 1.005 * 1e6 / 8


def test_tensors_keep_their_order(tmp_path: Path) -> None:
    tensors = {"b": pruned(99, 99, density=0.1), "c": torch.ones(3), "a": torch.ones(2)}
    save_bitmask(tensors, tmp_path / "file")
    assert list(load_bitmask(tmp_path / "file")) == ["b", "c", "a"]


def test_views_and_parameters_are_saved_as_they_look(tmp_path: Path) -> None:
    tensor = pruned(100, 90, density=0.2)
    tensors = {"a": tensor.T, "b": torch.nn.Parameter(tensor[:, ::2])}
    save_bitmask(tensors, tmp_path / "file")
    loaded = load_bitmask(tmp_path / "file")
    assert torch.equal(loaded["a"], tensor.T)
    assert torch.equal(loaded["b"], tensor[:, ::2])


def test_values_and_mask_are_what_the_format_says(tmp_path: Path) -> None:
    tensor = pruned(100, 101, density=0.4)
    save_bitmask({"a": tensor}, tmp_path / "file")
    stored = load_file(tmp_path / "file")
    assert torch.equal(stored["a.values"], tensor[tensor != 0])
    packed = zlib.decompress(stored["a.mask"].numpy().tobytes())
    bits = [byte >> shift & 1 for byte in packed for shift in range(8)]
    assert bits[:10_100] == (tensor != 0).flatten().int().tolist()
    assert bits[10_100:] == [0] * 4


def test_same_tensors_give_the_same_file(tmp_path: Path) -> None:
    tensors = {f"{n}": pruned(99, 99, density=n / 10, seed=n) for n in range(10)}
    contents = set()
    for _ in range(8):
        save_bitmask(tensors, tmp_path / "file")
        contents.add((tmp_path / "file").read_bytes())
    assert len(contents) == 1


def test_file_holds_no_pickle(tmp_path: Path) -> None:
    tensors = {"a": pruned(99, 99, density=0.1), "b": torch.ones(3)}
    save_bitmask(tensors, tmp_path / "file")
    content = (tmp_path / "file").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    ends = [one["data_offsets"][1] for name, one in header.items() if name != "__metadata__"]
    assert header.keys() == {"__metadata__", "a.values", "a.mask", "b"}
    assert 8 + length + max(ends) == len(content), "there is nothing but header and tensors"


def test_loaded_tensors_do_not_change_with_the_file(tmp_path: Path) -> None:
    tensors = {"a": pruned(99, 99, density=0.1), "b": torch.ones(300)}
    save_bitmask(tensors, tmp_path / "file")
    loaded = load_bitmask(tmp_path / "file")
    size = (tmp_path / "file").stat().st_size
    with (tmp_path / "file").open("r+b") as file:
        file.write(bytes(size))
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
    loaded["b"][0] = 5.0


def test_names_that_would_be_stored_twice_are_refused() -> None:
    with pytest.raises(ValueError, match=r"stored as `a\.mask`, but"):
        compress({"a": torch.zeros(99, 99), "a.mask": torch.ones(3)})


def test_names_that_look_like_parts_are_kept(tmp_path: Path) -> None:
    tensors = {"a.values": torch.ones(3), "a.mask": pruned(99, 99, density=0.1)}
    save_bitmask(tensors, tmp_path / "file")
    loaded = load_bitmask(tmp_path / "file")
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)


def loaded_or_refused(file: Path) -> dict[str, Tensor] | str:
    try:
        return load_bitmask(file)
    except ValueError as error:
        return str(error)


def test_flipped_bits_are_refused_or_harmless(tmp_path: Path) -> None:
    tensors = {
        "a": pruned(1, 999, density=0.1),
        "b": pruned(1, 999, density=0.3),
        "c": torch.ones(3),
    }
    file = tmp_path / "file"
    save_bitmask(tensors, file)
    content = file.read_bytes()
    accepted = 0
    with file.open("r+b", buffering=0) as handle:
        for position, byte in enumerate(content):
            handle.seek(position)
            handle.write(bytes([byte ^ 1 << position % 8]))
            loaded = loaded_or_refused(file)
            if isinstance(loaded, str):
                assert str(file) in loaded
            else:
                accepted += 1
                assert list(loaded) == list(tensors)
                assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
            handle.seek(position)
            handle.write(bytes([byte]))
    assert accepted < 8, "only spaces that pad the header may be flipped"


@pytest.mark.parametrize("left", [0, 4, 100, -1])
def test_truncated_file_is_refused_by_name(tmp_path: Path, left: int) -> None:
    file = tmp_path / "file"
    save_bitmask({"a": pruned(99, 99, density=0.1)}, file)
    file.write_bytes(file.read_bytes()[:left])
    with pytest.raises(ValueError, match=rf"^`{file}` must be a whole safetensors file, but"):
        load_bitmask(file)


def test_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_bitmask(tmp_path / "file")


def test_file_of_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "file"
    save_file({"a": torch.ones(3)}, file, {"format": "pt"})
    with pytest.raises(ValueError, match=rf"^In `{file}`: Metadata must have the key `{KEY}`, but"):
        load_bitmask(file)


@pytest.mark.parametrize("part", ["a.values", "a.mask", "b"])
def test_changed_part_is_named(part: str) -> None:
    stored, metadata = compress({"a": pruned(99, 99, density=0.1), "b": torch.ones(3)})
    changed = stored[part].clone()
    changed.view(torch.uint8)[1] ^= 4
    with pytest.raises(ValueError, match=rf"^Stored tensor `{part}` must match its checksum"):
        restored(stored | {part: changed}, metadata)


def test_part_of_another_type_is_named() -> None:
    stored, metadata = compress({"b": torch.ones(3)})
    with pytest.raises(ValueError, match=r"^Stored tensor `b` must match its checksum"):
        restored({"b": stored["b"].view(torch.int32)}, metadata)


@pytest.mark.parametrize("part", ["a.values", "a.mask", "b"])
def test_missing_part_is_named(part: str) -> None:
    stored, metadata = compress({"a": pruned(99, 99, density=0.1), "b": torch.ones(3)})
    del stored[part]
    with pytest.raises(ValueError, match=rf"`{part}` is missing\.$"):
        restored(stored, metadata)


def test_tensor_that_nothing_is_said_of_is_refused() -> None:
    stored, metadata = compress({"a": pruned(99, 99, density=0.1)})
    with pytest.raises(ValueError, match=r"`other` is there besides\.$"):
        restored(stored | {"other": torch.ones(3)}, metadata)


@pytest.mark.parametrize("version", [1, 3, "2", None])
def test_unknown_version_is_refused(version: object) -> None:
    stored, metadata = compress({"a": torch.ones(3)})
    header = json.dumps(json.loads(metadata[KEY]) | {"version": version})
    with pytest.raises(ValueError, match=rf"^Version of `{KEY}` must be 2, but is {version!r}: "):
        restored(stored, {KEY: header})


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        ("{", "must be JSON, but"),
        ("[]", "must be 2, but is None"),
        ('{"version": 2}', "must match their checksum"),
    ],
)
def test_metadata_that_say_nothing_are_refused(header: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        restored({}, {KEY: header})


def test_values_of_another_number_are_refused() -> None:
    stored, metadata = compress({"a": pruned(100, 200, density=0.3)})
    fewer = stored["a.values"][:-1].contiguous()
    with pytest.raises(
        ValueError, match=r"^Mask of `a` must .*, but \d+ bits are set for \d+ values\.$"
    ):
        restored(*rewritten(stored, metadata, {"a.values": fewer}))

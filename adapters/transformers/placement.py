"""Where a model is put and how its numbers are stored: device, precision, and whether the memory is enough."""

from __future__ import annotations

import json
import logging
import os
import struct
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil
import torch

from ..base import ModelState
from ..errors import ConfigError, OutOfMemory
from .hub import Report
from .settings import ModelSettings

logger = logging.getLogger(__name__)

PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
# safetensors' names of the types a model computes in; all others are kept as they are.
STORED = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
ITEM_SIZES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
NATIVE_BFLOAT16 = ("amx_bf16", "avx512_bf16", "bf16", "arm_bf16", "sve_bf16")
CGROUP = Path("/sys/fs/cgroup")
# What loading and a first small KV cache take beside the weights.
OVERHEAD = 1.05
# Of what is free on each GPU, for the weights of a model that is spread over several.
SPREAD_SHARE = 0.8
GIGABYTE = 1e9

Header = dict[str, Any]


def choose_device(name: str) -> torch.device:
    """The device of that name, or for `auto` the best there is; raises ConfigError where it does not exist."""
    if name == "auto":
        best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return choose_device(best)
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"there is no device {name!r}; device is one of auto, cpu, mps, cuda, cuda:0 ...") from None
    if device.type == "cuda":
        return _cuda(device)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device is mps, but this machine or this build of torch has no Metal; set device: auto")
    if device.type not in ("cpu", "mps"):
        raise ConfigError(f"device {name!r} is not served; device is one of auto, cpu, mps, cuda, cuda:0 ...")
    return device


def _cuda(device: torch.device) -> torch.device:
    if not torch.cuda.is_available():
        built = "this build of torch is without CUDA" if torch.version.cuda is None else "the driver shows none"
        raise ConfigError(
            f"device is {device}, but there is no CUDA GPU here ({built}); install a CUDA build of torch and the "
            "NVIDIA driver, or set device: auto"
        )
    index = device.index or 0
    if index >= torch.cuda.device_count():
        raise ConfigError(f"device is {device}, but the GPUs here are cuda:0 to cuda:{torch.cuda.device_count() - 1}")
    return torch.device("cuda", index)


def choose_dtype(precision: str, stored: torch.dtype, device: torch.device) -> torch.dtype:
    """The type to compute in: as asked for, or for `auto` as stored if the device is good at that."""
    if precision != "auto":
        if precision not in PRECISIONS:
            raise ConfigError(f"there is no precision {precision!r}; it is one of auto, {', '.join(PRECISIONS)}")
        return PRECISIONS[precision]
    if stored not in PRECISIONS.values():
        stored = torch.float32
    if device.type == "cpu" and stored != torch.float32:
        return torch.bfloat16 if has_native_bfloat16() else torch.float32
    if device.type == "cuda" and stored == torch.bfloat16 and torch.cuda.get_device_capability(device) < (8, 0):
        return torch.float16
    return stored


@lru_cache(maxsize=1)
def has_native_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware; without, float32 is faster."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name) for name in NATIVE_BFLOAT16)


def read_headers(files: Iterable[Path]) -> list[Header]:
    """The tensors of each safetensors file: name -> type, shape, place. Raises ConfigError for a broken file."""
    return [_read_header(path) for path in files if path.suffix == ".safetensors"]


def _read_header(path: Path) -> Header:
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header: Header = json.loads(file.read(min(length, size)))
        header.pop("__metadata__", None)
        end = 8 + length + max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
    except (struct.error, ValueError, KeyError, TypeError, MemoryError, OverflowError):
        raise ConfigError(f"{path.name} is no safetensors file or a broken one; download the model again") from None
    if size < end:
        raise ConfigError(f"{path.name} is cut short ({size} of {end} bytes); download the model again")
    return header


def stored_dtype(headers: Iterable[Header]) -> torch.dtype | None:
    """The type that most of the weights are stored in, None if there is none to compute in."""
    counts: dict[torch.dtype, int] = {}
    for header in headers:
        for tensor in header.values():
            if (dtype := STORED.get(tensor["dtype"])) is not None:
                counts[dtype] = counts.get(dtype, 0) + _count(tensor)
    return max(counts, key=lambda dtype: counts[dtype]) if counts else None


def size_in_memory(headers: Iterable[Header], dtype: torch.dtype) -> int:
    """The bytes that the weights take once they are loaded as `dtype`."""
    total = 0
    for header in headers:
        for tensor in header.values():
            kind = tensor["dtype"]
            total += _count(tensor) * (dtype.itemsize if kind in STORED else ITEM_SIZES.get(kind, 1))
    return total


def _count(tensor: dict[str, Any]) -> int:
    count = 1
    for length in tensor["shape"]:
        count *= int(length)
    return count


def place(settings: ModelSettings, needed: int, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """Where `from_pretrained` is to put `needed` bytes of weights, as its arguments: on the device, or several GPUs.

    Raises OutOfMemory if they do not fit into what is free.
    """
    if device.type != "cuda" or settings.device == str(device):
        check_memory(settings, needed, device, dtype, free_memory(device))
        return on_one(device)
    free = [free_memory(device)]
    if needed * OVERHEAD > free[0]:  # to ask the others takes memory of each
        free += [free_memory(torch.device("cuda", index)) for index in range(1, torch.cuda.device_count())]
    chosen = gpus_for(needed * OVERHEAD, free)
    if len(chosen) < 2:
        best = torch.device("cuda", chosen[0] if chosen else free.index(max(free)))
        check_memory(settings, needed, best, dtype, free[best.index])
        return on_one(best)
    logger.info("%s is spread over the GPUs %s", settings.name, ", ".join(map(str, chosen)))
    return {"device_map": "auto", "max_memory": {index: int(free[index] * SPREAD_SHARE) for index in chosen}}


def on_one(device: torch.device) -> dict[str, Any]:
    """The arguments of `from_pretrained` for one device."""
    return {"device_map": None if device.type == "cpu" else {"": device}}


def gpus_for(needed: float, free: Sequence[int]) -> list[int]:
    """The GPUs for so many bytes of weights, where so many are free: the first one, another, or else several; or none.

    Of several each gives a share only: layers go to one as a whole, and what is computed needs memory, too.
    """
    by_room = sorted(range(len(free)), key=lambda index: -free[index])
    if needed <= free[0]:
        return [0]
    if needed <= free[by_room[0]]:
        return by_room[:1]
    for count in range(2, len(free) + 1):
        if needed <= SPREAD_SHARE * sum(free[index] for index in by_room[:count]):
            return sorted(by_room[:count])
    return []


def check_memory(settings: ModelSettings, needed: int, device: torch.device, dtype: torch.dtype, free: int) -> None:
    """Raise OutOfMemory if `needed` bytes of weights do not fit into what is `free`."""
    if needed * OVERHEAD <= free:
        return
    ways = ["a smaller model", "a quantized one"]
    if dtype == torch.float32:
        ways.insert(0, "precision: bfloat16")
    raise OutOfMemory(
        f"{settings.source} needs {needed * OVERHEAD / GIGABYTE:.1f} GB of memory as {str(dtype)[6:]} and "
        f"{free / GIGABYTE:.1f} GB are free on {device}; close other programs, or choose {' or '.join(ways)}"
    )


@contextmanager
def turn_to_load(report: Report) -> Iterator[None]:
    """Let none of this user's other models be loaded meanwhile: what is free would be counted on twice."""
    try:
        import fcntl

        place = Path(tempfile.gettempdir()) / f"model-compose-{os.getuid()}.loading"
        lock = os.open(place, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except (ImportError, OSError):  # Windows, or a folder for temporary files that is none
        logger.debug("models may be loaded at the same time", exc_info=True)
        yield
        return
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(ModelState("loading", "waiting until another model is loaded"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on a device; a container's limit counts."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = int(psutil.virtual_memory().available)
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        used = int((CGROUP / "memory.current").read_text())
        cached = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return free
    return free if limit == "max" else min(free, int(limit) - used + int(cached.get("inactive_file", 0)))


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that there was no memory left, on whatever device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and ("DefaultCPUAllocator" in str(error) or "out of memory" in str(error))

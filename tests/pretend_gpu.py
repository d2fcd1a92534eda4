"""A GPU for machines that have none: its tensors say that they are on cuda:0, hold numbers of the CPU, and count the waits.

    with pretend_gpu.present() as waits:
        script("exec_train.py", ...)

What CUDA refuses is refused: operands on two devices, a generator of one device that draws on the other, `numpy()` of a
tensor on the GPU, a file whose tensors were there and that is loaded without `map_location`. Kernels and draws are the
CPU's, so that a result equals the CPU's to rounding. `waits` counts by place in `lib/` what makes the host wait for the
device, as `torch.cuda.set_sync_debug_mode` would report it: numbers that Python reads, blocking copies, outputs whose size
depends on values.

Not modelled: speed, memory, streams, kernels (nor the errors of theirs alone), `torch.compile`, fused optimisers.
"""

import contextlib
import functools
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

LIB = str(Path(__file__).resolve().parent.parent / "lib")
GPU, CPU = torch.device("cuda", 0), torch.device("cpu")

INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}  # the index may lie on the CPU
# these refuse even a number (a tensor without dimensions) of the other device
NOT_EVEN_NUMBERS = {"cat", "stack", "mm", "bmm", "addmm", "dot", "mv", "gather", "scatter", "index_select", "embedding"}
# what has to see values before Python can go on
WAITING = {
    "_local_scalar_dense", "nonzero", "masked_select", "equal", "bincount", "unique_dim", "unique_consecutive", "_unique2",
    "repeat_interleave", "_linalg_check_errors", "_linalg_eigh", "_linalg_svd", "linalg_lstsq",
}  # fmt: skip

waits: Counter[str] = Counter()


def wait() -> None:
    """Counts one wait of the host, at the place in `lib/` that asked for it."""
    frame = sys._getframe(1)
    while frame and not frame.f_code.co_filename.startswith(LIB):
        frame = frame.f_back
    waits[f"{frame.f_code.co_filename[len(LIB) - 3 :]}:{frame.f_lineno}" if frame else "elsewhere"] += 1


class OnGpu(torch.Tensor):
    """A tensor on the pretended GPU; `held` has its numbers. To torch's C++ side it is one of the CPU without memory."""

    held: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "OnGpu":
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype, device=CPU
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return run(operation, args, kwargs or {})

    device = property(lambda self: GPU)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    def get_device(self) -> int:
        return 0

    def to(self, *args, **kwargs) -> torch.Tensor:
        device, non_blocking, rest, named = _arguments_of_to(*args, **kwargs)
        values = _plain_to(self, *rest, **named) if rest or named else self
        return values if device is None or device.type == "cuda" else _download(values, non_blocking)

    def cpu(self, memory_format=torch.preserve_format) -> torch.Tensor:
        return _download(self)

    def cuda(self, *args, **kwargs) -> "OnGpu":
        return self

    def pin_memory(self, *args) -> torch.Tensor:
        raise RuntimeError("cannot pin 'torch.cuda.FloatTensor': only dense CPU tensors can be pinned")

    def numpy(self, **options):
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")

    def __array__(self, *args, **kwargs):
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")

    def __format__(self, form: str) -> str:
        wait()
        return format(self.held, form)

    def tolist(self) -> list:
        wait()
        return self.held.tolist()

    def new_tensor(self, data, *, dtype=None, device=GPU, requires_grad=False) -> torch.Tensor:
        return torch.tensor(data, dtype=dtype or self.dtype, device=device, requires_grad=requires_grad)

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.held.untyped_storage()

    def __deepcopy__(self, memo: dict) -> torch.Tensor:
        made = OnGpu(self.held.detach().clone()).requires_grad_(self.requires_grad)
        memo[id(self)] = made = torch.nn.Parameter(made, self.requires_grad) if hasattr(self, "_is_param") else made
        return made

    def __reduce_ex__(self, protocol):
        _saved.add(self.held.untyped_storage().data_ptr())
        return self.held.detach().__reduce_ex__(protocol)

    def __repr__(self, **options) -> str:
        return f"OnGpu({self.held!r})"


def run(operation, args: tuple, kwargs: dict):
    """What the device would answer to an operation of torch, or its error."""
    name = operation._schema.name.partition("::")[2]
    given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    there = [tensor for tensor in given if isinstance(tensor, OnGpu)]
    asked = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
    device = GPU if there or (asked is not None and asked.type == "cuda") else CPU
    if len(there) < len(given):
        _refuse_two_devices(name, args, given, there)
    if (draws := kwargs.get("generator")) is not None and _of_generator.get(draws._cdata, CPU).type != device.type:
        raise RuntimeError(f"{name}: a generator of the {_of_generator[draws._cdata]} cannot draw on {device}")
    if there and (name in WAITING or _looks_at_index(name, args) or _crosses(name, args, kwargs)):
        wait()
    held_args, held_kwargs = tree_map_only(OnGpu, lambda tensor: tensor.held, (args, kwargs))
    if asked is not None and asked.type == "cuda":
        held_kwargs["device"] = CPU
    result = operation(*held_args, **held_kwargs)
    if device == CPU:
        return result
    if torch.Tag.inplace_view in operation.tags:  # as squeeze_, which gives the tensor another shape
        with no_dispatch():
            operation(*args, **kwargs)
    known = {id(tensor): tensor for tensor in given} | {id(tensor.held): tensor for tensor in there}

    def put(tensor: torch.Tensor) -> torch.Tensor:
        before = known.get(id(tensor))
        if isinstance(before, OnGpu) and before.shape != tensor.shape:
            raise NotImplementedError(f"{name}: the shape of a tensor on the pretended GPU is changed in place")
        return OnGpu(tensor) if before is None else before

    return tree_map_only(torch.Tensor, put, result)


def _refuse_two_devices(name: str, args: tuple, given: list[torch.Tensor], there: list[torch.Tensor]) -> None:
    """The error of an operation on tensors of both devices: those are allowed to be numbers, copied, or an index."""
    if not there:
        return
    if name in INDEXING:
        wrong = not isinstance(args[0], OnGpu)
    elif name == "copy_":
        wrong = False
    else:
        others = [tensor for tensor in given if not isinstance(tensor, OnGpu)]
        in_place = name.endswith("_") and not name.startswith("_") and others[0] is args[0]
        wrong = name in NOT_EVEN_NUMBERS or in_place or any(tensor.ndim for tensor in others)
    if wrong:
        found = ", ".join(f"{tuple(tensor.shape)} on {tensor.device}" for tensor in given)
        raise RuntimeError(f"{name}: expected all tensors to be on the same device, but found {found}")


def _looks_at_index(name: str, args: tuple) -> bool:
    """Whether an index has to be counted (a mask, but one that a number is written to) or copied from the CPU."""
    if name not in INDEXING:
        return False
    index = [tensor for tensor in args[1] if tensor is not None]
    filled = name != "index" and args[2].numel() == 1 and not any(args[3:])
    return any(not isinstance(tensor, OnGpu) or (tensor.dtype == torch.bool and not filled) for tensor in index)


def _crosses(name: str, args: tuple, kwargs: dict) -> bool:
    """Whether values are copied between the devices, and Python waits until they are there."""
    if name != "copy_" or isinstance(args[0], OnGpu) == isinstance(args[1], OnGpu):
        return False
    return not (kwargs.get("non_blocking") or any(args[2:]))


class _Everywhere(TorchDispatchMode):
    """Sees the operations without a tensor of the GPU among their operands, too: those that make one."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return run(operation, args, kwargs or {})


class _Upload(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values):
        return OnGpu(values.detach().clone())

    @staticmethod
    def backward(ctx, gradient):
        return gradient.held


class _Download(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values):
        return values.held.detach().clone()

    @staticmethod
    def backward(ctx, gradient):
        return OnGpu(gradient)


def _download(values: OnGpu, non_blocking: bool = False) -> torch.Tensor:
    if not non_blocking:
        wait()
    return _Download.apply(values)


def _upload(values: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    if not non_blocking:
        wait()
    return _Upload.apply(values)


def _arguments_of_to(*args, **kwargs) -> tuple[torch.device | None, bool, list, dict]:
    """The device, whether not to wait, and what is left, of the arguments of `Tensor.to`."""
    device, rest, flags = kwargs.pop("device", None), [], []
    other = kwargs.pop("other", None)
    for word in (*args, *([] if other is None else [other])):
        if isinstance(word, torch.Tensor):
            device, rest = word.device, [*rest, word.dtype]
        elif isinstance(word, str | int | torch.device) and not isinstance(word, bool):
            device = word
        elif isinstance(word, bool):
            flags.append(word)
        elif word is not None:
            rest.append(word)
    non_blocking = kwargs.pop("non_blocking", flags[0] if flags else False)
    kwargs = {key: value for key, value in kwargs.items() if value is not None}
    return None if device is None else torch.device(device), non_blocking, rest, kwargs


_plain_to = torch.Tensor.to
_saved: set[int] = set()  # addresses of what is being saved, and of what was loaded, from the GPU
_of_generator: dict[int, torch.device] = {}


def _to(self: torch.Tensor, *args, **kwargs) -> torch.Tensor:
    """`Tensor.to` of a tensor on the CPU."""
    device, non_blocking, rest, named = _arguments_of_to(*args, **kwargs)
    values = _plain_to(self, *rest, **named) if rest or named else self
    if device is None:
        return values
    return _upload(values, non_blocking) if device.type == "cuda" else _plain_to(values, device, non_blocking=non_blocking)


class _Generator(torch._C.Generator):
    """A generator that knows for which device it was made."""

    def __new__(cls, device="cpu"):
        made = super().__new__(cls, device="cpu")
        _of_generator[made._cdata] = made.made_for = GPU if torch.device(device).type == "cuda" else CPU
        return made

    device = property(lambda self: self.made_for)


def _made_on(make):
    """`torch.tensor` or `torch.as_tensor`, for either device."""

    @functools.wraps(make)
    def made(data, *, dtype=None, device=None, **options):
        if isinstance(data, OnGpu):
            return data.detach().clone().to(device or GPU, dtype or data.dtype)
        values = make(data, dtype=dtype, **options)
        return values if device is None else values.to(device).requires_grad_(options.get("requires_grad", False))

    return made


def _one_hot(make):
    """`one_hot`, whose kernel looks at the classes on the CPU alone."""

    def made(labels, num_classes=-1):
        if not isinstance(labels, OnGpu):
            return make(labels, num_classes)
        if num_classes < 0:
            wait()
        return OnGpu(make(labels.held, num_classes))

    return made


def _location(tag):
    return lambda storage: "cuda:0" if storage.data_ptr() in _saved else tag(storage)


def _restored(restore):
    def put(storage, location):
        if location.startswith("cuda"):
            _saved.add(storage.data_ptr())
            return storage
        return restore(storage, location)

    return put


def _loaded(load):
    def loaded(*args, **kwargs):
        content = load(*args, **kwargs)
        there = lambda tensor: OnGpu(tensor) if tensor.untyped_storage().data_ptr() in _saved else tensor  # noqa: E731
        content = tree_map_only(torch.Tensor, there, content)
        _saved.clear()
        return content

    return loaded


def _saving(save):
    def saving(*args, **kwargs):
        save(*args, **kwargs)
        _saved.clear()

    return saving


def _grouped(group):
    """Groups of tensors by device and type, which C++ makes."""

    def grouped(lists, with_indices=False):
        found = group(lists, with_indices)
        return {(GPU if isinstance(each[0][0][0], OnGpu) else key[0], key[1]): each for key, each in found.items()}

    return grouped


class _autocast(torch.autocast):
    def __init__(self, device_type: str, *args, **kwargs) -> None:
        super().__init__("cpu", *args, **kwargs)


CUDA = {
    "is_available": lambda: True,
    "is_initialized": lambda: True,
    "init": lambda: None,
    "_lazy_init": lambda: None,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "get_device_name": lambda *device: "pretended",
    "get_device_capability": lambda *device: (9, 0),
    "is_bf16_supported": lambda *emulated: True,
    "synchronize": lambda *device: wait(),
    "manual_seed": lambda seed: None,
    "manual_seed_all": lambda seed: None,
    "get_rng_state": lambda *device: torch.get_rng_state(),
    "set_rng_state": lambda state, *device: torch.set_rng_state(state),
    "mem_get_info": lambda *device: (2**36, 2**36),
    "empty_cache": lambda: None,
    "is_current_stream_capturing": lambda: False,
}


@contextlib.contextmanager
def present() -> Iterator[Counter[str]]:
    """As if there were a GPU, while the block runs; yields the waits in it, by place."""
    waits.clear()
    with pytest.MonkeyPatch.context() as patch:
        for name, answer in CUDA.items():
            patch.setattr(torch.cuda, name, answer)
        patch.setattr(torch.cuda.random, "manual_seed", CUDA["manual_seed"])  # as libraries call it
        patch.setattr(torch, "Generator", _Generator)
        patch.setattr(torch, "autocast", _autocast)
        patch.setattr(torch.Tensor, "to", _to)
        patch.setattr(torch.Tensor, "cuda", lambda self, device=0, non_blocking=False: _to(self, GPU, non_blocking))
        patch.setattr(torch.Tensor, "pin_memory", lambda self, *device: self)
        patch.setattr(torch, "tensor", _made_on(torch.tensor))
        patch.setattr(torch, "as_tensor", _made_on(torch.as_tensor))
        patch.setattr(torch.nn.functional, "one_hot", _one_hot(torch.nn.functional.one_hot))
        files = torch.serialization
        patch.setattr(files, "location_tag", _location(files.location_tag))
        patch.setattr(files, "default_restore_location", _restored(files.default_restore_location))
        patch.setattr(torch.optim.Optimizer, "_accelerator_graph_capture_health_check", lambda self: None)
        clipping = torch.nn.utils.clip_grad
        name = "_group_tensors_by_device_and_dtype"
        patch.setattr(clipping, name, _grouped(getattr(clipping, name)))
        patch.setattr(torch, "save", _saving(torch.save))
        patch.setattr(torch, "load", _loaded(torch.load))
        swapped = torch.__future__.get_swap_module_params_on_conversion()
        torch.__future__.set_swap_module_params_on_conversion(True)  # a parameter that moves stays the same object
        try:
            with _Everywhere():
                yield waits
        finally:
            torch.__future__.set_swap_module_params_on_conversion(swapped)

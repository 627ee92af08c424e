"""One way to run an nn.Module, a TorchScript module and an exported program, leaving each as it was."""

from __future__ import annotations

import hashlib
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from ...errors import KnownotError, ModelError

DRAWING = threading.RLock()  # held by whoever forks the process's random state
_SWITCHING = threading.Lock()
_switched: dict[
    int, tuple[Any, int]
] = {}  # {id: (module in training mode, how many passes want it in evaluation mode)}


@contextmanager
def in_evaluation(whole: nn.Module) -> Iterator[None]:
    """Every module of `whole` in evaluation mode. The first pass switches a module and the last one switches it back,
    so that no pass sees training mode because another one has ended, and none takes the other's mode for the user's.

    Flags are set one by one: `eval()` may be overridden to do more (merge adapters into weights, say).
    """
    with _SWITCHING:
        mine = [m for m in whole.modules() if id(m) in _switched or getattr(m, "training", False)]
        for module in mine:
            _switched[id(module)] = (module, _switched.get(id(module), (module, 0))[1] + 1)
            module.training = False
    try:
        yield
    finally:
        with _SWITCHING:
            for module in mine:
                _, passes = _switched.pop(id(module))
                if passes > 1:
                    _switched[id(module)] = (module, passes - 1)
                else:
                    module.training = True


class Network:
    """A classifier that can be called on a tensor.

    thing: what was given, unwrapped; kind: "module", "script" or "program"; module: what is called.
    draws: whether a pass draws random numbers; True until that has been looked at.
    paths: for an exported program, {computing step: names of the modules it is in}, else empty.
    """

    draws = True

    def __init__(self, thing: Any) -> None:
        while isinstance(thing, nn.Module) and hasattr(thing, "_orig_mod"):  # torch.compile: its fusion hides the steps
            thing = thing._orig_mod
        if isinstance(thing, nn.DataParallel):
            thing = thing.module
        self.thing = thing
        self.keyword: str | None = None
        if isinstance(thing, ExportedProgram):
            self.kind = "program"
            self._refuse_training(thing)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.module: nn.Module = thing.module()
                self.keyword = self._only_keyword(thing)
        elif isinstance(thing, torch.jit.ScriptModule):
            self.kind, self.module = "script", thing
        elif isinstance(thing, nn.Module):
            self.kind, self.module = "module", thing
        else:
            raise ModelError(
                f"A {type(thing).__module__}.{type(thing).__qualname__} is no classifier. Give an nn.Module, a "
                "TorchScript module or a torch.export program."
            )
        self._refuse_empty()
        first = next((p for p in self.module.parameters() if p.is_floating_point()), None)
        self._example = first if first is not None else torch.zeros(())

    def _refuse_empty(self) -> None:
        empty = [name for name, weight in self.module.named_parameters() if weight.is_meta]
        if empty:
            raise ModelError(
                f"{len(empty)} weights of this network, first {empty[0]!r}, are on the device 'meta': they have shapes "
                "but no values. Load them: without device_map= or init_empty_weights(), or with load_state_dict(…, "
                "assign=True)."
            )

    @staticmethod
    def _refuse_training(program: ExportedProgram) -> None:
        if program.graph_signature.buffers_to_mutate:
            raise ModelError(
                "This exported program changes its own state when it runs: it was exported in training mode. "
                "Call model.eval() before torch.export.export."
            )

    @staticmethod
    def _only_keyword(program: ExportedProgram) -> str | None:
        names = program.graph_signature.user_inputs
        if len(names) != 1:
            raise ModelError(
                f"A classifier has one input, the images; this exported program has {len(names)}: {names}."
            )
        try:
            args, kwargs = program.call_spec.in_spec.children_specs
        except (AttributeError, ValueError):
            return None
        return None if args.num_leaves else str(kwargs.context[0])

    @property
    def device(self) -> torch.device:
        return self._example.device

    @property
    def dtype(self) -> torch.dtype:
        return self._example.dtype

    def layers(self) -> dict[int, str]:
        """{address of a parameter or buffer: the layer it belongs to}, as of now."""
        found: dict[int, str] = {}
        for tensors in (self.module.named_parameters(), self.module.named_buffers()):
            for name, tensor in tensors:
                address = address_of(tensor)
                if address:
                    found.setdefault(address, name.rpartition(".")[0])
        return found

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """In evaluation mode, without gradients; afterwards every flag and the random state are as before.

        Any number of threads may be in it at once, with one module or with modules that share layers. What belongs to
        the whole process, the random state, is set back only for networks that draw from it, one thread at a time.
        """
        with ExitStack() as stack:
            if self.draws:
                stack.enter_context(DRAWING)
                stack.enter_context(torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []))
            stack.enter_context(torch.inference_mode())
            if torch.is_autocast_enabled(self.device.type):
                stack.enter_context(torch.autocast(self.device.type, enabled=False))
            if self.kind == "script":  # fused kernels would hide the steps
                stack.enter_context(torch.jit.optimized_execution(False))
            stack.enter_context(in_evaluation(self.module))
            yield

    def random_state(self) -> list[torch.Tensor]:
        """Of every generator that it may draw from by default."""
        cuda = [torch.cuda.get_rng_state(self.device)] if self.device.type == "cuda" else []
        return [torch.get_rng_state(), *cuda]

    def __call__(self, x: torch.Tensor) -> Any:
        """Its output, whatever its type. Raises ModelError when it raises."""
        try:
            return self.module(**{self.keyword: x}) if self.keyword else self.module(x)
        except KnownotError:
            raise
        except Exception as error:
            raise ModelError(
                f"The classifier raised {type(error).__name__} for a batch of shape {tuple(x.shape)}, {x.dtype}: "
                f"{_shorten(error)}"
            ) from error

    def fingerprint(self) -> str:
        """sha256 over the distinct weights: their shapes, types and bytes, in no order.

        Integer buffers are left out: counters and index tables come and go when a module is exported.
        """
        source: Any = self.thing if self.kind == "program" else self.module
        tensors = list(source.state_dict.values() if self.kind == "program" else source.state_dict().values())
        if not tensors and self.kind == "script":
            tensors = _constants(source)
        return hashlib.sha256("".join(sorted({_digest(t) for t in tensors if _is_weight(t)})).encode()).hexdigest()


def address_of(tensor: torch.Tensor) -> int:
    """Where its data begin; 0 for a tensor without storage (mkldnn, meta)."""
    try:
        return tensor.data_ptr()
    except RuntimeError:
        return 0


def _is_weight(tensor: Any) -> bool:
    skipped = (torch.int64, torch.int32, torch.bool)
    return isinstance(tensor, torch.Tensor) and tensor.dtype not in skipped


def _digest(tensor: torch.Tensor) -> str:
    plain = tensor.detach().cpu()
    plain = plain.to_dense() if plain.layout != torch.strided else plain
    head = f"{tuple(plain.shape)} {plain.dtype}".encode()
    if plain.is_quantized:
        head += f"{plain.qscheme()}".encode()
        plain = plain.int_repr()
    data = plain.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""
    return hashlib.sha256(head + data).hexdigest()


def _constants(script: Any) -> list[torch.Tensor]:
    """The weights of a frozen TorchScript module, which are constants of its graph."""
    found = []
    graph = script.inlined_graph  # its nodes live as long as it is held
    for node in graph.findAllNodes("prim::Constant"):
        if "value" in node.attributeNames() and node.kindOf("value") == "t":
            found.append(node.t("value"))
    return found


def _shorten(error: Exception, most: int = 400) -> str:
    """On one line; of a long message the beginning and the end, where TorchScript says what happened."""
    text = " ".join(str(error).split())
    return text if len(text) <= most else f"{text[: most // 2]} … {text[-most // 2 :]}"

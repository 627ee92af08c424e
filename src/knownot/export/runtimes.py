"""What runs an exported file here: onnxruntime, or another runtime to compare with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from ..errors import SavedError, missing_extra, unknown_name

OUTPUTS = ("label", "unknown", "p_value", "score", "closed_label", "probabilities")
Run = Callable[[np.ndarray], dict[str, np.ndarray]]  # images of one batch -> outputs by name


def runner(file: Path | bytes, runtime: str = "onnxruntime", *, threads: int = 0) -> Run:
    """The file opened by a runtime of `RUNTIMES`. Raises SavedError when it cannot be, OptionError for another name."""
    if runtime not in RUNTIMES:
        raise unknown_name("runtime", runtime, RUNTIMES)
    return RUNTIMES[runtime](file, threads)


def by(size: int | None, run: Run) -> Run:
    """`run` for any number of images, where the file takes `size` at a time (None: any); the last are filled up."""
    if size is None:
        return run

    def parts(images: np.ndarray) -> dict[str, np.ndarray]:
        chunks = [images[i : i + size] for i in range(0, len(images), size)]
        short = size - len(chunks[-1])
        chunks[-1] = np.concatenate([chunks[-1], np.repeat(chunks[-1][-1:], short, axis=0)])
        made = [run(chunk) for chunk in chunks]
        return {name: np.concatenate([m[name] for m in made])[: len(images)] for name in made[0]}

    return parts


def _onnxruntime(file: Path | bytes, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.use_deterministic_compute = True
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(
            file if isinstance(file, bytes) else str(file), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's errors share no base class of their own
        raise SavedError(
            f"onnxruntime {onnxruntime.__version__} cannot open the exported file: {error} If an operator or opset is "
            "unknown, update onnxruntime; otherwise the file is damaged: copy or export it again."
        ) from error
    names, (first, *_) = [o.name for o in session.get_outputs()], session.get_inputs()

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(None, {first.name: images}), strict=True))

    return run


def _openvino(file: Path | bytes, threads: int) -> Run:
    try:
        import openvino
    except ImportError as error:
        raise missing_extra("openvino", "openvino", "--runtime openvino") from error
    core = openvino.Core()
    config: dict[str, str | int] = {"INFERENCE_PRECISION_HINT": "f32"}  # its default, bf16, is another network
    if threads:
        config["INFERENCE_NUM_THREADS"] = threads
    try:
        model = core.read_model(file if isinstance(file, bytes) else str(file))
        compiled = core.compile_model(model, "CPU", config)
    except Exception as error:  # whatever its C++ raises
        raise SavedError(f"OpenVINO {openvino.__version__} cannot open the exported file: {error}") from error
    outputs = [(name, compiled.output(name)) for name in OUTPUTS]

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        made = compiled([images])
        return {name: np.asarray(made[o]) for name, o in outputs}

    return run


RUNTIMES: Mapping[str, Callable[[Path | bytes, int], Run]] = {"onnxruntime": _onnxruntime, "openvino": _openvino}

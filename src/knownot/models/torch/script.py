"""What a TorchScript file would run, looked through before any of it runs.

torch.jit.load itself runs code of the file: `__setstate__`, default arguments and constants of classes. So the source
is looked through first, as words: an operator can only be called by its name. That is coarse and leaves nothing out.
Then, loaded, every graph is looked through node by node, which is exact.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any

import torch

from .archive import Archive
from .operators import ALLOWED, PACKED

OWN = re.compile(rf"__torch__\.torch\.classes\.({'|'.join(sorted(PACKED))})\.\w+", re.ASCII)
GETATTR = re.compile(r'getattr\([\w.()]+, "([^"\\]*)"\)', re.ASCII)
STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"')
BARE = frozenset({"print", "rpc_async", "rpc_sync", "rpc_remote"})  # what is called without a dot before it


@functools.cache
def _list_forbidden() -> frozenset[str]:
    """Names of torch's own operators that are not on the list."""
    names = {schema.name for schema in torch._C._jit_get_all_schemas() if schema.name.startswith("aten::")}
    return frozenset(name.removeprefix("aten::") for name in names - ALLOWED)


def in_source(archive: Archive) -> set[str]:
    """What the source of a TorchScript archive names that is not on the list."""
    found: set[str] = set()
    for name in archive.names:
        ending = name.casefold()  # torch finds members in any case
        if ending.endswith(".py"):
            found |= _in_text(archive.read(name).decode("latin-1"))
        elif ending.endswith(".pkl"):  # of objects; which are of classes in the source, or of C++
            data = archive.read(name).decode("latin-1")
            for use in re.finditer(r"(torch[.\n])?classes([.\n]\w+)?", data, re.ASCII):
                after = use[2] or ""
                if (use[1] or after[:1] == ".") and after[1:] not in PACKED:
                    found.add(f"objects of torch.classes{after.replace(chr(10), '.')}")
    if any(name.casefold() == "model.json" for name in archive.names):
        found.add("the format of torch 1.1 and before, which is not looked through")
    return found


def _in_text(text: str) -> set[str]:
    found = set()
    for use in re.finditer(r"__torch__(\.\w+)*", text, re.ASCII):
        path = use[0] + "."
        into = path.startswith("__torch__.torch.classes.")
        if not OWN.match(use[0]) if into else "__torch__.torch.classes.".startswith(path):
            found.add(use[0])
    for use in re.finditer(r"(?<![\w.])ops\b(\.(\w+)\.(\w+))?", text, re.ASCII):
        if not use[1] or f"{use[2]}::{use[3]}" not in ALLOWED:
            found.add(f"{use[2]}::{use[3]}" if use[1] else "ops")
    literals = [m[1] for m in GETATTR.finditer(text)]
    if len(re.findall(r"\bgetattr\b", text, re.ASCII)) != len(literals):
        found.add("getattr")
    code, dotted = STRING.sub('""', text), text
    if '"""' not in text and not set(code.replace('""', "")) & set("#'\"\\"):  # as torch writes it
        if not re.search(r"(?<!getattr\()\bself\b(?!\.|: __torch__\.|\)\.)", code, re.ASCII):  # it is never bound anew
            code = re.sub(r"(?<![\w.])self\.\w+", "", code, flags=re.ASCII)  # attributes of modules
        dotted = " ".join(re.findall(r"\.\s*(\w+)", code, re.ASCII))
    else:
        code = text
    words = _words(dotted).union(*map(_words, literals))
    found |= {"prim::Print" if word == "print" else f"prim::{word}" for word in _words(code) & BARE}
    return found | {f"aten::{word}" for word in words & _list_forbidden()}


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text, re.ASCII))


def in_graphs(script: Any) -> set[str]:
    """What the methods and hooks of all its modules compute that is not on the list."""
    found: set[str] = set()
    seen = set()
    for module in script.modules():
        inner = module._c
        of = inner._type().qualified_name()
        if of in seen:
            continue
        seen.add(of)
        methods = [inner._get_method(name) for name in inner._method_names()]
        for run in (*methods, *inner._get_forward_hooks(), *inner._get_forward_pre_hooks()):
            found |= foreign(run.inlined_graph)
    return found


def foreign(graph: Any) -> set[str]:
    """What a graph and those within it compute that is not on the list."""
    return {name for node in _nodes(graph) if (name := _foreign(node))}


def _nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)
        for name in node.attributeNames():
            kind = node.kindOf(name)
            for graph in [node.g(name)] if kind == "g" else node.gs(name) if kind == "gs" else []:
                inner = graph.copy()
                torch._C._jit_pass_inline(inner)  # the body of a fork, whose calls are not inlined with the rest
                yield from _nodes(inner)


def _foreign(node: Any) -> str:
    """The name of what this node does, if it is not on the list, else ""."""
    kind = node.kind()
    if kind in ("prim::CallMethod", "prim::CreateObject"):
        thing = next(node.inputs()) if kind == "prim::CallMethod" else node.output()
        name = thing.type().annotation_str
        if OWN.fullmatch(name) or (kind == "prim::CreateObject" and "torch.classes" not in name):
            return ""
        return f"{kind} of {name}"
    if kind in ("aten::sort", "aten::sorted") and "__torch__" in next(node.inputs()).type().annotation_str:
        return f"{kind} by a method of the file"  # called from within the operator
    return "" if kind in ALLOWED else str(kind)

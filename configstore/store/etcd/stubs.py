"""Makes the `etcd3` package importable with today's protobuf; everybody here takes gRPC stubs from this module.

etcd3 0.12.0 carries code that was generated for protobuf 3 and fails under 4 and later. Only the *code* is
old; the serialized descriptors inside it are fine. So, before the first `import etcd3`, the three
`etcd3/etcdrpc/*_pb2.py` of the installed package are read as text, their `serialized_pb` literals go into a
private descriptor pool (no clash with other users of protobuf in the process), and modules with the message
classes take the place of the generated ones. No code generator and no copy of etcd's interface is shipped.

Fields that etcd gained after 2020 are not in them; `messages` knows those by their numbers. (To add them to the
descriptors would take protobuf's own descriptor classes, 3.6 MiB of every sidecar's memory.)
"""

import ast
import importlib
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from google.protobuf import descriptor_pool, message_factory

_PACKAGE = "etcd3.etcdrpc"
_MARK = "configstore_built"
_FILES = ("kv", "auth", "rpc")  # in the order in which they import each other

_SERIALIZED = re.compile(r"^  serialized_pb=_b\((.*)\)$", re.MULTILINE)


def serialized_descriptor(source: str) -> bytes:
    """Return the file descriptor inside the text of a generated module. Raises ImportError."""
    found = _SERIALIZED.search(source)
    if found is None:
        raise ImportError("etcd3: its generated code is not that of release 0.12.0; install etcd3==0.12.0")
    return str(ast.literal_eval(found[1])).encode("latin-1")


def _load(folder: Path, pool: descriptor_pool.DescriptorPool, name: str) -> ModuleType:
    """Build the module that takes the place of `{name}_pb2`: messages, enums and their values."""
    source = (folder / f"{name}_pb2.py").read_text(encoding="utf-8")
    descriptor = pool.AddSerializedFile(serialized_descriptor(source))
    module = ModuleType(
        f"{_PACKAGE}.{name}_pb2", f"Messages of etcd's {name}.proto, built from etcd3's descriptors."
    )
    setattr(module, _MARK, True)
    module.__dict__["DESCRIPTOR"] = descriptor
    for message_name, message_type in descriptor.message_types_by_name.items():
        module.__dict__[message_name] = message_factory.GetMessageClass(message_type)
    for enum in descriptor.enum_types_by_name.values():
        module.__dict__.update({value.name: value.number for value in enum.values})
    return module


def _install() -> None:
    """Put the built modules where etcd3 looks for its own. Raises ImportError."""
    present = sys.modules.get(f"{_PACKAGE}.rpc_pb2")
    if present is not None:
        if not hasattr(present, _MARK):
            raise ImportError(
                "etcd3 was imported before configstore.store.etcd: its messages lack fields that configstore "
                "needs. Import configstore.store.etcd first"
            )
        return
    spec = importlib.util.find_spec("etcd3")  # finds, but does not import
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("the package etcd3 is not installed; install etcd3==0.12.0")
    folder = Path(spec.submodule_search_locations[0], "etcdrpc")
    pool = descriptor_pool.DescriptorPool()
    built = {f"{name}_pb2": _load(folder, pool, name) for name in _FILES}
    sys.modules.update({f"{_PACKAGE}.{name}": module for name, module in built.items()})
    vars(importlib.import_module(_PACKAGE)).update(built)


_install()

Message: TypeAlias = Any
"""A protobuf message or an answer made of them; etcd3 has no types."""

etcd3: Any = importlib.import_module("etcd3")
rpc: Any = importlib.import_module(f"{_PACKAGE}.rpc_pb2")
services: Any = importlib.import_module(f"{_PACKAGE}.rpc_pb2_grpc")

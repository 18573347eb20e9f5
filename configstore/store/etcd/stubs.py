"""etcd's messages and calls, made from the interface description that the package `etcd3` carries.

etcd3 0.12.0 holds code that was generated for protobuf 3 and that fails under 4 and later. Only the code is old:
the serialized descriptors inside it are those of etcd's .proto files. They are read from the installed files as
text, so etcd3 itself is never imported, and become message classes in a descriptor pool of their own, so that they
clash with nothing else in the process. Neither a code generator nor a copy of etcd's interface is shipped
(docs/decisions/0038-foreign-privates.md).

Fields that etcd gained after 2020 are not described there; `messages` knows those by their numbers.
"""

import ast
import importlib.util
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

import grpc
from google.protobuf import descriptor_pool, message_factory

_FILES = ("kv", "auth", "rpc")  # in the order in which they import each other

_SERIALIZED = re.compile(r"^  serialized_pb=_b\((.*)\)$", re.MULTILINE)

Message: TypeAlias = Any
"""A protobuf message, or an answer made of them: the classes exist only at run time."""


def serialized_descriptor(source: str) -> bytes:
    """Return the file descriptor inside the text of a generated module. Raises ImportError."""
    found = _SERIALIZED.search(source)
    if found is None:
        raise ImportError("etcd3: its generated code is not that of release 0.12.0; install etcd3==0.12.0")
    return str(ast.literal_eval(found[1])).encode("latin-1")


def _descriptors() -> list[Any]:
    """Return the descriptors of etcd's .proto files. Raises ImportError."""
    spec = importlib.util.find_spec("etcd3")  # finds the package, and does not import it
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("the package etcd3 is not installed; install etcd3==0.12.0")
    folder = Path(spec.submodule_search_locations[0], "etcdrpc")
    pool = descriptor_pool.DescriptorPool()
    sources = ((folder / f"{name}_pb2.py").read_text(encoding="utf-8") for name in _FILES)
    return [pool.AddSerializedFile(serialized_descriptor(source)) for source in sources]


_descriptions = _descriptors()

rpc: Any = SimpleNamespace(
    **{
        name: message_factory.GetMessageClass(message)
        for file in _descriptions
        for name, message in file.message_types_by_name.items()
    }
)
"""The message classes by their names, such as `rpc.RangeRequest`."""

services: dict[str, Any] = dict(_descriptions[-1].services_by_name)
"""The descriptors of etcd's services by name: KV, Watch, Lease, Cluster, Maintenance, Auth."""


class Stub:
    """The methods of one service on a channel, each as gRPC's own multi-callable, such as `stub.Range`."""

    def __init__(self, channel: grpc.Channel, service: str) -> None:
        for method in services[service].methods:
            kind = f"{streamed(method.client_streaming)}_{streamed(method.server_streaming)}"
            call = getattr(channel, kind)(
                f"/{services[service].full_name}/{method.name}",
                request_serializer=message_factory.GetMessageClass(method.input_type).SerializeToString,
                response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
            )
            setattr(self, method.name, call)


def streamed(streaming: bool) -> str:  # a descriptor's own field
    """Return gRPC's word for one side of a method."""
    return "stream" if streaming else "unary"

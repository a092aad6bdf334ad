#!/usr/bin/python3
"""Copies a logged guest once, in the order that loses nothing.

usage: docs/examples/harvest.py ADDRESS VM      (after: mmuctl dirty-log start VM)

ADDRESS is unix:/path or host:port. Needs protoc and Debian's python3-grpcio and
python3-protobuf. The generated messages go to a temporary folder.
"""

import pathlib
import subprocess
import sys
import tempfile
import uuid

import grpc

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"


def import_messages():
    out = tempfile.mkdtemp()
    files = sorted(PROTO.glob("mmud/v1/*.proto")) + sorted(
        PROTO.glob("google/*/*.proto"))
    subprocess.run(["protoc", f"-I{PROTO}", "-I/usr/include",
                    f"--python_out={out}", *map(str, files)], check=True)
    sys.path.insert(0, out)
    # google.rpc and google.longrunning lie beside the installed google.protobuf.
    import google
    google.__path__.append(out + "/google")
    from mmud.v1 import (dirty_log_service_pb2, guest_memory_service_pb2,
                         vm_service_pb2)
    return vm_service_pb2, dirty_log_service_pb2, guest_memory_service_pb2


def main(address, vm):
    vms, logs, memory = import_messages()
    channel = grpc.insecure_channel(address)

    def unary(service, method, request, response):
        call = channel.unary_unary(
            f"/mmud.v1.{service}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString)
        return call(request, timeout=10)

    def stream(service, method, request, response):
        call = channel.unary_stream(
            f"/mmud.v1.{service}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString)
        return call(request, timeout=60)

    guest = unary("VmService", "GetVm", vms.GetVmRequest(name=vm),
                  vms.GetVmResponse).vm
    for slot in guest.memslots:
        # 1. Seal: close the epoch. Nothing is forgotten if this stream breaks.
        chunks, epoch = [], 0
        for part in stream(
                "DirtyLogService", "GetDirtyLog",
                logs.GetDirtyLogRequest(
                    vm=vm, slot=slot.slot,
                    mode=logs.GET_DIRTY_LOG_MODE_SEAL,
                    encoding=logs.DIRTY_LOG_ENCODING_BITMAP,
                    request_id=str(uuid.uuid4())),
                logs.GetDirtyLogResponse):
            if part.HasField("header"):
                epoch = part.header.epoch
            elif part.HasField("chunk"):
                chunks.append(part.chunk)

        copied = 0
        for chunk in chunks:
            # 2. Clear: acknowledge what arrived. From here on the next write
            #    to these pages is seen.
            unary("DirtyLogService", "ClearDirtyLog",
                  logs.ClearDirtyLogRequest(
                      vm=vm, slot=slot.slot, epoch=epoch,
                      start_gpa_bytes=chunk.gpa_bytes,
                      size_bytes=chunk.size_bytes, bitmap=chunk.bitmap,
                      request_id=str(uuid.uuid4())),
                  logs.ClearDirtyLogResponse)
            # 3. Copy, and only now.
            request = memory.ReadPagesRequest(vm=vm)
            for page in range(chunk.size_bytes // 4096):
                if chunk.bitmap[page // 8] >> (page % 8) & 1:
                    request.extents.add(gpa_bytes=chunk.gpa_bytes + 4096 * page,
                                        size_bytes=4096)
            if not request.extents:
                continue
            for part in stream("GuestMemoryService", "ReadPages", request,
                               memory.ReadPagesResponse):
                if part.HasField("chunk"):
                    copied += len(part.chunk.data)
                    copied += sum(e.size_bytes for e in part.chunk.zero_extents)
        print(f"slot {slot.slot}: epoch {epoch}, {copied // 4096} pages copied")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2] if sys.argv[2].startswith("vms/")
         else "vms/" + sys.argv[2])

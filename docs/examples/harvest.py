#!/usr/bin/python3
"""Copies the dirty pages of a logged guest into a file, and loses none.

usage: docs/examples/harvest.py ADDRESS VM FILE     (after: mmuctl dirty-log start VM)

ADDRESS is unix:/path or host:port. FILE is an image of the guest's memory: the
byte of address A is at offset A. Run it as often as there are dirty pages.
Read-only memslots have no log, since the guest cannot write to them; each run
copies them whole. A writable slot that does not log is left out, and named.

The order is seal, clear, copy, a batch of pages at a time. What happens when it
dies in the middle, or a call fails: pages that were not cleared are still in
the log. Those of the batch in hand were perhaps cleared and not yet copied; so
FILE.batch names them before they are cleared, and the next run with the same
FILE begins by copying them.

Needs protoc and Debian's python3-grpcio, python3-protobuf and python3-crcmod.
The generated messages go to a temporary folder.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import uuid

import crcmod.predefined
import grpc

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"
PAGE = 4096
# Pages cleared and copied at a time. One ReadPages takes at most 65536 extents,
# and a batch never has more extents than pages.
BATCH_PAGES = 65536

crc32c = crcmod.predefined.mkCrcFun("crc-32c")


def import_messages(out):
    files = sorted(PROTO.glob("mmud/v1/*.proto")) + sorted(
        PROTO.glob("google/*/*.proto"))
    subprocess.run(["protoc", f"-I{PROTO}", "-I/usr/include",
                    f"--python_out={out}", *map(str, files)], check=True)
    sys.path.insert(0, out)
    # google.rpc and google.longrunning lie beside the installed google.protobuf.
    import google
    google.__path__.append(out + "/google")
    from mmud.v1 import (common_pb2, dirty_log_service_pb2,
                         guest_memory_service_pb2, vm_service_pb2)
    return (common_pb2, vm_service_pb2, dirty_log_service_pb2,
            guest_memory_service_pb2)


def check(good, what):
    if not good:
        sys.exit(f"harvest.py: {what}; run it again")


def pages_of(bitmap):
    """The numbers of the bits that are set, ascending."""
    for i, byte in enumerate(bitmap):
        for bit in range(8 if byte else 0):
            if byte >> bit & 1:
                yield 8 * i + bit


def extents_of(gpa, bitmap):
    """The pages of a bitmap as [first byte, size], neighbours put together."""
    extents = []
    for page in pages_of(bitmap):
        start = gpa + page * PAGE
        if extents and sum(extents[-1]) == start:
            extents[-1][1] += PAGE
        else:
            extents.append([start, PAGE])
    return extents


def batches_of(chunk):
    """Parts of a chunk of at most BATCH_PAGES dirty pages, each a range as
    ClearDirtyLog wants it: (first byte, size, bitmap). A range begins on a
    multiple of 64 pages, that is of 8 bytes of the bitmap."""
    start, dirty = 0, 0
    for i in range(0, len(chunk.bitmap), 8):
        more = bin(int.from_bytes(chunk.bitmap[i:i + 8], "little")).count("1")
        if dirty + more > BATCH_PAGES:
            yield (chunk.gpa_bytes + start * 8 * PAGE, (i - start) * 8 * PAGE,
                   chunk.bitmap[start:i])
            start, dirty = i, 0
        dirty += more
    if dirty:
        offset = start * 8 * PAGE
        yield (chunk.gpa_bytes + offset, chunk.size_bytes - offset,
               chunk.bitmap[start:])


class Harvest:
    def __init__(self, address, vm, file, messages):
        self.vm = vm
        self.common, self.vms, self.logs, self.memory = messages
        self.channel = grpc.insecure_channel(address)
        self.batch_file = pathlib.Path(file + ".batch")
        self.image = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)

    def unary(self, service, method, request, response):
        call = self.channel.unary_unary(
            f"/mmud.v1.{service}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString)
        return call(request, timeout=60)

    def stream(self, service, method, request, response):
        call = self.channel.unary_stream(
            f"/mmud.v1.{service}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString)
        return call(request, timeout=600)

    def seal(self, slot):
        """Closes the epoch: its number, and chunks with a bitmap each. Nothing
        is forgotten by that, so a stream that breaks costs nothing."""
        epoch, chunks, crc, trailer = 0, [], 0, None
        for part in self.stream(
                "DirtyLogService", "GetDirtyLog",
                self.logs.GetDirtyLogRequest(
                    vm=self.vm, slot=slot,
                    mode=self.logs.GET_DIRTY_LOG_MODE_SEAL,
                    encoding=self.logs.DIRTY_LOG_ENCODING_BITMAP,
                    request_id=str(uuid.uuid4())),
                self.logs.GetDirtyLogResponse):
            if part.HasField("header"):
                epoch = part.header.epoch
            elif part.HasField("chunk"):
                check(crc32c(part.chunk.bitmap) == part.chunk.crc32c,
                      "a part of the dirty log was damaged on its way")
                crc = crc32c(part.chunk.bitmap, crc)
                chunks.append(part.chunk)
            else:
                trailer = part.trailer
        check(trailer is not None and trailer.chunk_count == len(chunks) and
              trailer.crc32c == crc, "the dirty log did not arrive whole")
        return epoch, chunks

    def clear(self, slot, epoch, gpa, size, bitmap):
        """Takes pages out of the log. From here on their next write is seen."""
        self.unary("DirtyLogService", "ClearDirtyLog",
                   self.logs.ClearDirtyLogRequest(
                       vm=self.vm, slot=slot, epoch=epoch, start_gpa_bytes=gpa,
                       size_bytes=size, bitmap=bitmap,
                       request_id=str(uuid.uuid4())),
                   self.logs.ClearDirtyLogResponse)

    def copy(self, extents):
        """Copies pages that were cleared before: the number of pages."""
        request = self.memory.ReadPagesRequest(vm=self.vm)
        for gpa, size in extents:
            request.extents.add(gpa_bytes=gpa, size_bytes=size)
        pages, chunks, crc, trailer = 0, 0, 0, None
        for part in self.stream("GuestMemoryService", "ReadPages", request,
                                self.memory.ReadPagesResponse):
            if part.HasField("trailer"):
                trailer = part.trailer
                continue
            data = part.chunk.data
            check(crc32c(data) == part.chunk.crc32c,
                  "pages were damaged on their way")
            offset = 0
            for extent in part.chunk.data_extents:
                self.write(data[offset:offset + extent.size_bytes],
                           extent.gpa_bytes)
                offset += extent.size_bytes
                pages += extent.size_bytes // PAGE
            for extent in part.chunk.zero_extents:
                self.write(bytes(extent.size_bytes), extent.gpa_bytes)
                pages += extent.size_bytes // PAGE
            chunks += 1
            crc = crc32c(data, crc)
        check(trailer is not None and trailer.chunk_count == chunks and
              trailer.page_count == pages and trailer.crc32c == crc and
              pages * PAGE == sum(size for _, size in extents),
              "the pages did not arrive whole")
        return pages

    def write(self, data, gpa):
        check(os.pwrite(self.image, data, gpa) == len(data),
              "the file could not be written")

    def note_batch(self, extents):
        """So that the next run knows, should this one die."""
        part = self.batch_file.with_suffix(".part")
        part.write_text(json.dumps(extents))
        part.rename(self.batch_file)

    def finish_batch(self):
        """Copies the batch that was noted, if there is one."""
        if not self.batch_file.exists():
            return 0
        pages = self.copy(json.loads(self.batch_file.read_text()))
        self.batch_file.unlink()
        return pages

    def run(self):
        left_over = self.finish_batch()
        if left_over:
            print(f"of a run before: {left_over} pages copied")
        guest = self.unary("VmService", "GetVm",
                           self.vms.GetVmRequest(name=self.vm),
                           self.vms.GetVmResponse).vm
        active = self.common.DIRTY_LOG_STATE_ACTIVE
        logs = [slot.slot for slot in guest.memslots
                if slot.dirty_log.state == active]
        if not logs:
            sys.exit(f"harvest.py: no memslot of {self.vm} logs dirty pages; "
                     f"switch it on with mmuctl dirty-log start")
        for slot in guest.memslots:
            if slot.slot in logs:
                epoch, copied = self.harvest(slot.slot)
                print(f"slot {slot.slot}: epoch {epoch}, {copied} pages copied")
            elif (slot.readonly and
                  slot.backing != self.vms.MEMORY_BACKING_METADATA_ONLY):
                copied = self.copy_whole(slot.gpa_bytes, slot.size_bytes)
                print(f"slot {slot.slot}: read-only, {copied} pages copied")
            else:
                print(f"slot {slot.slot}: does not log, left out")

    def harvest(self, slot):
        """Takes the dirty pages out of the log and copies them."""
        copied = 0
        epoch, chunks = self.seal(slot)
        for chunk in chunks:
            for gpa, size, bitmap in batches_of(chunk):
                self.note_batch(extents_of(gpa, bitmap))
                self.clear(slot, epoch, gpa, size, bitmap)
                copied += self.finish_batch()
        return epoch, copied

    def copy_whole(self, gpa, size):
        """Copies memory that nobody writes to, a batch at a time."""
        return sum(self.copy([(start, min(BATCH_PAGES * PAGE,
                                          gpa + size - start))])
                   for start in range(gpa, gpa + size, BATCH_PAGES * PAGE))


def main(address, vm, file):
    vm = vm if vm.startswith("vms/") else "vms/" + vm
    with tempfile.TemporaryDirectory() as out:
        Harvest(address, vm, file, import_messages(out)).run()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except grpc.RpcError as error:
        sys.exit(f"harvest.py: {error.code().name}: {error.details()}")

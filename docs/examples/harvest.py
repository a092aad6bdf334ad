#!/usr/bin/python3
"""Copies the dirty pages of a guest into a file, and loses none.

usage: docs/examples/harvest.py ADDRESS VM FILE

ADDRESS is unix:/path or host:port. FILE is an image of the guest's memory: the
byte of address A is at offset A. The first run switches the guest's dirty log
on, with every page dirty, and copies them all; run it again as often as there
are dirty pages. Read-only memslots have no log, since the guest cannot write to
them; each run copies them whole.

The order is seal, read, clear, copy, acknowledge. If the script dies in the
middle, or a call fails, all pages that were not acknowledged are still in the
log. The next run takes the log over, which seals these pages again. It takes
the log over only from an earlier run with the same FILE: the pages that another
owner has acknowledged are not in FILE. FILE.token, readable by its owner only,
has the tokens by which the daemon knows such a run. If it is missing, or if
FILE is missing or empty, stop the log; the next run then begins anew. Only one
run at a time can use FILE.

Needs protoc and Debian's python3-grpcio, python3-protobuf and python3-crcmod.
The generated messages go to a temporary folder.
"""

import fcntl
import os
import pathlib
import secrets
import subprocess
import sys
import tempfile
import time
import uuid

import crcmod.predefined
import grpc

PROTO = pathlib.Path(__file__).resolve().parents[2] / "proto"
PAGE = 4096
OWNER = "harvest.py"
TOKEN = 32
# No call renews the lease while pages are copied, so the lease is longer than
# the copy of a batch. It keeps others from the log, but not the next run.
LEASE = {"seconds": 300}
# Number of pages to clear and copy at a time. One ReadPages takes at most 65536
# extents, and a batch never has more extents than pages.
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
    from google.longrunning import operations_pb2
    from google.rpc import error_details_pb2, status_pb2
    from mmud.v1 import (dirty_log_service_pb2, guest_memory_service_pb2,
                         vm_service_pb2)
    return (vm_service_pb2, dirty_log_service_pb2, guest_memory_service_pb2,
            operations_pb2, status_pb2, error_details_pb2)


def check(good, what):
    if not good:
        sys.exit(f"harvest.py: {what}; run it again")


def pages_of(bitmap):
    """Returns the numbers of the set bits, ascending."""
    for i, byte in enumerate(bitmap):
        for bit in range(8 if byte else 0):
            if byte >> bit & 1:
                yield 8 * i + bit


def extents_of(gpa, bitmap):
    """Returns the ranges of a bitmap's pages as [first byte, size]."""
    extents = []
    for page in pages_of(bitmap):
        start = gpa + page * PAGE
        if extents and sum(extents[-1]) == start:
            extents[-1][1] += PAGE
        else:
            extents.append([start, PAGE])
    return extents


def batches_of(chunk):
    """Divides a chunk into batches of at most BATCH_PAGES dirty pages. Each is
    a range for ClearDirtyLog: (first byte, size, bitmap). A range begins at a
    multiple of 64 pages, which is 8 bytes of the bitmap."""
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
        (self.vms, self.logs, self.memory, self.operations, self.status,
         self.details) = messages
        self.channel = grpc.insecure_channel(address)
        self.token = b""
        self.open_file(file)

    def open_file(self, file):
        """Opens FILE and FILE.token, and locks other runs out of both."""
        self.image = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self.image, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"harvest.py: another run writes {file}; wait for its end")
        # Read the tokens only now: before, they may belong to a run that has
        # FILE.
        self.tokens = os.open(file + ".token", os.O_RDWR | os.O_CREAT, 0o600)
        if os.fstat(self.image).st_size == 0:
            # The pages that an earlier run copied are lost, and the log has
            # only the rest. So the tokens are dropped. FILE stays empty until
            # they are gone: a run that dies in between leaves no token beside a
            # FILE that looks like a copy.
            os.ftruncate(self.tokens, 0)
            os.fsync(self.tokens)
            os.ftruncate(self.image, PAGE)

    def unary(self, service, method, request, response):
        call = self.channel.unary_unary(
            f"/{service}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString)
        return call(request, timeout=60)

    def stream(self, service, method, request, response):
        call = self.channel.unary_stream(
            f"/{service}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString)
        return call(request, timeout=600)

    def log(self, method, **fields):
        """Makes a call of DirtyLogService for this VM."""
        request = getattr(self.logs, method + "Request")(vm=self.vm, **fields)
        if "request_id" in request.DESCRIPTOR.fields_by_name:
            request.request_id = str(uuid.uuid4())
        response = (self.operations.Operation if method == "StartDirtyLog"
                    else getattr(self.logs, method + "Response"))
        return self.unary("mmud.v1.DirtyLogService", method, request, response)

    def info_of(self, error):
        """Returns the ErrorInfo of a failed call, or an empty one."""
        info = self.details.ErrorInfo()
        for key, value in error.trailing_metadata() or ():
            if key != "grpc-status-details-bin":
                continue
            for detail in self.status.Status.FromString(value).details:
                if detail.Unpack(info):
                    return info
        return info

    def last_tokens(self):
        """Returns the token of the last run, and the token of the owner from
        which that run took the log. Wherever that run died, one of the two
        tokens owns the log."""
        both = os.pread(self.tokens, 2 * TOKEN, 0)
        return [both[:TOKEN], both[TOKEN:]] if len(both) == 2 * TOKEN else []

    def new_token(self, former):
        """Makes the token of the next ownership, and writes it to FILE.token
        before it is used, so it is not lost with an answer."""
        self.token = secrets.token_bytes(TOKEN)
        both = self.token + (former or self.token)
        check(os.pwrite(self.tokens, both, 0) == len(both),
              "FILE.token could not be written")
        os.fsync(self.tokens)

    def take_the_log(self):
        """Becomes the owner of the log, with a new token, if an earlier run
        with FILE owns it. The pages in flight are sealed again. Starts a log
        if there is none."""
        for token in self.last_tokens():
            try:
                # Only the owner can seal, and a seal discards nothing.
                log_id = self.log("SealDirtyLog", owner_token=token).log_id
            except grpc.RpcError as error:
                if self.info_of(error).reason not in (
                        "LOG_OWNED", "LOG_FENCED", "DIRTY_LOG_OFF"):
                    raise
                continue
            self.new_token(token)
            self.log("AcquireDirtyLog", owner=OWNER, owner_token=self.token,
                     log_id=log_id, lease=LEASE, force=True)
            return
        self.start_the_log()

    def start_the_log(self):
        """Starts the log with every page dirty, so that the first run copies
        all of them. Uses the stored token if there is one: a start by a dead
        run with this token may still be running, and its log will belong to
        the token."""
        if self.last_tokens():
            self.token = self.last_tokens()[0]
        else:
            self.new_token(b"")
        try:
            operation = self.log("StartDirtyLog", owner=OWNER, lease=LEASE,
                                 owner_token=self.token, initially_set=True)
        except grpc.RpcError as error:
            info = self.info_of(error)
            if info.reason != "DIRTY_LOG_ACTIVE":
                raise
            sys.exit(f"harvest.py: {self.vm} has a dirty log that is not "
                     f"FILE's, of {info.metadata['owner']}; what it has "
                     "delivered is not in FILE: run with the FILE of that log "
                     "and the FILE.token beside it, or stop it (mmuctl "
                     "dirty-log stop --force)")
        while not operation.done:
            time.sleep(0.1)
            operation = self.unary(
                "google.longrunning.Operations", "GetOperation",
                self.operations.GetOperationRequest(name=operation.name),
                self.operations.Operation)
        check(not operation.HasField("error"),
              f"the dirty log did not start: {operation.error.message}")

    def seal(self):
        """Closes the epoch of all slots. Returns the log's id and the epoch.
        Discards no page and protects none."""
        sealed = self.log("SealDirtyLog", owner_token=self.token)
        return sealed.log_id, sealed.epoch

    def read(self, log_id, epoch):
        """Reads the sealed pages. Returns the slots, and chunks with a bitmap
        each. Changes nothing, so a broken stream does no harm."""
        slots, chunks, crc, trailer = [], [], 0, None
        for part in self.stream(
                "mmud.v1.DirtyLogService", "ReadDirtyPages",
                self.logs.ReadDirtyPagesRequest(
                    vm=self.vm, log_id=log_id, epoch=epoch,
                    encoding=self.logs.DIRTY_LOG_ENCODING_BITMAP),
                self.logs.ReadDirtyPagesResponse):
            if part.HasField("header"):
                slots = [covered.slot for covered in part.header.coverage]
            elif part.HasField("chunk"):
                check(crc32c(part.chunk.bitmap) == part.chunk.crc32c,
                      "a part of the dirty log was damaged on its way")
                crc = crc32c(part.chunk.bitmap, crc)
                chunks.append(part.chunk)
            else:
                trailer = part.trailer
        check(trailer is not None and trailer.chunk_count == len(chunks) and
              trailer.crc32c == crc, "the dirty log did not arrive whole")
        return slots, chunks

    def clear(self, epoch, slot, gpa, size, bitmap):
        """Takes pages into flight. Their next write is logged from now on."""
        self.log("ClearDirtyLog", owner_token=self.token, epoch=epoch,
                 pages=self.logs.SlotPages(slot=slot, start_gpa_bytes=gpa,
                                           size_bytes=size, bitmap=bitmap))

    def acknowledge(self, epoch):
        """Acknowledges pages, whose copies have arrived."""
        os.fsync(self.image)
        self.log("AcknowledgePages", owner_token=self.token, epoch=epoch)

    def copy(self, extents):
        """Copies pages that were cleared before. Returns their number."""
        request = self.memory.ReadPagesRequest(vm=self.vm)
        for gpa, size in extents:
            request.extents.add(gpa_bytes=gpa, size_bytes=size)
        pages, chunks, crc, trailer = 0, 0, 0, None
        for part in self.stream("mmud.v1.GuestMemoryService", "ReadPages",
                                request, self.memory.ReadPagesResponse):
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

    def harvest(self):
        """Takes the dirty pages out of the log and copies them. Returns the
        epoch, and the number of pages of each slot."""
        log_id, epoch = self.seal()
        slots, chunks = self.read(log_id, epoch)
        copied = dict.fromkeys(slots, 0)
        for chunk in chunks:
            for gpa, size, bitmap in batches_of(chunk):
                self.clear(epoch, chunk.slot, gpa, size, bitmap)
                copied[chunk.slot] += self.copy(extents_of(gpa, bitmap))
        self.acknowledge(epoch)
        return epoch, copied

    def run(self):
        guest = self.unary("mmud.v1.VmService", "GetVm",
                           self.vms.GetVmRequest(name=self.vm),
                           self.vms.GetVmResponse).vm
        self.take_the_log()
        epoch, copied = self.harvest()
        for slot in guest.memslots:
            if slot.slot in copied:
                print(f"slot {slot.slot}: epoch {epoch}, "
                      f"{copied[slot.slot]} pages copied")
            elif (slot.readonly and
                  slot.backing != self.vms.MEMORY_BACKING_METADATA_ONLY):
                pages = self.copy_whole(slot.gpa_bytes, slot.size_bytes)
                print(f"slot {slot.slot}: read-only, {pages} pages copied")
            else:
                print(f"slot {slot.slot}: does not log, left out")

    def copy_whole(self, gpa, size):
        """Copies memory that the guest cannot write, batch by batch."""
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

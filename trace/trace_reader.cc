#include "trace/trace_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"

namespace mmud::trace {
namespace {

mmu::AccessKind KindOf(TraceOp op) {
  switch (op) {
    case TraceOp::kLoad:
    case TraceOp::kModify:
      return mmu::AccessKind::kRead;
    case TraceOp::kStore:
      return mmu::AccessKind::kWrite;
    case TraceOp::kFetch:
      return mmu::AccessKind::kExec;
  }
  return mmu::AccessKind::kRead;
}

// Formats `path` for a message, and cuts it if it is long: a caller may send a
// path of any length.
std::string Shown(const std::string& path) {
  constexpr size_t kMax = 256;
  if (path.size() <= kMax) return absl::StrCat("'", path, "'");
  return absl::StrFormat("'%s...' (%d bytes)", path.substr(0, kMax),
                         path.size());
}

// Maps the errno of a file operation to a status. RESOURCE_EXHAUSTED if the
// process or the machine is short of descriptors or memory, DATA_LOSS if the
// device failed, `otherwise` for any other errno.
absl::Status FileError(int error_number, absl::StatusCode otherwise,
                       mmu::Reason reason, const std::string& what) {
  const std::string message =
      absl::StrCat(what, ": ", std::strerror(error_number));
  switch (error_number) {
    case EMFILE:
    case ENFILE:
      return mmu::MakeError(absl::StatusCode::kResourceExhausted,
                            {mmu::Reason::kLimitExceeded, "", 0}, message);
    case ENOMEM:
      return mmu::MakeError(absl::StatusCode::kResourceExhausted,
                            {mmu::Reason::kResourceExhaustedMemory, "", 0},
                            message);
    case EIO:
      return mmu::MakeError(absl::StatusCode::kDataLoss,
                            {mmu::Reason::kTraceCorrupt, "", 0}, message);
    default:
      return mmu::MakeError(otherwise, {reason, "", 0}, message);
  }
}

// A path that is too long, leads through a file or a loop of links, or may not
// be read is reported in the same way: there is no trace with that name.
absl::Status CannotOpen(const std::string& path, int error_number) {
  return FileError(error_number, absl::StatusCode::kNotFound,
                   mmu::Reason::kTraceNotFound,
                   absl::StrCat("trace file ", Shown(path), ": cannot open"));
}

// A failed read of an open file means that its contents are lost.
absl::Status CannotRead(int error_number, const char* what) {
  return FileError(error_number, absl::StatusCode::kDataLoss,
                   mmu::Reason::kTraceCorrupt, what);
}

}  // namespace

absl::StatusOr<std::unique_ptr<TraceReader>> TraceReader::Open(
    const std::string& path) {
  // Without O_NONBLOCK, opening a named pipe would wait for a writer.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return CannotOpen(path, errno);
  struct stat stat = {};
  if (fstat(fd, &stat) != 0 || !S_ISREG(stat.st_mode)) {
    close(fd);
    return mmu::MakeError(
        absl::StatusCode::kNotFound, {mmu::Reason::kTraceNotFound, "", 0},
        absl::StrCat("trace file ", Shown(path), ": must be a regular file"));
  }
  std::FILE* const file = fdopen(fd, "rb");
  if (file == nullptr) {
    const int error_number = errno;
    close(fd);
    return CannotOpen(path, error_number);
  }
  auto reader = absl::WrapUnique(new TraceReader(path, file));
  reader->file_bytes_ = static_cast<uint64_t>(stat.st_size);
  if (absl::Status status = reader->ReadHeader(); !status.ok()) {
    return reader->InFile(status, kNoOffset);
  }
  return reader;
}

TraceReader::TraceReader(std::string path, std::FILE* file)
    : path_(std::move(path)), file_(file) {}

TraceReader::~TraceReader() { std::fclose(file_); }

absl::Status TraceReader::InFile(const absl::Status& status,
                                 uint64_t offset) const {
  const std::string place =
      offset == kNoOffset ? "" : absl::StrFormat("byte %d: ", offset);
  return mmu::MakeError(
      status.code(), mmu::DetailOf(status),
      absl::StrCat("trace file ", Shown(path_), ": ", place, status.message()));
}

absl::StatusOr<std::string> TraceReader::Read(size_t size) {
  std::string bytes(size, '\0');
  const size_t got = std::fread(bytes.data(), 1, size, file_);
  if (got < size && std::ferror(file_) != 0) {
    return CannotRead(errno, "cannot read");
  }
  bytes.resize(got);
  offset_ += got;
  return bytes;
}

absl::Status TraceReader::ReadHeader() {
  absl::StatusOr<std::string> start = Read(kFixedHeaderBytes);
  if (!start.ok()) return start.status();
  const absl::StatusOr<size_t> total = HeaderBytesFrom(*start);
  if (!total.ok()) return total.status();
  const absl::StatusOr<std::string> texts = Read(*total - start->size());
  if (!texts.ok()) return texts.status();
  absl::StatusOr<TraceInfo> info = DecodeHeader(*start + *texts);
  if (!info.ok()) return info.status();
  info_ = *std::move(info);
  first_block_offset_ = offset_;
  return absl::OkStatus();
}

absl::Status TraceReader::Rewind() {
  std::clearerr(file_);
  if (fseeko(file_, static_cast<off_t>(first_block_offset_), SEEK_SET) != 0) {
    status_ = InFile(CannotRead(errno, "cannot rewind"), kNoOffset);
    return status_;
  }
  offset_ = first_block_offset_;
  block_.Clear();
  blocks_ = 0;
  records_ = 0;
  accesses_ = 0;
  store_owed_ = false;
  status_ = absl::OkStatus();
  return status_;
}

absl::Status TraceReader::Verify() {
  if (absl::Status status = Rewind(); !status.ok()) return status;
  mmu::GuestAccess access;
  while (true) {
    const absl::StatusOr<bool> more = Next(&access);
    if (!more.ok()) return more.status();
    if (!*more) return Rewind();
  }
}

absl::StatusOr<bool> TraceReader::Next(mmu::GuestAccess* access) {
  if (!status_.ok()) return status_;
  if (store_owed_) {
    store_owed_ = false;
    *access = store_;
    return true;
  }
  TraceRecord record;
  absl::StatusOr<bool> more = NextRecord(&record);
  if (!more.ok()) status_ = more.status();
  if (!more.ok() || !*more) return more;
  *access = {record.address, record.size_bytes, KindOf(record.op)};
  if (record.op == TraceOp::kModify) {
    store_owed_ = true;
    store_ = *access;
    store_.kind = mmu::AccessKind::kWrite;
  }
  return true;
}

absl::StatusOr<bool> TraceReader::NextRecord(TraceRecord* record) {
  if (block_.done()) {
    const absl::StatusOr<bool> more = NextBlock();
    if (!more.ok()) return more;
    if (!*more) {
      if (absl::Status status = CheckCounts(); !status.ok()) return status;
      return false;
    }
  }
  if (absl::Status status = block_.Next(record); !status.ok()) {
    return InFile(status, block_offset_);
  }
  ++records_;
  accesses_ += AccessesOf(record->op);
  return true;
}

absl::StatusOr<bool> TraceReader::NextBlock() {
  block_offset_ = offset_;
  const absl::StatusOr<std::string> header_bytes = Read(kBlockHeaderBytes);
  if (!header_bytes.ok()) return InFile(header_bytes.status(), offset_);
  if (header_bytes->empty()) return false;
  if (header_bytes->size() < kBlockHeaderBytes) {
    return InFile(
        absl::DataLossError("the file ends inside the header of a block: it "
                            "was not copied completely"),
        offset_);
  }
  const absl::StatusOr<TraceBlockHeader> header =
      TraceBlockHeader::Decode(*header_bytes, blocks_);
  if (!header.ok()) return InFile(header.status(), block_offset_);
  const absl::StatusOr<std::string> compressed = Read(header->compressed_bytes);
  if (!compressed.ok()) return InFile(compressed.status(), offset_);
  if (compressed->size() < header->compressed_bytes) {
    return InFile(absl::DataLossError(absl::StrFormat(
                      "the file ends inside a block of %d bytes: it was not "
                      "copied completely",
                      header->compressed_bytes)),
                  offset_);
  }
  if (absl::Status status = block_.Start(*header, *header_bytes, *compressed);
      !status.ok()) {
    return InFile(status, block_offset_);
  }
  ++blocks_;
  return true;
}

absl::Status TraceReader::CheckCounts() const {
  if (records_ == info_.record_count && accesses_ == info_.access_count) {
    return absl::OkStatus();
  }
  return InFile(
      absl::DataLossError(absl::StrFormat(
          "the file ends after %d records with %d accesses: must "
          "be %d with %d by its header; blocks are missing",
          records_, accesses_, info_.record_count, info_.access_count)),
      offset_);
}

}  // namespace mmud::trace

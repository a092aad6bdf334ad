#include "trace/trace_writer.h"

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "mmu_core/base/address.h"

namespace mmud::trace {

absl::StatusOr<std::unique_ptr<TraceWriter>> TraceWriter::Create(
    const std::string& path, const TraceInfo& info) {
  const std::string partial_path = path + ".partial";
  std::FILE* const file = std::fopen(partial_path.c_str(), "wbe");
  if (file == nullptr) {
    return absl::ErrnoToStatus(
        errno, absl::StrCat("trace file '", path, "': cannot create '",
                            partial_path, "'"));
  }
  TraceInfo start;
  start.command = info.command.substr(0, kMaxHeaderTextBytes);
  start.origin = info.origin.substr(0, kMaxHeaderTextBytes);
  start.filter_lines = info.filter_lines;
  start.has_fetches = info.has_fetches;
  auto writer = absl::WrapUnique(new TraceWriter(path, std::move(start), file));
  // Reserves space for the header, which Finish writes. Zeros are no valid
  // header.
  absl::Status status =
      writer->Write(std::string(HeaderBytes(writer->info_), '\0'));
  if (!status.ok()) return status;
  return writer;
}

TraceWriter::TraceWriter(std::string path, TraceInfo info, std::FILE* file)
    : path_(std::move(path)),
      partial_path_(path_ + ".partial"),
      info_(std::move(info)),
      file_(file) {}

TraceWriter::~TraceWriter() {
  if (file_ == nullptr) return;
  std::fclose(file_);
  std::remove(partial_path_.c_str());
}

absl::Status TraceWriter::FileError(int error_number, const char* doing) const {
  return absl::ErrnoToStatus(
      error_number, absl::StrCat("trace file '", path_, "': cannot ", doing));
}

absl::Status TraceWriter::Write(const std::string& bytes) {
  if (std::fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size()) {
    return FileError(errno, "write");
  }
  return absl::OkStatus();
}

absl::Status TraceWriter::Add(const TraceRecord& record) {
  if (record.size_bytes == 0 || record.size_bytes > kMaxAccessBytes) {
    return absl::InvalidArgumentError(
        absl::StrFormat("access of %d bytes at %#x: must be 1 to %d",
                        record.size_bytes, record.address, kMaxAccessBytes));
  }
  Count(record);
  block_.Add(record);
  return block_.full() ? Write(block_.Take()) : absl::OkStatus();
}

void TraceWriter::Count(const TraceRecord& record) {
  ++info_.record_count;
  info_.access_count += AccessesOf(record.op);
  switch (record.op) {
    case TraceOp::kLoad:
      ++info_.load_count;
      break;
    case TraceOp::kStore:
      ++info_.store_count;
      break;
    case TraceOp::kModify:
      ++info_.load_count;
      ++info_.store_count;
      break;
    case TraceOp::kFetch:
      ++info_.fetch_count;
      break;
  }
  const uint64_t first = record.address >> mmu::kPageShift;
  const uint64_t last =
      (record.address + record.size_bytes - 1) >> mmu::kPageShift;
  if (first != last_page_) pages_.insert(first);
  if (last != first) pages_.insert(last);
  last_page_ = first;
}

absl::StatusOr<TraceInfo> TraceWriter::Finish(uint64_t seen_record_count,
                                              bool cut_at_limit) {
  if (!block_.empty()) {
    absl::Status status = Write(block_.Take());
    if (!status.ok()) return status;
  }
  info_.page_count = pages_.size();
  info_.seen_record_count = seen_record_count;
  info_.cut_at_limit = cut_at_limit;
  if (std::fseek(file_, 0, SEEK_SET) != 0) return FileError(errno, "seek");
  absl::Status status = Write(EncodeHeader(info_));
  if (!status.ok()) return status;
  if (std::fclose(std::exchange(file_, nullptr)) != 0) {
    status = FileError(errno, "write");
  } else if (std::rename(partial_path_.c_str(), path_.c_str()) != 0) {
    status = FileError(errno, "rename the finished file");
  }
  if (!status.ok()) {
    std::remove(partial_path_.c_str());
    return status;
  }
  return info_;
}

}  // namespace mmud::trace

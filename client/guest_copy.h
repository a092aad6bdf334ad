// The destination of a migration: a copy of guest memory, filled page by page.

#ifndef CLIENT_GUEST_COPY_H_
#define CLIENT_GUEST_COPY_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/mmu_client/page_reader.h"

namespace mmud::client {

// Memory that is zero at the start and uses space only for written parts. It is
// memory of this process, or a file that outlives the process. The stored owner
// tokens identify the dirty log that the copy belongs to. Thread-compatible.
class GuestCopy final : public PageSink {
 public:
  // REQUIRES: `ranges` do not overlap. RESOURCE_EXHAUSTED if the system has no
  // address space for them.
  static absl::StatusOr<std::unique_ptr<GuestCopy>> Create(
      std::vector<GpaRange> ranges);
  // The ranges one after another in the file at `path`. The file is made if it
  // does not exist; otherwise its contents are kept. Only one process can have
  // it open: FAILED_PRECONDITION while another one does. So a controller that
  // only seemed dead cannot write beside the next one. FAILED_PRECONDITION also
  // for a file of another size. The tokens are in `path`.token, readable by its
  // owner only. If the file is missing or empty, the tokens are dropped.
  static absl::StatusOr<std::unique_ptr<GuestCopy>> OpenFile(
      std::vector<GpaRange> ranges, const std::string& path);
  ~GuestCopy() override;
  GuestCopy(const GuestCopy&) = delete;
  GuestCopy& operator=(const GuestCopy&) = delete;

  // OUT_OF_RANGE outside of the ranges.
  absl::Status OnData(int64_t gpa_bytes, absl::string_view data) override;
  absl::Status OnZeros(GpaRange range) override;

  // The token of the last owner, and the token of the owner from which it took
  // the log. Wherever the last owner died, one of the two tokens owns the log.
  // None for a new copy, or if the log was stopped.
  const std::vector<std::string>& owner_tokens() const { return owner_tokens_; }
  // Stores `token`, and `former` unless it is empty. To be called before
  // `token` is used, so that the token is not lost with an answer. REQUIRES:
  // both are of kOwnerTokenBytes.
  absl::Status KeepOwnerToken(const std::string& token,
                              const std::string& former);
  // Removes both tokens. To be called when their log is stopped.
  absl::Status DropOwnerTokens();

  // The bytes of `range`; empty if it does not lie within one of the ranges.
  absl::string_view Bytes(GpaRange range) const;

  const std::vector<GpaRange>& ranges() const { return ranges_; }
  int64_t size_bytes() const { return TotalBytes(ranges_); }

 private:
  GuestCopy(std::vector<GpaRange> ranges, int file)
      : ranges_(std::move(ranges)), file_(file) {}

  absl::Status Map();
  absl::Status OpenTokens(const std::string& path, bool drop);

  // Null if `range` does not lie within one of the ranges.
  char* Find(GpaRange range) const;

  const std::vector<GpaRange> ranges_;
  const int file_;             // -1: none
  std::vector<char*> memory_;  // of ranges_, in their order
  int token_file_ = -1;        // -1: none
  std::vector<std::string> owner_tokens_;
};

}  // namespace mmud::client

#endif  // CLIENT_GUEST_COPY_H_

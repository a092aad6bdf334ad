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

// Memory that starts as zeros and takes room only where something else was
// written; of this process, or a file that outlives it. What log it is a copy
// by it knows from the tokens of those who owned the log. Thread-compatible.
class GuestCopy final : public PageSink {
 public:
  // REQUIRES: `ranges` do not overlap. RESOURCE_EXHAUSTED if the system has no
  // address space for them.
  static absl::StatusOr<std::unique_ptr<GuestCopy>> Create(
      std::vector<GpaRange> ranges);
  // The ranges one after another in the file at `path`, which is made if it is
  // not there, and otherwise kept as somebody else has left it. One process
  // has it open at a time: FAILED_PRECONDITION while another one does, which
  // keeps a controller that was thought dead from writing beside the next. The
  // same for a file of another size. The tokens are in `path`.token, readable
  // by its owner only; those beside a file that is missing or empty are
  // dropped.
  static absl::StatusOr<std::unique_ptr<GuestCopy>> OpenFile(
      std::vector<GpaRange> ranges, const std::string& path);
  ~GuestCopy() override;
  GuestCopy(const GuestCopy&) = delete;
  GuestCopy& operator=(const GuestCopy&) = delete;

  // OUT_OF_RANGE outside of the ranges.
  absl::Status OnData(int64_t gpa_bytes, absl::string_view data) override;
  absl::Status OnZeros(GpaRange range) override;

  // The token of the last owner, and that of the owner which it took the log
  // from: wherever the last one died, one of the two is the owner's. None for a
  // copy that is new, or whose log was stopped.
  const std::vector<std::string>& owner_tokens() const { return owner_tokens_; }
  // Keeps `token`, with `former` beside it unless that is empty. To be called
  // before anybody uses `token`: an answer that is lost takes no token along.
  // REQUIRES: both are of kOwnerTokenBytes.
  absl::Status KeepOwnerToken(const std::string& token,
                              const std::string& former);
  // Forgets them, once their log is stopped.
  absl::Status DropOwnerTokens();

  // The bytes of `range`; nothing if it does not lie within one of the ranges.
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

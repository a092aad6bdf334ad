#include "server/base/etag.h"

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "mmu_core/base/reason.h"
#include "server/base/errors.h"

namespace mmud {

std::string MakeEtag(absl::string_view state) {
  // FNV-1a: an etag needs no resistance to attacks, and absl::Hash differs
  // between processes.
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : state) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  }
  return absl::StrFormat("%016x", hash);
}

absl::Status CheckEtag(absl::string_view wanted, absl::string_view actual,
                       absl::string_view type, absl::string_view resource) {
  if (wanted.empty() || wanted == actual) return absl::OkStatus();
  return WithResource(
      ApiError(absl::StatusCode::kAborted, mmu::Reason::kEtagMismatch,
               absl::StrCat("etag is ", Quote(wanted), " but ", Quote(resource),
                            " has ", Quote(actual),
                            ": it changed; read it again and decide anew")),
      type, resource);
}

}  // namespace mmud

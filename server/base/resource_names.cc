#include "server/base/resource_names.h"

#include <algorithm>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "absl/types/optional.h"
#include "mmu_core/base/reason.h"
#include "server/base/errors.h"
#include "server/base/uuid.h"

namespace mmud {
namespace {

constexpr size_t kMaxIdLength = 63;
constexpr int kDefaultPageSize = 100;
constexpr int kMaxPageSize = 1000;
constexpr absl::string_view kWorkloads = "/workloads/";

bool IsVmId(absl::string_view id) {
  if (id.empty() || id.size() > kMaxIdLength) return false;
  if (id.front() == '-' || id.back() == '-') return false;
  return std::all_of(id.begin(), id.end(), [](char c) {
    return absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '-';
  });
}

// Parses a number in the daemon's spelling: no sign, no space, no leading zero.
template <typename Number>
bool ParseCanonical(absl::string_view text, Number* number) {
  return absl::SimpleAtoi(text, number) && absl::StrCat(*number) == text;
}

absl::Status BadName(absl::string_view field, absl::string_view value,
                     absl::string_view form) {
  return InvalidField(mmu::Reason::kInvalidName, field,
                      absl::StrCat(field, " is ", Quote(value),
                                   "; it must have the form ", form));
}

absl::Status BadPageToken(absl::string_view token) {
  return InvalidField(mmu::Reason::kInvalidPageToken, "page_token",
                      absl::StrCat("page_token ", Quote(token),
                                   " was not returned by this list; leave it "
                                   "empty to start from the beginning"));
}

}  // namespace

absl::Status CheckVmId(absl::string_view id, absl::string_view field) {
  if (IsVmId(id)) return absl::OkStatus();
  return BadName(field, id,
                 "of 1 to 63 characters a-z, 0-9 and '-', neither beginning "
                 "nor ending with '-'");
}

absl::Status CheckVmName(absl::string_view name, absl::string_view field) {
  absl::string_view id = name;
  if (absl::ConsumePrefix(&id, "vms/") && IsVmId(id)) return absl::OkStatus();
  return BadName(field, name, "vms/{vm}, for example vms/alpha");
}

std::string VmName(absl::string_view id) { return absl::StrCat("vms/", id); }

absl::StatusOr<MemslotName> ParseMemslotName(absl::string_view name,
                                             absl::string_view field) {
  const size_t at = name.find("/memslots/");
  MemslotName parsed;
  if (at != absl::string_view::npos) {
    const absl::string_view vm = name.substr(0, at);
    absl::string_view slot = name.substr(at);
    absl::ConsumePrefix(&slot, "/memslots/");
    if (CheckVmName(vm, field).ok() && ParseCanonical(slot, &parsed.slot) &&
        parsed.slot <= kMaxSlot) {
      parsed.vm = std::string(vm);
      return parsed;
    }
  }
  return BadName(field, name,
                 "vms/{vm}/memslots/{slot} with a slot of 0 to "
                 "32763, for example vms/alpha/memslots/0");
}

std::string MakeMemslotName(absl::string_view vm_name, uint32_t slot) {
  return absl::StrCat(vm_name, "/memslots/", slot);
}

absl::StatusOr<WorkloadName> ParseWorkloadName(absl::string_view name,
                                               absl::string_view field) {
  const size_t at = name.find(kWorkloads);
  if (at != absl::string_view::npos) {
    const absl::string_view vm = name.substr(0, at);
    const absl::string_view uuid = name.substr(at + kWorkloads.size());
    if (CheckVmName(vm, field).ok() && IsUuid(uuid)) {
      return WorkloadName{std::string(vm),
                          absl::StrCat(vm, kWorkloads, CanonicalUuid(uuid))};
    }
  }
  return BadName(field, name,
                 "vms/{vm}/workloads/{uuid}, as StartWorkload returned it");
}

std::string NewWorkloadName(absl::string_view vm_name) {
  return absl::StrCat(vm_name, kWorkloads, NewUuid());
}

absl::StatusOr<std::string> ParseOperationName(absl::string_view name,
                                               absl::string_view field) {
  absl::string_view uuid = name;
  if (absl::ConsumePrefix(&uuid, "operations/") && IsUuid(uuid)) {
    return absl::StrCat("operations/", CanonicalUuid(uuid));
  }
  return BadName(field, name,
                 "operations/{uuid}, as the call that started it returned it");
}

std::string NewOperationName() {
  return absl::StrCat("operations/", NewUuid());
}

std::string MakePageToken(absl::string_view list, absl::string_view last_key) {
  return absl::WebSafeBase64Escape(absl::StrCat(list, ":", last_key));
}

absl::StatusOr<std::string> ParsePageToken(absl::string_view list,
                                           absl::string_view token) {
  if (token.empty()) return std::string();
  std::string decoded;
  if (absl::WebSafeBase64Unescape(token, &decoded)) {
    absl::string_view key = decoded;
    if (absl::ConsumePrefix(&key, absl::StrCat(list, ":"))) {
      return std::string(key);
    }
  }
  return BadPageToken(token);
}

absl::StatusOr<absl::optional<uint64_t>> ParseNumberToken(
    absl::string_view list, absl::string_view token) {
  const absl::StatusOr<std::string> key = ParsePageToken(list, token);
  if (!key.ok()) return key.status();
  if (key->empty()) return absl::optional<uint64_t>();
  uint64_t number = 0;
  if (absl::SimpleAtoi(*key, &number)) return number;
  return BadPageToken(token);
}

absl::Status CheckOnePage(absl::string_view token) {
  if (token.empty()) return absl::OkStatus();
  return InvalidField(
      mmu::Reason::kInvalidPageToken, "page_token",
      absl::StrCat("page_token is ", Quote(token),
                   " though vm is set; one VM is one page: leave one of them "
                   "empty"));
}

absl::StatusOr<int> CheckPageSize(int32_t page_size) {
  if (page_size < 0) {
    return InvalidField(mmu::Reason::kInvalidPageSize, "page_size",
                        absl::StrCat("page_size is ", page_size,
                                     "; it must not be negative (0 means ",
                                     kDefaultPageSize, ")"));
  }
  if (page_size == 0) return kDefaultPageSize;
  return std::min(page_size, kMaxPageSize);
}

}  // namespace mmud

#include "server/base/labels.h"

#include <algorithm>
#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "mmu_core/base/reason.h"
#include "server/base/errors.h"

namespace mmud {
namespace {

constexpr size_t kMaxLabels = 64;
constexpr size_t kMaxLength = 63;

bool IsKeyCharacter(char c) {
  return absl::ascii_islower(static_cast<unsigned char>(c)) ||
         absl::ascii_isdigit(static_cast<unsigned char>(c)) || c == '-' ||
         c == '_' || c == '.' || c == '/';
}

bool IsKey(absl::string_view key) {
  return !key.empty() && key.size() <= kMaxLength &&
         absl::ascii_islower(static_cast<unsigned char>(key.front())) &&
         std::all_of(key.begin(), key.end(), IsKeyCharacter);
}

bool IsValue(absl::string_view value) {
  return value.size() <= kMaxLength &&
         std::all_of(value.begin(), value.end(), [](char c) {
           return IsKeyCharacter(c) ||
                  absl::ascii_isupper(static_cast<unsigned char>(c));
         });
}

}  // namespace

absl::Status CheckLabels(const Labels& labels, absl::string_view field) {
  if (labels.size() > kMaxLabels) {
    return InvalidField(mmu::Reason::kInvalidLabel, field,
                        absl::StrCat(field, " has ", labels.size(),
                                     " entries; it may have ", kMaxLabels));
  }
  for (const auto& [key, value] : labels) {
    if (!IsKey(key)) {
      return InvalidField(
          mmu::Reason::kInvalidLabel, field,
          absl::StrCat(field, " has the key ", Quote(key),
                       "; it must be 1 to 63 of a-z, 0-9, '-', '_', '.' and "
                       "'/' and begin with a letter"));
    }
    if (!IsValue(value)) {
      return InvalidField(
          mmu::Reason::kInvalidLabel, absl::StrCat(field, "[", key, "]"),
          absl::StrCat(field, "[", key, "] is ", Quote(value),
                       "; it must be up to 63 of a-z, A-Z, 0-9, '-', '_', '.' "
                       "and '/'"));
    }
  }
  return absl::OkStatus();
}

}  // namespace mmud

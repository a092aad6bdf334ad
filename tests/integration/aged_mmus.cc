#include "tests/integration/aged_mmus.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "mmud/v1/common.pb.h"

namespace mmud::integration {

std::string MmusOf(const v1::AgeRangeResponse& response) {
  std::string text;
  for (const v1::AgedMmu& mmu : response.mmus()) {
    absl::StrAppend(
        &text, text.empty() ? "" : ", ",
        absl::StripPrefix(v1::PageTableKind_Name(mmu.kind()),
                          "PAGE_TABLE_KIND_"),
        " ",
        absl::StripPrefix(v1::AgingCoverage_Name(mmu.coverage()),
                          "AGING_COVERAGE_"),
        " ", absl::StripPrefix(v1::AgingLock_Name(mmu.lock()), "AGING_LOCK_"));
  }
  return text;
}

}  // namespace mmud::integration

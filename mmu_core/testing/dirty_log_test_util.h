// Helpers shared by tests of dirty logs of whole slots.

#ifndef MMU_CORE_TESTING_DIRTY_LOG_TEST_UTIL_H_
#define MMU_CORE_TESTING_DIRTY_LOG_TEST_UTIL_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/vm/vm.h"

namespace mmu::testing {

inline constexpr uint64_t kMiB = uint64_t{1} << 20;
inline constexpr uint64_t kGiB = uint64_t{1} << 30;
inline constexpr uint64_t kPages2M = 512;

inline DirtyLogConfig Config(InitiallySet initially_set, SplitPolicy split) {
  DirtyLogConfig config;
  config.initially_set = initially_set;
  config.split = split;
  return config;
}

inline const DirtyLogConfig kPlain =
    Config(InitiallySet::kNo, SplitPolicy::kNone);
inline const DirtyLogConfig kEager =
    Config(InitiallySet::kNo, SplitPolicy::kEager);
inline const DirtyLogConfig kAllSet =
    Config(InitiallySet::kYes, SplitPolicy::kNone);
inline const DirtyLogConfig kAllSetSplit =
    Config(InitiallySet::kYes, SplitPolicy::kOnClear);

// An error in one line, to compare all its parts at once. ErrorText is the
// expected error, ErrorOf the actual one.
inline std::string ErrorText(absl::StatusCode code, Reason reason,
                             const std::string& field, int kvm_errno) {
  return absl::StrCat(absl::StatusCodeToString(code), " ",
                      std::string(ToString(reason)), " \"", field, "\" ",
                      kvm_errno);
}
inline std::string ErrorOf(const absl::Status& status) {
  const ErrorDetail detail = DetailOf(status);
  return ErrorText(status.code(), detail.reason, detail.field,
                   detail.kvm_errno);
}

inline uint64_t Flushes(const Vm& vm) {
  return vm.Stats().flush.remote_tlb_flush_requests;
}

}  // namespace mmu::testing

#endif  // MMU_CORE_TESTING_DIRTY_LOG_TEST_UTIL_H_

// Checks for bugs of this program. A caller's mistake is reported as an
// absl::Status and a guest's behaviour as a FaultResult; neither may trigger
// these checks.
//
//   MMU_CHECK(c)   always on: aborts and prints the condition and the place.
//   MMU_DCHECK(c)  the same in debug builds; not evaluated with NDEBUG.

#ifndef MMU_CORE_BASE_CHECK_H_
#define MMU_CORE_BASE_CHECK_H_

#include "absl/base/optimization.h"

namespace mmu {

[[noreturn]] void CheckFailed(const char* condition, const char* file,
                              int line);

}  // namespace mmu

#define MMU_CHECK(condition)    \
  (ABSL_PREDICT_TRUE(condition) \
       ? static_cast<void>(0)   \
       : ::mmu::CheckFailed(#condition, __FILE__, __LINE__))

#ifdef NDEBUG
#define MMU_DCHECK(condition) static_cast<void>(sizeof((condition) ? 1 : 0))
#else
#define MMU_DCHECK(condition) MMU_CHECK(condition)
#endif

#endif  // MMU_CORE_BASE_CHECK_H_

// Joins adjoining pages of equal age into maximal runs.

#ifndef MMU_CORE_WORKING_SET_AGE_RUN_JOINER_H_
#define MMU_CORE_WORKING_SET_AGE_RUN_JOINER_H_

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "mmu_core/working_set/generation_age.h"

namespace mmu {

// Called with the pages [first, end), which all have the age.
using AgeRunFn =
    absl::FunctionRef<void(uint64_t first, uint64_t end, GenerationAge age)>;

// Thread-compatible.
class AgeRunJoiner {
 public:
  // The first run begins at page `first`. `fn` gets the runs in ascending
  // order.
  AgeRunJoiner(uint64_t first, AgeRunFn fn)
      : fn_(fn), first_(first), end_(first) {}

  // Adds the pages from the end of the pages added before up to `end`.
  void Add(uint64_t end, GenerationAge age) {
    if (age != age_) {
      Finish();
      first_ = end_;
      age_ = age;
    }
    end_ = end;
  }

  // Hands over the last run. Called once, after the last page.
  void Finish() const {
    if (first_ < end_) fn_(first_, end_, age_);
  }

 private:
  const AgeRunFn fn_;
  uint64_t first_;
  uint64_t end_;
  GenerationAge age_ = kNeverYoung;
};

}  // namespace mmu

#endif  // MMU_CORE_WORKING_SET_AGE_RUN_JOINER_H_

#include "mmu_core/base/with_memory.h"

#include <cstdint>
#include <new>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/testing/failing_allocations.h"

namespace mmu {
namespace {

TEST(WithMemoryTest, SaysWhetherThereWasEnough) {
  EXPECT_TRUE(TryWithMemory([] { return true; }));
  EXPECT_FALSE(TryWithMemory([] { return false; }));
  EXPECT_FALSE(TryWithMemory([]() -> bool { throw std::bad_alloc(); }));
}

// Also if there is none for the error's text.
TEST(WithMemoryTest, TheLackOfMemoryIsAlwaysAnError) {
  for (uint64_t n = 1;; ++n) {
    const testing::Attempt attempt = testing::FailOneAllocation(n, [] {
      return WithMemory("size", "grow",
                        []() -> absl::Status { throw std::bad_alloc(); });
    });
    EXPECT_EQ(attempt.status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_EQ(DetailOf(attempt.status).reason,
              Reason::kResourceExhaustedMemory);
    EXPECT_EQ(DetailOf(attempt.status).field, attempt.failed ? "" : "size");
    if (!attempt.failed) break;
    EXPECT_LT(n, 100u);
  }
}

}  // namespace
}  // namespace mmu

// A reader of a VM's state does not wait for operations on it. Here the
// operation stands still in its middle until the reader has read everything.

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/optional.h"
#include "gtest/gtest.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/level.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/interleaving.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/vm.h"

namespace mmu::testing {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kGiB = uint64_t{1} << 30;

// Reads all that a server shows of a VM. Returns the state of slots and logs.
std::string LookAt(const Vm& vm) {
  std::string seen;
  for (const MemslotInfo& slot : vm.Memslots()) {
    absl::StrAppend(&seen, "slot ", slot.config.slot, " at ",
                    slot.config.gpa.value() / kMiB, " MiB, generation ",
                    slot.generation, slot.dirty_log_enabled ? ", logs" : "",
                    "; ");
    EXPECT_EQ(vm.FindMemslot(0, slot.config.slot)->generation, slot.generation);
  }
  const absl::optional<DirtyLogView> log = vm.FindDirtyLog();
  EXPECT_EQ(vm.LogsDirtyPages(), log.has_value());
  if (log.has_value()) {
    absl::StrAppend(&seen, "log: ", log->state.open_epoch, "; ");
    for (const SlotLogState& slot : log->state.slots) {
      absl::StrAppend(&seen, "sealed of ", slot.slot, ": ",
                      slot.sealed_page_count, "; ");
    }
  }
  EXPECT_GT(vm.GuestSpace().size_bytes(), 0u);
  EXPECT_GT(vm.Stats().guest_memory_bytes, 0);
  EXPECT_EQ(vm.VcpuStats().size(), 1u);
  EXPECT_EQ(vm.shadow_page_limit(), 0u);
  EXPECT_FALSE(vm.vcpus_paused());
  EXPECT_FALSE(vm.Workload().ok());
  EXPECT_EQ(vm.Stats().undelivered_slots, 0u);
  return seen;
}

class StateReadsTest : public ::testing::Test {
 protected:
  StateReadsTest()
      : vm_(MakeVm({Slot(0, 0, 4 * kMiB), Slot(1, kGiB, 4 * kMiB)})) {
    Write(*vm_, 0x1000);
    threads_.Add("reader", [this] { seen_ = LookAt(*vm_); });
  }

  // Runs `work` up to `point`, reads the state there, and runs `work` to its
  // end.
  template <typename Work>
  std::string LookDuring(Work work, HookPoint point) {
    threads_.Add("work", work);
    threads_.RunTo("work", point);
    EXPECT_FALSE(threads_.HasEnded("work"));
    threads_.RunToEnd("reader");
    threads_.RunToEnd("work");
    return seen_;
  }

  std::unique_ptr<Vm> vm_;
  std::string seen_;
  Interleaving threads_;
};

TEST_F(StateReadsTest, NobodyWaitsForADirtyLogThatIsBeingStarted) {
  EXPECT_EQ(
      LookDuring([this] { EXPECT_TRUE(StartLog(*vm_, {}, nullptr).ok()); },
                 HookPoint::kFlagToProtect),
      "slot 0 at 0 MiB, generation 6, logs; "
      "slot 1 at 1024 MiB, generation 6, logs; ");
}

TEST_F(StateReadsTest, NobodyWaitsForADirtyLogThatIsBeingStopped) {
  ASSERT_TRUE(StartLog(*vm_, {}, nullptr).ok());
  EXPECT_EQ(
      LookDuring(
          [this] {
            EXPECT_TRUE(StopLog(*vm_, RecoverOnStop::kYes,
                                Undelivered::kDiscard, nullptr)
                            .ok());
          },
          HookPoint::kReadLocked),
      "slot 0 at 0 MiB, generation 8; slot 1 at 1024 MiB, generation 8; ");
}

// The slot and the generation stay the same until the slot is gone.
TEST_F(StateReadsTest, NobodyWaitsForASlotThatIsBeingDeletedOrMoved) {
  EXPECT_EQ(
      LookDuring([this] { EXPECT_TRUE(vm_->SetMemslot(Slot(1, 0, 0)).ok()); },
                 HookPoint::kInvalidateToRequest),
      "slot 0 at 0 MiB, generation 6; slot 1 at 1024 MiB, generation 6; ");
}

TEST_F(StateReadsTest, NobodyWaitsForAGracePeriodOfASwap) {
  EXPECT_EQ(LookDuring(
                [this] {
                  EXPECT_TRUE(vm_->SetMemslot(Slot(2, kGiB / 2, kMiB)).ok());
                },
                HookPoint::kGracePeriod),
            "slot 0 at 0 MiB, generation 4; slot 1 at 1024 MiB, generation 4; "
            "slot 2 at 512 MiB, generation 4; ");
}

// The state of the log is that from before the seal.
TEST_F(StateReadsTest, NobodyWaitsForASeal) {
  ASSERT_TRUE(StartLog(*vm_, {}, nullptr).ok());
  Write(*vm_, 0x1000);
  EXPECT_EQ(LookDuring([this] { EXPECT_TRUE(SealLog(*vm_, 0, nullptr).ok()); },
                       HookPoint::kJoinToLeave),
            "slot 0 at 0 MiB, generation 6, logs; "
            "slot 1 at 1024 MiB, generation 6, logs; "
            "log: 1; sealed of 0: 0; sealed of 1: 0; ");
  const DirtyLogState state = vm_->FindDirtyLog()->state;
  EXPECT_EQ(state.slots[0].sealed_page_count, 1u);
  EXPECT_EQ(state.open_epoch, 2u);
}

}  // namespace
}  // namespace mmu::testing

#include "mmu_core/testing/locked_allocations.h"

#include <memory>

#include "gtest/gtest.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"

namespace mmu::testing {
namespace {

// Allocates in a way that the compiler cannot optimise away.
void Allocate() {
  const auto memory = std::make_unique<volatile int>(1);
  *memory = 2;
}

// Covers: LCK-01
TEST(LockedAllocationsTest, SeesWhatIsAllocatedWhileTheLockIsHeld) {
  MmuLock lock;
  LockedAllocations allocations;
  Allocate();
  {
    MmuWriteLocked write(lock, LockOp::kZap);
    Allocate();
    Allocate();
  }
  Allocate();
  {
    MmuReadLocked read(lock, LockOp::kAge);
    Allocate();
    read.Unlock();
    Allocate();
    read.Relock();
  }
  {
    MmuReadLocked fault(lock, LockOp::kFault);
    Allocate();
  }
  EXPECT_EQ(allocations.Findings(),
            "2 allocations in write mode between kWriteLocked and kUnlock\n"
            "2 allocations in read mode between kReadLocked and kUnlock\n");
  EXPECT_EQ(allocations.reads(), 3u);
  EXPECT_EQ(allocations.writes(), 1u);
}

// Covers: LCK-01
TEST(LockedAllocationsTest, SeesWaitsWhileTheLockIsHeld) {
  MmuLock lock;
  LockedAllocations waits;
  RcuSynchronize();
  {
    MmuWriteLocked write(lock, LockOp::kZap);
    RcuSynchronize();
    RcuSynchronize();
  }
  {
    MmuReadLocked read(lock, LockOp::kAge);
    AtHook(HookPoint::kHeldBackToWait);
    read.Unlock();
    RcuSynchronize();
    read.Relock();
    AtHook(HookPoint::kSnapshotToExchange);
  }
  EXPECT_EQ(waits.Findings(),
            "1 waits in read mode at kHeldBackToWait\n"
            "2 waits in write mode at kGracePeriod\n");
  EXPECT_EQ(waits.free_waits(), 2u);
}

TEST(LockedAllocationsTest, HasNothingToSayOfHoldsWithoutAny) {
  MmuLock lock;
  LockedAllocations allocations;
  Allocate();
  { MmuWriteLocked write(lock, LockOp::kZap); }
  Allocate();
  EXPECT_EQ(allocations.Findings(), "");
  EXPECT_EQ(allocations.writes(), 1u);
}

}  // namespace
}  // namespace mmu::testing

// Guests on borrowed memory, whose frames appear and disappear
// (memory/frame_lender.h).

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/guest/kernel/guest_cpu.h"
#include "mmu_core/guest/kernel/paging_geometry.h"
#include "mmu_core/guest/pattern.h"
#include "mmu_core/memory/backing.h"
#include "mmu_core/memory/frame_lender.h"
#include "mmu_core/memory/guest_memory_access.h"
#include "mmu_core/memory/guest_words.h"
#include "mmu_core/memory/read_guest_memory.h"
#include "mmu_core/memory/region_request.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/fake_lender.h"
#include "mmu_core/testing/host_pages_test_util.h"
#include "mmu_core/testing/interleaving.h"
#include "mmu_core/testing/tdp_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/run/guest_processor.h"
#include "mmu_core/vm/run/workload.h"
#include "mmu_core/vm/slots/host_notifier.h"
#include "mmu_core/vm/slots/region_hooks.h"
#include "mmu_core/vm/vcpu/pre_fault.h"
#include "mmu_core/vm/vcpu/vcpu.h"

namespace mmu::testing {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

constexpr uint64_t kPages = 1024;  // 4 MiB
constexpr auto kWrite = AccessKind::kWrite;
constexpr auto kRead = AccessKind::kRead;

// A VM with two slots. Slot 0 is borrowed and has no frame at first. Slot 1, at
// 1 GiB, belongs to the VM.
class BorrowedMemory {
 protected:
  explicit BorrowedMemory(MmuMode mode) {
    VmConfig config;
    config.mmu = mode;
    if (mode == MmuMode::kShadow) config.format = EntryFormat::kNpt;
    config.memslots = {Slot(1, kGiB, 2 * kMiB)};
    vm_ = MakeVmFrom(config);
    VmState& state = vm_->state();
    const auto backing =
        state.memory.Borrow({.kind = BackingKind::kMemfd,
                             .address = lender_->address(),
                             .size_bytes = lender_->size_bytes(),
                             .host_page_level = Level::k2M},
                            lender_);
    EXPECT_TRUE(backing.ok());
    RegionRequest request;
    request.size_bytes = lender_->size_bytes();
    request.userspace_addr = (*backing)->hva();
    request.backing = *backing;
    MutexLock lock(state.slots.slots_lock);
    RegionHooks hooks(state, nullptr);
    EXPECT_TRUE(state.slots.SetRegion(request, hooks).ok());
  }
  ~BorrowedMemory() { EXPECT_EQ(AuditFindings(*vm_), ""); }

  HvaRange Hvas(uint64_t first, uint64_t end) {
    return HostPagesOf(*vm_, 0, first, end);
  }
  // Changes the state of frames as a lender must: within an invalidation.
  void Change(uint64_t first, uint64_t end, FrameState state) {
    InvalidateRangeStart(vm_->state(), Hvas(first, end), MayYield::kYes);
    lender_->Set(first, end, state);
    InvalidateRangeEnd(vm_->state(), Hvas(first, end));
  }
  uint64_t Mapped() const {
    return vm_->Stats().pages_4k + 512 * vm_->Stats().pages_2m;
  }
  // Returns kNone if vCPU 0 could write to the page, else the reason of its
  // error.
  Reason ReasonOfWrite(uint64_t page) {
    if (Write(*vm_, page * kPageSize, 7) == AccessOutcome::kDone)
      return Reason::kNone;
    return DetailOf(vm_->state().vcpus[0]->status()).reason;
  }
  absl::Status PreFault(PreFaultRange& range) {
    return PreFaultMemory(vm_->state(), *vm_->state().vcpus[0], range,
                          [] { return false; });
  }

  std::shared_ptr<FakeLender> lender_ = std::make_shared<FakeLender>(kPages);
  std::unique_ptr<Vm> vm_;
};

// A guest on tables of the TDP MMU, one on shadow pages, and one on stage-2
// tables.
class BorrowedMemoryTest : public ::testing::TestWithParam<MmuMode>,
                           protected BorrowedMemory {
 protected:
  BorrowedMemoryTest() : BorrowedMemory(GetParam()) {}
};

// Covers: PF-23
TEST_P(BorrowedMemoryTest, AFaultAsksForAFrameThatIsMissingAndMapsIt) {
  const uint64_t taken = vm_->VcpuStats()[0].pf_taken;
  EXPECT_EQ(ReasonOfWrite(5), Reason::kNone);
  EXPECT_THAT(lender_->asked(), ElementsAre(Pair(5, kWrite)));
  EXPECT_EQ(vm_->VcpuStats()[0].pf_taken, taken + 1) << "in one fault";
  EXPECT_EQ(ReadValue(*vm_, 5 * kPageSize), 7u);
  EXPECT_EQ(std::to_integer<int>(lender_->address()[5 * kPageSize]), 7);
  EXPECT_EQ(lender_->asked().size(), 1u);
}

// Covers: PF-23
TEST_P(BorrowedMemoryTest, AFrameThatCannotBeHadIsAnErrorOfTheVcpu) {
  lender_->Fail("the owner is gone");
  EXPECT_EQ(ReasonOfWrite(5), Reason::kHostFrameMissing);
  const absl::Status& status = vm_->state().vcpus[0]->status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(DetailOf(status).kvm_errno, EFAULT);
  EXPECT_THAT(std::string(status.message()), HasSubstr("the owner is gone"));
  EXPECT_EQ(Mapped(), 0u);
  lender_->Fail("");
  EXPECT_EQ(ReasonOfWrite(5), Reason::kNone);
}

// Covers: PF-16, PF-23
TEST_P(BorrowedMemoryTest, AWriteAsksForTheRightAndFailsWhereThereIsNone) {
  lender_->Set(0, 2, FrameState::kReadOnly);
  EXPECT_EQ(ReadValue(*vm_, 0), 0u);
  EXPECT_THAT(lender_->asked(), IsEmpty());
  // The lender gives the right, like a host that copies a page on write.
  EXPECT_EQ(ReasonOfWrite(0), Reason::kNone);
  EXPECT_THAT(lender_->asked(), ElementsAre(Pair(0, kWrite)));
  lender_->GiveOnDemand(FrameState::kReadOnly);
  EXPECT_EQ(ReasonOfWrite(1), Reason::kHostReadOnly);
  EXPECT_EQ(ReasonOfWrite(2), Reason::kHostReadOnly);
  EXPECT_EQ(ReadValue(*vm_, 2 * kPageSize), 0u);
}

// Covers: PF-27
TEST_P(BorrowedMemoryTest, AFrameThatGoesIsMappedNoMoreAndAskedForAgain) {
  EXPECT_EQ(ReasonOfWrite(5), Reason::kNone);
  EXPECT_EQ(ReasonOfWrite(6), Reason::kNone);
  Change(5, 6, FrameState::kMissing);
  EXPECT_EQ(ReadValue(*vm_, 5 * kPageSize), 0u) << "a page that nobody wrote";
  EXPECT_THAT(lender_->asked(),
              ElementsAre(Pair(5, kWrite), Pair(6, kWrite), Pair(5, kRead)));
  EXPECT_EQ(ReadValue(*vm_, 6 * kPageSize), 7u);
}

// RACE-48: a fault has found its frame and waits for the lock, and the frame
// goes.
// Covers: PF-25, TST-50
TEST_P(BorrowedMemoryTest, Race48AFrameThatGoesBeforeTheLockIsNotMapped) {
  lender_->Set(5, 6, FrameState::kReadWrite);
  Interleaving threads;
  Reason reason = Reason::kNone;
  threads.Add("fault", [&] { reason = ReasonOfWrite(5); });
  threads.RunTo("fault", HookPoint::kFrameToLock);
  Change(5, 6, FrameState::kMissing);
  lender_->Fail("no");
  threads.RunToEnd("fault");
  EXPECT_EQ(reason, Reason::kHostFrameMissing);
  EXPECT_EQ(Mapped(), 0u);
  lender_->Fail("");
}

// RACE-48: a frame goes again before the fault that asked for it has returned.
// Covers: TST-50
TEST_P(BorrowedMemoryTest, Race48AFrameThatDoesNotStayIsAskedForOncePerFault) {
  int asked = 0;
  lender_->GiveOnDemand(FrameState::kMissing);
  lender_->OnAsk([&] {
    if (++asked == 3) lender_->GiveOnDemand(FrameState::kReadWrite);
  });
  const VcpuStatsSnapshot before = vm_->VcpuStats()[0];
  EXPECT_EQ(ReasonOfWrite(5), Reason::kNone);
  const VcpuStatsSnapshot since = vm_->VcpuStats()[0].Since(before);
  EXPECT_EQ(asked, 3);
  EXPECT_EQ(since.pf_taken, 3u);
  EXPECT_EQ(since.pf_retried, 2u);
}

// RACE-48: the lender gives the right to write and takes it away before the
// fault that asked for it has returned. The fault must not treat this as a
// refusal.
// Covers: PF-23, TST-50
TEST_P(BorrowedMemoryTest, Race48ARightThatDoesNotStayIsAskedForAgain) {
  lender_->Set(5, 6, FrameState::kReadOnly);
  lender_->OnAnswer([&] {
    if (lender_->asked().size() < 3) Change(5, 6, FrameState::kReadOnly);
  });
  const VcpuStatsSnapshot before = vm_->VcpuStats()[0];
  EXPECT_EQ(ReasonOfWrite(5), Reason::kNone);
  const VcpuStatsSnapshot since = vm_->VcpuStats()[0].Since(before);
  EXPECT_THAT(lender_->asked(),
              ElementsAre(Pair(5, kWrite), Pair(5, kWrite), Pair(5, kWrite)));
  EXPECT_EQ(since.pf_taken, 3u);
  EXPECT_EQ(since.pf_retried, 2u);
}

// RACE-48: an invalidation takes the right while the fault asks for it. The
// next request is refused.
// Covers: PF-23, TST-50
TEST_P(BorrowedMemoryTest, Race48ARefusalCountsOnceNoRightWasLost) {
  lender_->Set(5, 6, FrameState::kReadOnly);
  lender_->GiveOnDemand(FrameState::kReadOnly);
  lender_->OnAnswer([&] {
    if (lender_->asked().size() < 2) Change(5, 6, FrameState::kReadOnly);
  });
  EXPECT_EQ(ReasonOfWrite(5), Reason::kHostReadOnly);
  EXPECT_EQ(lender_->asked().size(), 2u);
}

// A lender may have to wait for a change of the slots, or for an invalidation
// by the host. So a vCPU that asks it must hold nothing that these need.
// Covers: SLOT-24
TEST_P(BorrowedMemoryTest, NothingIsHeldWhileALenderIsAsked) {
  bool changed = false;
  lender_->OnAsk([&] {
    EXPECT_FALSE(InRcuReadSection());
    EXPECT_FALSE(vm_->state().vcpus[0]->gate().in_guest());
    if (std::exchange(changed, true)) return;
    EXPECT_TRUE(vm_->SetMemslot(Slot(2, 2 * kGiB, kMiB)).ok());
    HostUnmaps(*vm_, Hvas(8, 9));
  });
  EXPECT_EQ(ReasonOfWrite(5), Reason::kNone);
  EXPECT_TRUE(changed);
}

// Covers: SLOT-25
TEST_P(BorrowedMemoryTest, TheSlotMayGoWhileItsLenderIsAsked) {
  Interleaving threads;
  AccessOutcome outcome = AccessOutcome::kDone;
  threads.Add("fault", [&] { outcome = Write(*vm_, 5 * kPageSize); });
  threads.RunTo("fault", HookPoint::kMissingToAsk);
  ASSERT_TRUE(vm_->SetMemslot(Slot(0, 0, 0)).ok());
  EXPECT_EQ(lender_.use_count(), 2) << "whoever asks keeps it";
  threads.RunToEnd("fault");
  EXPECT_EQ(outcome, AccessOutcome::kEmulated);
}

// Covers: SLOT-44, PF-30
TEST_P(BorrowedMemoryTest, AHugePageNeedsAllOfItsFrames) {
  lender_->Set(0, k2MPages - 1, FrameState::kReadWrite);
  lender_->Set(k2MPages, 2 * k2MPages, FrameState::kReadWrite);
  EXPECT_EQ(ReasonOfWrite(0), Reason::kNone);
  EXPECT_EQ(ReasonOfWrite(k2MPages), Reason::kNone);
  EXPECT_EQ(vm_->Stats().pages_2m, 1u);
  EXPECT_LT(vm_->Stats().pages_4k, k2MPages);
  EXPECT_THAT(lender_->asked(), IsEmpty()) << "its neighbours' are not needed";
  // When one frame of a huge page goes, the whole huge page is unmapped.
  Change(k2MPages + 3, k2MPages + 4, FrameState::kMissing);
  EXPECT_EQ(vm_->Stats().pages_2m, 0u);
  EXPECT_EQ(ReasonOfWrite(k2MPages), Reason::kNone);
  EXPECT_EQ(vm_->Stats().pages_2m, 0u);
}

// Covers: TDP-52, SHD-82
TEST_P(BorrowedMemoryTest, RecoveryWaitsForTheLastFrame) {
  lender_->Set(0, k2MPages - 1, FrameState::kReadWrite);
  EXPECT_EQ(ReasonOfWrite(0), Reason::kNone);
  ASSERT_TRUE(vm_->RecoverHugePages({}, nullptr).ok());
  EXPECT_EQ(ReasonOfWrite(0), Reason::kNone);
  EXPECT_EQ(vm_->Stats().pages_2m, 0u);
  lender_->Set(k2MPages - 1, k2MPages, FrameState::kReadWrite);
  EXPECT_EQ(vm_->RecoverHugePages({}, nullptr)->to_2m_count, 1u);
  EXPECT_EQ(ReasonOfWrite(0), Reason::kNone);
  EXPECT_EQ(vm_->Stats().pages_2m, 1u);
}

// Mapped pages have their frames, so a split asks the lender for none.
// Covers: TDP-60
TEST_P(BorrowedMemoryTest, ASplitOfAHugePageAsksForNothing) {
  lender_->Set(0, k2MPages, FrameState::kReadWrite);
  EXPECT_EQ(ReasonOfWrite(0), Reason::kNone);
  ASSERT_EQ(vm_->Stats().pages_2m, 1u);
  DirtyLogConfig log;
  log.split = SplitPolicy::kEager;
  ASSERT_TRUE(StartLog(*vm_, log, nullptr).ok());
  EXPECT_EQ(ReasonOfWrite(3), Reason::kNone);
  EXPECT_THAT(SealAndList(*vm_, 0), ElementsAre(3));
  EXPECT_THAT(lender_->asked(), IsEmpty());
}

TEST_P(BorrowedMemoryTest, AReadOfGuestMemoryAsksForItsFrames) {
  EXPECT_EQ(ReasonOfWrite(5), Reason::kNone);
  std::vector<std::byte> out(4 * kPageSize, std::byte{1});
  ASSERT_TRUE(vm_->ReadMemory(Gpa(4 * kPageSize), absl::MakeSpan(out)).ok());
  EXPECT_EQ(out[0], std::byte{0});
  EXPECT_EQ(out[kPageSize], std::byte{7});
  EXPECT_THAT(lender_->asked(), ElementsAre(Pair(5, kWrite), Pair(4, kRead),
                                            Pair(6, kRead), Pair(7, kRead)));
  lender_->Fail("no");
  const absl::Status status =
      vm_->ReadMemory(Gpa(6 * kPageSize), absl::MakeSpan(out));
  EXPECT_EQ(DetailOf(status).reason, Reason::kHostFrameMissing);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("gpa 0x8000"));
}

TEST_P(BorrowedMemoryTest, AReadGoesOnWhenAFrameIsThereAtLast) {
  size_t asked = 0;
  lender_->Answer(FrameAnswer::kNotYet);
  lender_->OnAsk([&] {
    // The first page gets its frame at its last request. The second page has
    // its own count.
    if (++asked == kMaxAsksPerPage) lender_->Answer(FrameAnswer::kReady);
    if (asked == kMaxAsksPerPage + 1) lender_->Answer(FrameAnswer::kNotYet);
    if (asked == kMaxAsksPerPage + 3) lender_->Answer(FrameAnswer::kReady);
  });
  std::vector<std::byte> out(2 * kPageSize);
  EXPECT_TRUE(vm_->ReadMemory(Gpa(0), absl::MakeSpan(out)).ok());
  EXPECT_EQ(asked, kMaxAsksPerPage + 3);
}

TEST_P(BorrowedMemoryTest, AReadEndsIfAFrameNeverComes) {
  lender_->Set(0, 1, FrameState::kReadWrite);
  lender_->Answer(FrameAnswer::kNotYet);
  // Without an end the read would fail here, instead of holding up the test.
  lender_->OnAsk([&] {
    if (lender_->asked().size() > 2 * kMaxAsksPerPage) lender_->Fail("no end");
  });
  std::vector<std::byte> out(2 * kPageSize);
  const absl::Status status = vm_->ReadMemory(Gpa(0), absl::MakeSpan(out));
  EXPECT_EQ(DetailOf(status).reason, Reason::kHostFrameMissing);
  EXPECT_EQ(DetailOf(status).kvm_errno, EFAULT);
  EXPECT_THAT(std::string(status.message()), HasSubstr("gpa 0x1000"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("100 requests"));
  EXPECT_THAT(lender_->asked(), Each(Pair(1, kRead)));
  EXPECT_EQ(lender_->asked().size(), kMaxAsksPerPage);
}

TEST_P(BorrowedMemoryTest, WordsOfAMissingFrameAreNeitherReadNorWritten) {
  GuestMemoryAccess memory(vm_->state().slots, 0, nullptr);
  uint64_t value = 99;
  const Gpa gpa(5 * kPageSize + 8);
  EXPECT_EQ(memory.Read(gpa, WordSize::k8, &value),
            GuestWordResult::kFrameMissing);
  EXPECT_EQ(memory.CompareExchange(gpa, WordSize::k8, 0, 1),
            GuestWordResult::kFrameMissing);
  EXPECT_EQ(value, 99u);
  lender_->Set(5, 6, FrameState::kReadOnly);
  EXPECT_EQ(memory.Read(gpa, WordSize::k8, &value), GuestWordResult::kDone);
  EXPECT_EQ(value, 0u);
  EXPECT_EQ(memory.CompareExchange(gpa, WordSize::k8, 0, 1),
            GuestWordResult::kHostReadonly);
  lender_->Set(5, 6, FrameState::kReadWrite);
  EXPECT_EQ(memory.CompareExchange(gpa, WordSize::k8, 0, 1),
            GuestWordResult::kDone);
  EXPECT_EQ(memory.Read(gpa, WordSize::k4, &value), GuestWordResult::kDone);
  EXPECT_EQ(value, 1u);
  EXPECT_THAT(lender_->asked(), IsEmpty());
}

// While a vCPU waits long for a frame, it can still be paused and stopped.
TEST_P(BorrowedMemoryTest, AVcpuThatWaitsForAFrameCanBePausedAndStopped) {
  lender_->Answer(FrameAnswer::kNotYet);
  PatternSpec spec;
  spec.write_fraction = 1;
  spec.access_count = 100;
  WorkloadOptions options;
  options.sources.push_back(MakePattern(spec, vm_->GuestSpace(), 0, 1));
  ASSERT_TRUE(vm_->StartWorkload(std::move(options)).ok());
  while (lender_->asked().size() < 3) std::this_thread::yield();
  vm_->PauseVcpus();
  const size_t asked = lender_->asked().size();
  vm_->ResumeVcpus();
  while (lender_->asked().size() < asked + 3) std::this_thread::yield();
  vm_->StopWorkload();
}

TEST_P(BorrowedMemoryTest, TheAuditorFindsALeafWithoutAFrame) {
  EXPECT_EQ(ReasonOfWrite(5), Reason::kNone);
  lender_->Set(5, 6, FrameState::kMissing);  // without an invalidation
  EXPECT_THAT(AuditFindings(*vm_), HasSubstr("the host has no page there"));
  lender_->Set(5, 6, FrameState::kReadWrite);
}

INSTANTIATE_TEST_SUITE_P(Mmus, BorrowedMemoryTest,
                         ::testing::Values(MmuMode::kTdp, MmuMode::kTdpShadow,
                                           MmuMode::kStage2),
                         [](const auto& p) {
                           return std::string(p.param == MmuMode::kTdp ? "Tdp"
                                              : p.param == MmuMode::kTdpShadow
                                                  ? "TdpShadow"
                                                  : "Stage2");
                         });

class BorrowedTdpTest : public ::testing::Test, protected BorrowedMemory {
 protected:
  BorrowedTdpTest() : BorrowedMemory(MmuMode::kTdp) {}
};

// Covers: PF-41
TEST_F(BorrowedTdpTest, APreFaultAsksForTheFramesOfItsRange) {
  PreFaultRange range = {.gpa = Gpa(4 * kPageSize),
                         .size_bytes = 2 * kPageSize};
  EXPECT_TRUE(PreFault(range).ok());
  EXPECT_EQ(range.size_bytes, 0u);
  EXPECT_THAT(lender_->asked(), ElementsAre(Pair(4, kRead), Pair(5, kRead)));
  EXPECT_EQ(Mapped(), 2u);
  lender_->Fail("no");
  range = {.gpa = Gpa(6 * kPageSize), .size_bytes = kPageSize};
  EXPECT_EQ(DetailOf(PreFault(range)).reason, Reason::kHostFrameMissing);
  EXPECT_EQ(range.size_bytes, kPageSize);
  lender_->Fail("");
}

// A guest with its own page tables, whose frames are missing as well.
class BorrowedTablesTest : public ::testing::Test, protected BorrowedMemory {
 protected:
  // The page of the first table. The table of each lower level follows.
  static constexpr uint64_t kRoot = 16;
  static constexpr uint64_t kData = 20;

  BorrowedTablesTest() : BorrowedMemory(MmuMode::kShadow) {
    for (uint64_t table = kRoot; table < kData; ++table) {
      SetEntry(table, 0, table + 1);
    }
    cpu_.EnablePaging(PagingGeometry::k4Level, Gpa(kRoot * kPageSize));
  }
  // Writes an entry through the lender's own mapping of the memory.
  void SetEntry(uint64_t table, uint64_t index, uint64_t page,
                uint64_t accessed_dirty = gpte::kAccessed | gpte::kDirty) {
    const uint64_t entry = page * kPageSize | gpte::kPresent | gpte::kWrite |
                           gpte::kUser | accessed_dirty;
    std::memcpy(lender_->address() + table * kPageSize + index * sizeof(entry),
                &entry, sizeof(entry));
  }
  uint64_t Entry(uint64_t table) const {
    uint64_t entry;
    std::memcpy(&entry, lender_->address() + table * kPageSize, sizeof(entry));
    return entry;
  }
  // Makes the guest's tables read-only for now, and clears their A and D bits.
  void SetReadOnlyTables() {
    for (uint64_t table = kRoot; table < kData; ++table) {
      SetEntry(table, 0, table + 1, 0);
    }
    lender_->Set(kRoot, kData, FrameState::kReadOnly);
  }
  GuestCpu::Outcome WriteVirtual(uint64_t gva) {
    uint64_t word = 7;
    GuestPageFault fault;
    return cpu_.Access(Gva(gva), 8, kWrite, Privilege::kSupervisor, &word,
                       &fault);
  }

  GuestProcessor cpu_{*vm_->state().vcpus[0]};
};

// Covers: SHD-46
TEST_F(BorrowedTablesTest, AWalkAsksForTheFramesOfTheTables) {
  EXPECT_EQ(WriteVirtual(8), GuestCpu::Outcome::kDone);
  EXPECT_THAT(lender_->asked(),
              ElementsAre(Pair(16, kRead), Pair(17, kRead), Pair(18, kRead),
                          Pair(19, kRead), Pair(20, kWrite)));
  EXPECT_EQ(std::to_integer<int>(lender_->address()[kData * kPageSize + 8]), 7);
}

TEST_F(BorrowedTablesTest, ATableThatCannotBeHadIsNoFaultOfTheGuest) {
  lender_->Fail("no");
  EXPECT_EQ(WriteVirtual(8), GuestCpu::Outcome::kError);
  EXPECT_EQ(DetailOf(cpu_.status()).reason, Reason::kHostFrameMissing);
  lender_->Fail("");
  EXPECT_EQ(WriteVirtual(8), GuestCpu::Outcome::kDone);
}

// Covers: SHD-47
TEST_F(BorrowedTablesTest, AWalkAsksForTheRightToSetTheDirtyBit) {
  SetReadOnlyTables();
  EXPECT_EQ(WriteVirtual(8), GuestCpu::Outcome::kDone);
  EXPECT_THAT(lender_->asked(),
              ElementsAre(Pair(kData - 1, kWrite), Pair(kData, kWrite)));
  EXPECT_NE(Entry(kData - 1) & gpte::kDirty, 0u);
  EXPECT_NE(Entry(kData - 1) & gpte::kAccessed, 0u);
  EXPECT_EQ(Entry(kRoot) & gpte::kAccessed, 0u) << "not worth asking";
}

// Covers: SHD-47
TEST_F(BorrowedTablesTest, AWalkFailsIfTheRightToSetTheDirtyBitIsRefused) {
  SetReadOnlyTables();
  lender_->GiveOnDemand(FrameState::kReadOnly);
  EXPECT_EQ(WriteVirtual(8), GuestCpu::Outcome::kError);
  EXPECT_EQ(DetailOf(cpu_.status()).reason, Reason::kHostReadOnly);
  EXPECT_THAT(lender_->asked(), ElementsAre(Pair(kData - 1, kWrite)));
  EXPECT_EQ(Entry(kData - 1) & gpte::kDirty, 0u);
  lender_->GiveOnDemand(FrameState::kReadWrite);
  EXPECT_EQ(WriteVirtual(8), GuestCpu::Outcome::kDone);
}

// A table arrives with the right to read only. The next fault asks for it
// again, for a write.
// Covers: SHD-47
TEST_F(BorrowedTablesTest, ATableThatComesReadOnlyIsAskedForAgain) {
  SetReadOnlyTables();
  lender_->SwapOut(kData - 1);
  lender_->OnAsk([&] {
    const bool read = lender_->asked().back().second == kRead;
    lender_->GiveOnDemand(read ? FrameState::kReadOnly
                               : FrameState::kReadWrite);
  });
  EXPECT_EQ(WriteVirtual(8), GuestCpu::Outcome::kDone);
  EXPECT_THAT(lender_->asked(),
              ElementsAre(Pair(kData - 1, kRead), Pair(kData - 1, kWrite),
                          Pair(kData, kWrite)));
  EXPECT_NE(Entry(kData - 1) & gpte::kDirty, 0u);
}

// RACE-48: an invalidation that takes a right away again is not a refusal.
// Covers: TST-50
TEST_F(BorrowedTablesTest, Race48ATablesRightThatDoesNotStayIsAskedForAgain) {
  SetReadOnlyTables();
  lender_->OnAnswer([&] {
    if (lender_->asked().size() > 1) return;
    Change(kData - 1, kData, FrameState::kReadOnly);
  });
  EXPECT_EQ(WriteVirtual(8), GuestCpu::Outcome::kDone);
  EXPECT_THAT(lender_->asked(),
              ElementsAre(Pair(kData - 1, kWrite), Pair(kData - 1, kWrite),
                          Pair(kData, kWrite)));
}

// RACE-48: the frames of a table and of the page alternately displace each
// other. One fault asks for each of them once, and the vCPU's loop continues.
// Covers: TST-50
TEST_F(BorrowedTablesTest, Race48FramesThatDriveEachOtherOutEndTheFault) {
  constexpr uint64_t kTable = kData - 1;
  lender_->Set(kRoot, kTable, FrameState::kReadWrite);
  int asked = 0;
  lender_->OnAsk([&] {
    if (++asked == 5) return lender_->OnAsk(nullptr);
    const uint64_t other =
        lender_->asked().back().first == kTable ? kData : kTable;
    InvalidateRangeStart(vm_->state(), Hvas(other, other + 1), MayYield::kYes);
    lender_->SwapOut(other);
    InvalidateRangeEnd(vm_->state(), Hvas(other, other + 1));
  });
  const VcpuStatsSnapshot before = vm_->VcpuStats()[0];
  EXPECT_EQ(WriteVirtual(8), GuestCpu::Outcome::kDone);
  const VcpuStatsSnapshot since = vm_->VcpuStats()[0].Since(before);
  EXPECT_THAT(
      lender_->asked(),
      ElementsAre(Pair(kTable, kRead), Pair(kData, kWrite), Pair(kTable, kRead),
                  Pair(kData, kWrite), Pair(kTable, kRead)));
  EXPECT_EQ(since.pf_taken, 3u);
  EXPECT_EQ(since.pf_retried, 2u);
}

// A prefetch maps only pages whose frames are there; it asks for none.
TEST_F(BorrowedTablesTest, WhatIsMissingIsNotPrefetched) {
  SetEntry(kData - 1, 1, kData + 1);
  SetEntry(kData - 1, 2, kData + 2);
  lender_->Set(kRoot, kData + 2, FrameState::kReadWrite);
  EXPECT_EQ(WriteVirtual(8), GuestCpu::Outcome::kDone);
  EXPECT_THAT(lender_->asked(), IsEmpty());
  EXPECT_EQ(vm_->Stats().pages_4k, 2u) << "the page and its first neighbour";
}

}  // namespace
}  // namespace mmu::testing

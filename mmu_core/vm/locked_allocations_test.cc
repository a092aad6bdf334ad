// No thread may allocate or sleep under mmu_lock (LCK-01). These tests run all
// operations on a VM, with every MMU, and count every allocation of the thread
// and every wait that may be long.

#include "mmu_core/testing/locked_allocations.h"

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/guest_paging/control_registers.h"
#include "mmu_core/guest_paging/guest_entry.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/host_pages_test_util.h"
#include "mmu_core/testing/tdp_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/core/noted_pages.h"
#include "mmu_core/vm/core/nx_parameters.h"
#include "mmu_core/vm/jobs/nx_recovery.h"
#include "mmu_core/vm/jobs/split_job.h"
#include "mmu_core/vm/logging/dirty_rings.h"
#include "mmu_core/vm/logging/log_stop.h"
#include "mmu_core/vm/run/guest_system.h"
#include "mmu_core/vm/slots/host_notifier.h"
#include "mmu_core/vm/vcpu/pre_fault.h"
#include "mmu_core/vm/vcpu/shadow_vcpu.h"

namespace mmu::testing {
namespace {

constexpr uint64_t kSlotBytes = 32 * kMiB;
constexpr uint64_t kSlotPages = kSlotBytes / kPageSize;

struct Kind {
  const char* name;
  std::function<void(VmConfig&)> configure;
};

// Allocates in a way that the compiler cannot optimise away.
void Allocate() {
  const auto memory = std::make_unique<volatile int>(1);
  *memory = 2;
}

class LockedAllocationsTest : public ::testing::TestWithParam<Kind> {
 protected:
  LockedAllocationsTest() {
    VmConfig config;
    config.vcpu_count = 2;
    config.memslots = {Slot(0, 0, kSlotBytes, Level::k2M),
                       Slot(1, kSlotBytes, kSlotBytes, Level::k4K)};
    GetParam().configure(config);
    vm_ = MakeVmFrom(config, nx_);
    for (size_t i = 0; i < 2; ++i) {
      if (config.mmu != MmuMode::kShadow && config.mmu != MmuMode::kNested) {
        break;
      }
      guests_.push_back(GuestSystem::Boot(vm_->config(), *vm_->state().vcpus[i],
                                          vm_->GuestSpace().Share(i, 2),
                                          [this] {
                                            MakeRoomInRings();
                                            return true;
                                          })
                            .value());
    }
  }

  // Runs accesses of all kinds, by the guest's programs or by the vCPU itself.
  void Run(int accesses) {
    for (int i = 0; i < accesses; ++i) {
      constexpr AccessKind kKinds[] = {AccessKind::kRead, AccessKind::kWrite,
                                       AccessKind::kExec};
      const GuestAccess access = {
          .address_bytes = random_() % (2 * kSlotBytes) & ~uint64_t{7},
          .size_bytes = 8,
          .kind = kKinds[random_() % 3]};
      uint64_t word = random_();
      const size_t vcpu = random_() % 2;
      if (!guests_.empty()) {
        const absl::Status status = guests_[vcpu]->Access(access, &word);
        ASSERT_TRUE(status.ok()) << status;
        continue;
      }
      while (vm_->state().vcpus[vcpu]->Access(Gpa(access.address_bytes),
                                              access.kind, &word) ==
             AccessOutcome::kDirtyRingFull) {
        MakeRoomInRings();
      }
    }
  }
  void MakeRoomInRings() {
    HarvestDirtyRings(vm_->state());
    EXPECT_TRUE(ResetDirtyRings(
                    vm_->state(), [] { return false; }, nullptr)
                    .ok());
  }
  void SealAndClear() {
    for (const uint32_t slot : {0u, 1u}) {
      uint64_t epoch = 0;
      const std::vector<uint64_t> pages = SealAndList(*vm_, slot, &epoch);
      EXPECT_TRUE(ClearAndDeliver(*vm_, slot, epoch, 0, kSlotPages,
                                  MaskOf(kSlotPages, pages), nullptr)
                      .ok());
    }
  }
  void LogFor(InitiallySet initially_set, SplitPolicy split,
              RecoverOnStop recover) {
    DirtyLogConfig log;
    log.initially_set = initially_set;
    log.split = split;
    ASSERT_TRUE(StartLog(*vm_, log, nullptr).ok());
    Run(300);
    SealAndClear();
    Run(300);
    SealAndClear();
    ASSERT_TRUE(StopLog(*vm_, recover, Undelivered::kDiscard, nullptr).ok());
  }
  HvaRange Hvas(uint64_t first_mib, uint64_t mib) {
    constexpr uint64_t kPages = kMiB / kPageSize;
    return HostPagesOf(*vm_, 0, first_mib * kPages, (first_mib + mib) * kPages);
  }
  void SplitByJob() {
    SplitRequest request;
    auto job = SplitJob::Create(vm_->state(), request);
    ASSERT_TRUE(job.ok()) << job.status();
    ASSERT_TRUE((*job)->Run().ok());
  }

  NxParameters nx_{ItlbMultihit::kNo};
  std::mt19937_64 random_{7};
  std::unique_ptr<Vm> vm_;
  // Empty if the VM needs no guest.
  std::vector<std::unique_ptr<GuestSystem>> guests_;
};

// Covers: LCK-01
TEST_P(LockedAllocationsTest, NothingIsAllocatedOrAwaitedUnderMmuLock) {
  VmState& vm = vm_->state();
  LockedAllocations allocations;
  const auto check = [&](const char* what) {
    EXPECT_EQ(allocations.Findings(), "") << "until after: " << what;
  };
  Run(2000);
  check("faults");
  LogFor(InitiallySet::kNo, SplitPolicy::kNone, RecoverOnStop::kYes);
  LogFor(InitiallySet::kNo, SplitPolicy::kEager, RecoverOnStop::kNo);
  LogFor(InitiallySet::kYes, SplitPolicy::kOnClear, RecoverOnStop::kNo);
  check("dirty logs");
  EXPECT_TRUE(vm_->RecoverHugePages({}, nullptr).ok());
  Run(300);
  SplitByJob();
  check("a split");
  const GfnRange all = GfnRange::Of(Gfn(0), 2 * kSlotPages);
  EXPECT_TRUE(vm_->Age(all, AgeMode::kTestAndClear, nullptr).ok());
  Run(300);
  check("ageing");

  for (const MayYield may_yield : {MayYield::kYes, MayYield::kNo}) {
    InvalidateRangeStart(vm, Hvas(4, 2), may_yield);
    InvalidateRangeEnd(vm, Hvas(4, 2));
    Run(300);
  }
  SetHostAccess(vm, Hvas(30, 2), HostAccess::kReadWrite);
  TestYoung(vm, Hvas(0, 8));
  ClearYoung(vm, Hvas(0, 8));
  ZapGfnRange(vm, 0, all);
  Run(300);
  check("the host's notifications");

  ASSERT_TRUE(nx_.SetNxHugePages("force").ok());
  Run(1000);
  RecoverNxHugePages(vm, 2);
  Run(300);
  ASSERT_TRUE(nx_.SetNxHugePages("off").ok());
  Run(300);
  check("NX huge pages");

  if (vm.shadow == nullptr) {
    PreFaultRange range = {.gpa = Gpa(0), .size_bytes = kSlotBytes, .flags = 0};
    while (range.size_bytes > 0) {
      ASSERT_TRUE(
          PreFaultMemory(vm, *vm.vcpus[0], range, [] { return false; }).ok());
    }
  } else {
    ASSERT_TRUE(vm_->SetShadowPageLimit(ShadowPages::kMinLimit, nullptr).ok());
    Run(1000);
  }
  check("what this MMU has alone");

  // A slot is made, used, moved and deleted.
  MemslotConfig slot = Slot(2, kGiB, 4 * kMiB);
  ASSERT_TRUE(vm_->SetMemslot(slot).ok());
  uint64_t word = 1;
  if (guests_.empty()) {
    vm.vcpus[0]->Access(Gpa(kGiB), AccessKind::kWrite, &word);
    vm.vcpus[0]->Access(Gpa(3 * kGiB), AccessKind::kWrite, &word);  // no slot
  }
  slot.gpa = Gpa(2 * kGiB);
  ASSERT_TRUE(vm_->SetMemslot(slot).ok());
  Run(300);
  slot.size_bytes = 0;
  ASSERT_TRUE(vm_->SetMemslot(slot).ok());
  Run(300);
  check("memslots");

  vm_->ListShadowPages({}, {}, 100);
  vm_->Stats();
  for (const auto& vcpu : vm.vcpus) vcpu->ReleaseRoot();
  check("the end");
  EXPECT_GT(allocations.reads() + allocations.writes(), 100u);
  EXPECT_GT(allocations.free_waits(), 0u) << "no wait was seen at all";

  // This would have been found.
  {
    MmuReadLocked lock(vm.mmu_lock, LockOp::kAge);
    Allocate();
  }
  {
    MmuWriteLocked lock(vm.mmu_lock, LockOp::kZap);
    RcuSynchronize();
  }
  EXPECT_EQ(allocations.Findings(),
            "1 allocations in read mode between kReadLocked and kUnlock\n"
            "1 waits in write mode at kGracePeriod\n");
}

// The first action of a new thread takes the lock. All that a thread allocates
// once must exist by then.
// Covers: LCK-01
TEST_P(LockedAllocationsTest, ANewThreadAllocatesNothingUnderItEither) {
  VmState& vm = vm_->state();
  int took_the_lock = 0;
  const auto check = [&](const char* what, const std::function<void()>& fn) {
    std::thread([&] {
      LockedAllocations allocations;
      fn();
      EXPECT_EQ(allocations.Findings(), "") << what;
      took_the_lock += allocations.reads() + allocations.writes() > 0;
    }).join();
  };
  check("a fault, after a root was loaded", [&] { Run(100); });
  check("a zap of all", [&] {
    MutexLock lock(vm.slots.slots_lock);
    vm.mmus.FastZapAll(LockOp::kZap, nullptr);
  });
  check("a root", [&] { Run(100); });
  ASSERT_TRUE(nx_.SetNxHugePages("force").ok());
  Run(1000);
  check("an NX recovery", [&] { RecoverNxHugePages(vm, 2); });
  check("a recovery",
        [&] { EXPECT_TRUE(vm_->RecoverHugePages({}, nullptr).ok()); });
  check("the host's notification", [&] {
    InvalidateRangeStart(vm, Hvas(4, 2), MayYield::kYes);
    InvalidateRangeEnd(vm, Hvas(4, 2));
  });
  // All operations take the lock, except an NX recovery with nothing to
  // recover.
  EXPECT_GE(took_the_lock, 5);
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, LockedAllocationsTest,
    ::testing::Values(
        Kind{"Tdp", [](VmConfig&) {}},
        Kind{"Npt", [](VmConfig& c) { c.format = EntryFormat::kNpt; }},
        Kind{"WithoutAd",
             [](VmConfig& c) { c.ad_bits = VmConfig::AdBits::kOff; }},
        Kind{"Rings", [](VmConfig& c) { c.dirty_ring_entries = 256; }},
        Kind{"Pml", [](VmConfig& c) { c.pml = VmConfig::Pml::kYes; }},
        Kind{"SlotZap",
             [](VmConfig& c) { c.slot_zap = VmConfig::SlotZap::kSlot; }},
        Kind{"TdpShadow", [](VmConfig& c) { c.mmu = MmuMode::kTdpShadow; }},
        Kind{"TdpShadowRings",
             [](VmConfig& c) {
               c.mmu = MmuMode::kTdpShadow;
               c.dirty_ring_entries = 256;
               c.slot_zap = VmConfig::SlotZap::kSlot;
             }},
        Kind{"Shadow",
             [](VmConfig& c) {
               c.mmu = MmuMode::kShadow;
               c.format = EntryFormat::kNpt;
               c.guest_paging.processes = 3;
             }},
        Kind{"ShadowPaeLarge",
             [](VmConfig& c) {
               c.mmu = MmuMode::kShadow;
               c.format = EntryFormat::kNpt;
               c.guest_paging.mode = GuestPagingConfig::Mode::kPae;
               c.guest_paging.large_pages = GuestPagingConfig::LargePages::kYes;
             }},
        Kind{"NestedEpt",
             [](VmConfig& c) {
               c.mmu = MmuMode::kNested;
               c.guest_paging.large_pages = GuestPagingConfig::LargePages::kYes;
             }},
        Kind{"NestedNptSlotZap",
             [](VmConfig& c) {
               c.mmu = MmuMode::kNested;
               c.format = EntryFormat::kNpt;
               c.slot_zap = VmConfig::SlotZap::kSlot;
             }},
        Kind{"NestedPml",
             [](VmConfig& c) {
               c.mmu = MmuMode::kNested;
               c.pml = VmConfig::Pml::kYes;
             }}),
    [](const auto& p) { return std::string(p.param.name); });

// There are as many vCPUs as shadow pages, and each vCPU has a root. So no page
// is left, neither for one more root nor for a page below a root.
// Covers: LCK-01, SHD-28
TEST(LockedAllocationsOfErrorsTest,
     TheTextOfAnErrorIsNotAllocatedUnderMmuLock) {
  constexpr auto kVcpus = static_cast<int>(ShadowPages::kMinLimit);
  VmConfig config;
  config.mmu = MmuMode::kShadow;
  config.format = EntryFormat::kNpt;
  config.shadow_page_limit = ShadowPages::kMinLimit;
  config.vcpu_count = kVcpus + 1;
  config.memslots = {Slot(0, 0, kMiB)};
  auto vm = MakeVmFrom(config);
  const auto vcpu = [&](int i) -> ShadowVcpu& {
    return *vm->state().vcpus[static_cast<size_t>(i)]->shadow();
  };
  // The first vCPU's tables are at gfns 1 to 4. The others' tables are empty.
  for (uint64_t table = 1; table <= 4; ++table) {
    const uint64_t entry = ((table + 1) << kPageShift) | guest_entry::kPresent |
                           guest_entry::kWritable | guest_entry::kUser;
    ASSERT_EQ(vcpu(0).memory().CompareExchange(ToGpa(Gfn(table)), WordSize::k8,
                                               0, entry),
              GuestWordResult::kDone);
  }
  const auto load_and_read = [&](int i) {
    GuestPagingState state;
    state.cr0 = kCr0Pg | kCr0Wp;
    state.cr4 = kCr4Pae;
    state.efer = kEferLma | kEferNx;
    ShadowVcpu& shadow = vcpu(i);
    shadow.SetPaging(ShadowPaging::OfGuest(state));
    shadow.SetRoot({.table = Gfn(i == 0 ? 1 : 100 + static_cast<uint64_t>(i))},
                   ShadowVcpu::Flush::kYes);
    uint64_t word = 0;
    GuestFault fault;
    return shadow.Access(0x800000, 8, {.kind = AccessKind::kRead}, &word,
                         &fault);
  };
  LockedAllocations allocations;
  for (int i = 0; i < kVcpus; ++i) {
    // The access finds no mapping, but the vCPU's root is in use now.
    EXPECT_EQ(load_and_read(i), AccessOutcome::kGuestFault) << i;
  }
  EXPECT_EQ(allocations.Findings(), "");

  EXPECT_EQ(load_and_read(kVcpus), AccessOutcome::kError) << "no root";
  EXPECT_EQ(DetailOf(vcpu(kVcpus).status()).reason,
            Reason::kShadowPagesExhausted);
  uint64_t word = 0;
  GuestFault fault;
  EXPECT_EQ(vcpu(0).Access(0, 8, {.kind = AccessKind::kRead}, &word, &fault),
            AccessOutcome::kError)
      << "no page below a root";
  EXPECT_EQ(DetailOf(vcpu(0).status()).reason, Reason::kShadowPagesExhausted);
  EXPECT_EQ(allocations.Findings(), "");
}

}  // namespace
}  // namespace mmu::testing

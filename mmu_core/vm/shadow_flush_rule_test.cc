// The rules for the shadow MMU's flushes. Each row has one vCPU that has cached
// something, and another that makes it stale. The auditor compares what is
// cached, and what the pending flushes will drop of it, with the tables. So a
// flush that is left out, or that covers too little, is found at once.

#include <cstdint>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/level.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/host_pages_test_util.h"
#include "mmu_core/testing/lock_trace.h"
#include "mmu_core/testing/shadowed_guest_test_util.h"
#include "mmu_core/testing/tdp_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/tlb/tlb_flush.h"
#include "mmu_core/tlb/tlb_flush_batch.h"
#include "mmu_core/vm/run/l1_processor.h"
#include "mmu_core/vm/vcpu/shadow_vcpu.h"

namespace mmu {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

// What is done to the flushes for `reason`.
enum class Fault {
  kNone,
  kSkipped,
  kOtherGfns,  // the flush covers gfns that are not used
  kOtherMmu,
  kShadowMmuOnly,
  kLeafsOnly,
};
struct Injection {
  Fault fault = Fault::kNone;
  FlushReason reason = FlushReason::kZap;
  std::vector<TlbFlush> flushes;  // those for `reason`, unaltered
  bool armed = false;
};
Injection g_injection;

}  // namespace

bool ShouldSkipFlush(FlushReason reason) {
  return g_injection.armed && g_injection.fault == Fault::kSkipped &&
         reason == g_injection.reason;
}

void AlterFlush(FlushReason reason, TlbFlush& flush) {
  if (!g_injection.armed || reason != g_injection.reason) return;
  g_injection.flushes.push_back(flush);
  switch (g_injection.fault) {
    case Fault::kNone:
    case Fault::kSkipped:
      break;
    case Fault::kOtherGfns:
      flush.gfns = GfnRange{Gfn(uint64_t{1} << 30), kAllGfns.end};
      break;
    case Fault::kOtherMmu:
      flush.mmu = flush.mmu == MmuKind::kTdp ? MmuKind::kShadow : MmuKind::kTdp;
      break;
    case Fault::kShadowMmuOnly:
      flush.mmu = MmuKind::kShadow;
      break;
    case Fault::kLeafsOnly:
      flush.depth = FlushDepth::kLeafs;
      break;
  }
}

namespace testing {
namespace {

constexpr size_t kVictim = 0;  // the vCPU that has cached something
constexpr size_t kEditor = 1;
constexpr uint64_t kLarge = 1 * kGiB;  // a large page of the guest
constexpr uint64_t kOtherSlot = 256 * kMiB;

class ShadowFlushes : public ShadowedGuest {
 public:
  using ShadowedGuest::Entry;
  using ShadowedGuest::Put;
  using ShadowedGuest::shadow;
  using ShadowedGuest::Store;

  Vm& vm() { return *vm_; }
  // The address of the first window's page `page`, which maps gfn 0x1000 +
  // page.
  static uint64_t PageAt(uint64_t page) { return page * kPageSize; }
  // The address at which the guest's own table `gfn` can be written.
  static uint64_t TableAt(uint64_t gfn) { return 2 * kMiB + gfn * kPageSize; }

  void Read(uint64_t address, size_t vcpu) {
    ASSERT_EQ(
        Access(address, AccessKind::kRead, 0, Privilege::kSupervisor, vcpu),
        AccessOutcome::kDone);
  }
  void Write(uint64_t address, size_t vcpu) {
    ASSERT_EQ(
        Access(address, AccessKind::kWrite, 1, Privilege::kSupervisor, vcpu),
        AccessOutcome::kDone);
  }
  void MakeGuest(Level host_page_level) {
    VmConfig config;
    config.vcpu_count = 2;
    config.slot_zap = VmConfig::SlotZap::kSlot;
    config.memslots = {Slot(1, kOtherSlot, 4 * kMiB),
                       Slot(2, kLarge, 2 * kMiB, host_page_level)};
    Make(config, kWritable);
    // A large page of the guest at kLarge, in the slot of the same address. Its
    // Dirty bit is clear.
    Put(2, kLarge / kGiB, Entry(6, kTable));
    Put(6, 0, Entry(kLarge / kPageSize, 0xa7));
    // Page 9 of the first window is in the other slot.
    Put(4, 9, Entry(kOtherSlot / kPageSize, kWritable));
    // A table that is not linked yet, at the gfn of page 7.
    Put(0x1007, 0, Entry(0x1100, kWritable));
  }
};

struct Row {
  const char* name;
  FlushReason reason;
  std::function<void(ShadowFlushes&)> prepare;
  std::function<void(ShadowFlushes&)> run;
  // The faults that leave something stale, besides a flush that is skipped.
  bool other_gfns = true;
  bool leafs_only = false;
  bool all_gfns = false;  // the flush covers them
  Level host_page_level = Level::k4K;
};
std::ostream& operator<<(std::ostream& os, const Row& row) {
  return os << row.name;
}

class ShadowFlushRuleTest : public ::testing::TestWithParam<Row>,
                            public ShadowFlushes {
 protected:
  // Runs the row with one fault. Returns what the auditor found.
  std::string Findings(Fault fault) {
    const Row& row = GetParam();
    MakeGuest(row.host_page_level);
    row.prepare(*this);
    EXPECT_EQ(AuditFindings(vm()), "");
    g_injection = {.fault = fault, .reason = row.reason, .flushes = {}};
    g_injection.armed = true;
    row.run(*this);
    g_injection.armed = false;
    return AuditFindings(vm());
  }
};

// Covers: TLB-12
TEST_P(ShadowFlushRuleTest, TheFlushCoversAllThatIsStale) {
  EXPECT_EQ(Findings(Fault::kNone), "");
  ASSERT_THAT(g_injection.flushes, Not(IsEmpty()));
  for (const TlbFlush& flush : g_injection.flushes) {
    EXPECT_EQ(flush.CoversAllGfns(), GetParam().all_gfns);
    EXPECT_TRUE(flush.Covers(MmuKind::kShadow));
  }
  // The auditor leaves out what a flush in a queue covers. The vCPUs carry the
  // flushes out.
  for (const auto& vcpu : vm().state().vcpus) vcpu->HandleRequests();
  EXPECT_EQ(AuditFindings(vm()), "");
}

// Covers: TLB-05, TLB-06
TEST_P(ShadowFlushRuleTest, WithoutTheFlushSomethingStaysStale) {
  EXPECT_THAT(Findings(Fault::kSkipped), HasSubstr("INV-6"));
}

// Covers: TLB-03
TEST_P(ShadowFlushRuleTest, AFlushOfOtherGfnsLeavesItStale) {
  const std::string findings = Findings(Fault::kOtherGfns);
  if (GetParam().other_gfns) {
    EXPECT_THAT(findings, HasSubstr("INV-6"));
  } else {
    EXPECT_EQ(findings, "");
  }
}

TEST_P(ShadowFlushRuleTest, AFlushOfAnotherMmuLeavesItStale) {
  EXPECT_THAT(Findings(Fault::kOtherMmu), HasSubstr("INV-6"));
}

TEST_P(ShadowFlushRuleTest, AFlushOfLeafsLeavesAnUnlinkedTable) {
  const std::string findings = Findings(Fault::kLeafsOnly);
  if (GetParam().leafs_only) {
    EXPECT_THAT(findings, HasSubstr("INV-6"));
  } else {
    EXPECT_EQ(findings, "");
  }
}

void StartTheLog(ShadowFlushes& f) {
  DirtyLogConfig config;
  config.split = SplitPolicy::kNone;
  ASSERT_TRUE(StartLog(f.vm(), config, nullptr).ok());
}

void ClearTheLog(ShadowFlushes& f) {
  uint64_t epoch = 0;
  const std::vector<uint64_t> pages = SealAndList(f.vm(), 0, &epoch);
  const uint64_t npages = 64 * kMiB / kPageSize;
  ASSERT_TRUE(ClearAndDeliver(f.vm(), 0, epoch, 0, npages,
                              MaskOf(npages, pages), nullptr)
                  .ok());
}

// Makes the guest's table 4 unsync, and lets the victim use its entry 3.
void MakeUnsync(ShadowFlushes& f) {
  f.Read(f.PageAt(3), kEditor);
  ASSERT_EQ(f.Store(4, 20, f.Entry(0x1234, kWritable), kEditor),
            AccessOutcome::kDone);
  f.Write(f.PageAt(3), kVictim);
}

INSTANTIATE_TEST_SUITE_P(
    Section11, ShadowFlushRuleTest,
    ::testing::Values(
        Row{"HostUnmapsAPage", FlushReason::kNotifier,
            [](ShadowFlushes& f) { f.Write(f.PageAt(3), kVictim); },
            [](ShadowFlushes& f) {
              HostUnmaps(f.vm(), HostPagesOf(f.vm(), 0, 0x1003, 0x1004));
            }},
        Row{"StartOfALog", FlushReason::kWriteProtect,
            [](ShadowFlushes& f) { f.Write(f.PageAt(3), kVictim); },
            StartTheLog},
        Row{"ClearOfAnEpoch", FlushReason::kClearDirty,
            [](ShadowFlushes& f) {
              f.Write(f.PageAt(3), kVictim);
              StartTheLog(f);
              f.Write(f.PageAt(3), kVictim);
            },
            ClearTheLog},
        Row{"DeletionOfASlot", FlushReason::kZap,
            [](ShadowFlushes& f) { f.Write(f.PageAt(9), kVictim); },
            [](ShadowFlushes& f) {
              ASSERT_TRUE(f.vm()
                              .SetMemslot(Slot(1, kOtherSlot, /*size_bytes=*/0))
                              .ok());
            }},
        Row{.name = "WriteOfAnUpperEntry",
            .reason = FlushReason::kZap,
            .prepare = [](ShadowFlushes& f) { f.Write(f.PageAt(3), kVictim); },
            .run =
                [](ShadowFlushes& f) {
                  ASSERT_EQ(f.Store(3, 0, 0, kEditor), AccessOutcome::kDone);
                },
            .all_gfns = true},
        Row{"InvlpgOfAnUnsyncEntry", FlushReason::kUnsync, MakeUnsync,
            [](ShadowFlushes& f) {
              ASSERT_EQ(f.Store(4, 3, f.Entry(0x1003, kReadOnly), kEditor),
                        AccessOutcome::kDone);
              f.shadow(kEditor).InvalidatePage(f.PageAt(3));
            }},
        Row{.name = "SyncOfATable",
            .reason = FlushReason::kUnsync,
            .prepare = MakeUnsync,
            .run =
                [](ShadowFlushes& f) {
                  ASSERT_EQ(f.Store(4, 3, f.Entry(0x1003, kReadOnly), kEditor),
                            AccessOutcome::kDone);
                  // The victim meets the flush that protects the table, and
                  // uses the old SPTE once more before the sync changes it.
                  LockTrace trace([&f](const LockTrace::Event& event) {
                    if (event.point == HookPoint::kProtectToRead) {
                      f.Write(f.PageAt(3), kVictim);
                    }
                  });
                  f.shadow(kEditor).SetRoot({.table = Gfn(1)},
                                            ShadowVcpu::Flush::kYes);
                },
            .all_gfns = true},
        // Before a sync reads the table, no vCPU may write it unnoticed.
        Row{.name = "SyncProtectsTheTable",
            .reason = FlushReason::kWriteProtect,
            .prepare =
                [](ShadowFlushes& f) {
                  MakeUnsync(f);
                  ASSERT_EQ(f.Store(4, 21, 0, kVictim), AccessOutcome::kDone);
                },
            .run =
                [](ShadowFlushes& f) {
                  f.shadow(kEditor).SetRoot({.table = Gfn(1)},
                                            ShadowVcpu::Flush::kYes);
                },
            .all_gfns = true},
        Row{"APageBecomesALastTable", FlushReason::kWriteProtect,
            [](ShadowFlushes& f) { f.Write(f.PageAt(7), kVictim); },
            [](ShadowFlushes& f) {
              ASSERT_EQ(f.Store(3, 2, f.Entry(0x1007, kTable), kEditor),
                        AccessOutcome::kDone);
              f.Read(4 * kMiB, kEditor);
            }},
        Row{.name = "APageBecomesADirectory",
            .reason = FlushReason::kWriteProtect,
            .prepare = [](ShadowFlushes& f) { f.Write(f.PageAt(7), kVictim); },
            .run =
                [](ShadowFlushes& f) {
                  ASSERT_EQ(f.Store(2, 2, f.Entry(0x1007, kTable), kEditor),
                            AccessOutcome::kDone);
                  f.Put(0x1007, 0, f.Entry(4, kTable));
                  f.Read(2 * kGiB, kEditor);
                },
            .all_gfns = true},
        // SHD-51: the page of small SPTEs below a large page of the guest is
        // replaced, because the guest's entry has become dirty. What the victim
        // has cached of the leafs stays right.
        Row{.name = "OtherRightsBelowALargePage",
            .reason = FlushReason::kZap,
            .prepare = [](ShadowFlushes& f) { f.Read(kLarge, kVictim); },
            .run = [](ShadowFlushes& f) { f.Write(kLarge, kEditor); },
            .other_gfns = false,
            .leafs_only = true},
        Row{.name = "RecoveryOfAHugePage",
            .reason = FlushReason::kRecover,
            .prepare =
                [](ShadowFlushes& f) {
                  StartTheLog(f);
                  f.Write(kLarge, kVictim);
                  ASSERT_TRUE(StopLog(f.vm()).ok());
                  f.Write(kLarge, kVictim);
                },
            .run =
                [](ShadowFlushes& f) {
                  ASSERT_TRUE(
                      f.vm()
                          .RecoverHugePages(
                              {GfnRange::Of(Gfn(kLarge / kPageSize), 512)},
                              nullptr)
                          .ok());
                },
            .host_page_level = Level::k2M}),
    [](const auto& row) { return std::string(row.param.name); });

// L1 has written to a page, which its TLB allows. Then L1, on another vCPU,
// uses the page as a table for L2. The shadow MMU takes W from the TDP MMU's
// SPTE, and its flush must cover L1's translation: otherwise L1 edits the table
// unnoticed.
// Covers: SHD-08, TLB-06
TEST(NestedFlushTest, ATableOfL1IsProtectedInTheTlbsOfL1) {
  constexpr uint64_t kTop = 0x21;  // the tables of L1 follow each other
  constexpr uint64_t kEptTable = 7;
  constexpr uint64_t kEptLeaf = 0x37;  // write-back memory
  for (const Fault fault :
       {Fault::kNone, Fault::kSkipped, Fault::kShadowMmuOnly}) {
    VmConfig config;
    config.mmu = MmuMode::kNested;
    config.vcpu_count = 2;
    config.memslots = {Slot(0, 0, 64 * kMiB)};
    auto vm = MakeVmFrom(config);
    for (uint64_t i = 0; i < 4; ++i) {
      const uint64_t entry = i < 3 ? (kTop + i + 1) << kPageShift | kEptTable
                                   : uint64_t{0x1000} << kPageShift | kEptLeaf;
      testing::Write(*vm, (kTop + i) * kPageSize, entry, kVictim);
    }
    g_injection = {
        .fault = fault, .reason = FlushReason::kWriteProtect, .flushes = {}};
    g_injection.armed = true;
    L1Processor l1(*vm->state().vcpus[kEditor], Level::k512G);
    l1.EnterL2({.tables = GuestTables::kEpt,
                .root = Gpa(kTop * kPageSize),
                .ept = {},
                .l1 = {}});
    uint64_t word = 5;
    NestedExit exit;
    ASSERT_EQ(l1.L2Access({.nested_gpa = Gpa(0), .kind = AccessKind::kWrite},
                          &word, &exit),
              L1Cpu::Outcome::kDone);
    g_injection.armed = false;
    if (fault == Fault::kNone) {
      EXPECT_EQ(AuditFindings(*vm), "");
      EXPECT_EQ(g_injection.flushes.size(), 4u) << "one for each table";
    } else {
      EXPECT_THAT(AuditFindings(*vm), HasSubstr("INV-6"));
    }
  }
}

}  // namespace
}  // namespace testing
}  // namespace mmu

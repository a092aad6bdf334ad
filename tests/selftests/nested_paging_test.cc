// The accesses that L1's tables grant L2, the exits to L1 for other accesses,
// and L1's writes to these tables: EPT and NPT, entry by entry.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <ostream>
#include <string>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest/hypervisor/l1_cpu.h"
#include "mmu_core/guest/hypervisor/nested_tables.h"
#include "mmu_core/guest/kernel/frame_allocator.h"
#include "mmu_core/guest/kernel/physical_memory.h"
#include "mmu_core/guest_paging/control_registers.h"
#include "mmu_core/guest_paging/guest_entry.h"
#include "mmu_core/guest_paging/guest_walk.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/run/l1_processor.h"
#include "mmu_core/vm/vcpu/shadow_vcpu.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu {
namespace {

using ::mmu::testing::AuditFindings;
using ::mmu::testing::MakeVmFrom;
using ::mmu::testing::Slot;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr Gpa kNested(0x4020'3000);
constexpr Gpa kNowhere(uint64_t{1} << 36);  // no memslot has it
constexpr AccessKind kKinds[] = {AccessKind::kRead, AccessKind::kWrite,
                                 AccessKind::kExec};

class L1Memory final : public PhysicalMemory {
 public:
  explicit L1Memory(L1Cpu& cpu) : cpu_(cpu) {}

 private:
  absl::Status Access(Gpa gpa, int size_bytes, AccessKind kind,
                      uint64_t* word) override {
    MMU_CHECK(cpu_.Access(gpa, size_bytes, kind, word));
    return absl::OkStatus();
  }
  L1Cpu& cpu_;
};

// L1 on a vCPU. The test writes L1's tables for L2.
class NestedGuest {
 public:
  explicit NestedGuest(const NestedPaging& paging, Level host_page = Level::k4K)
      : paging_(paging),
        format_(paging.tables == GuestTables::kEpt ? NestedEntryFormat::kEpt
                                                   : NestedEntryFormat::kNpt),
        vm_(MakeVmOf(paging, host_page)),
        cpu_(*vm_->state().vcpus[0], Level::k512G),
        memory_(cpu_),
        frames_(vm_->GuestSpace()),
        contexts_{{format_, Level::k512G, memory_, frames_},
                  {format_, Level::k512G, memory_, frames_}} {
    for (NestedTables& tables : contexts_) MMU_CHECK(tables.Create());
    UseContext(0);
  }

  // L1 has two sets of tables for L2. The functions below are about the tables
  // of one of them, at first of context 0.
  void UseContext(size_t context) {
    context_ = context;
    paging_.root = root();
  }

  // Sets the entry of `level` for kNested: `bits` for `gfn`.
  void Map(Gfn gfn, Level level, uint64_t bits) {
    MMU_CHECK(tables().Set(kNested, level,
                           ToGpa(gfn).value() | format_.leaf | bits |
                               (level == Level::k4K ? 0 : kPageSizeBit)));
    Forget();
  }
  // As Map, without flushing the processor's TLB.
  void Replace(Gfn gfn, uint64_t bits) {
    tables().Store(Entry(), ToGpa(gfn).value() | format_.leaf | bits);
  }
  void Forget() {
    if (paging_.tables == GuestTables::kEpt) {
      cpu_.InveptSingleContext(tables().root());
    } else {
      cpu_.FlushAsid();
    }
  }
  // The leaf, or the entry of `level` above it.
  NestedPte Entry(Level level = Level::k4K) {
    return tables().Find(kNested, level);
  }
  void Store(const NestedPte& pte, uint64_t value) {
    tables().Store(pte, value);
  }

  // Makes one access of L2. Returns the reason for the exit to L1; afterwards
  // the vCPU runs L1.
  std::optional<GuestFault> Access(AccessKind kind, uint64_t* word = nullptr,
                                   NestedTarget target = NestedTarget::kPage) {
    uint64_t own = 0x77;
    NestedExit exit;
    cpu_.EnterL2(paging_);
    switch (
        cpu_.L2Access({.nested_gpa = kNested, .kind = kind, .target = target},
                      word != nullptr ? word : &own, &exit)) {
      case L1Cpu::Outcome::kDone:
        cpu_.LeaveL2();
        return std::nullopt;
      case L1Cpu::Outcome::kExit:
        MMU_CHECK(exit.nested_gpa == kNested);
        return exit.fault;
      case L1Cpu::Outcome::kError:
        break;
    }
    MMU_CHECK(false);
    return std::nullopt;
  }

  // Allocates `count` consecutive pages, aligned to `count`. Stores `value` in
  // the word of these pages that kNested maps to.
  Gfn NewPages(uint64_t count, uint64_t value) {
    const Gfn first = *frames_.AllocateRun(count);
    const uint64_t offset =
        kNested.value() & (count * kPageSize - 1) & ~uint64_t{7};
    memory_.Store(ToGpa(first) + offset, 8, value);
    return first;
  }

  // Drops L2's TLB entries, as hardware may at any time. The shadow pages stay
  // as they are.
  void DropTlbEntries() { vm_->state().vcpus[0]->shadow()->tlb().FlushAll(); }

  Vm& vm() { return *vm_; }
  L1Processor& cpu() { return cpu_; }
  Gpa root() const { return tables().root(); }

 private:
  static constexpr uint64_t kPageSizeBit = guest_entry::kPageSize;

  NestedTables& tables() { return contexts_[context_]; }
  const NestedTables& tables() const { return contexts_[context_]; }

  static std::unique_ptr<Vm> MakeVmOf(const NestedPaging& paging,
                                      Level host_page) {
    VmConfig config;
    config.mmu = MmuMode::kNested;
    config.format = paging.tables == GuestTables::kEpt ? EntryFormat::kEpt
                                                       : EntryFormat::kNpt;
    config.memslots = {Slot(0, 0, 16 * kMiB, host_page)};
    return MakeVmFrom(config);
  }

  NestedPaging paging_;
  const NestedEntryFormat format_;
  std::unique_ptr<Vm> vm_;
  L1Processor cpu_;
  L1Memory memory_;
  FrameAllocator frames_;
  NestedTables contexts_[2];
  size_t context_ = 0;
};

NestedPaging Ept(bool ad_bits, bool exec_only) {
  return {.tables = GuestTables::kEpt,
          .root = {},
          .ept = {.ad_bits = ad_bits, .exec_only = exec_only},
          .l1 = {}};
}
NestedPaging Npt() {
  return {.tables = GuestTables::kNpt,
          .root = {},
          .ept = {},
          .l1 = {.cr0 = kCr0Pg, .cr4 = kCr4Pae, .efer = kEferLma | kEferNx}};
}

// --- EPT ---

// The exit that the SDM specifies for an access through an entry with these
// rights.
std::optional<GuestFault> EptFault(uint64_t rwx, AccessKind kind,
                                   bool exec_only) {
  using Kind = GuestFault::Kind;
  if (rwx == 2 || rwx == 6 || (rwx == 4 && !exec_only)) {
    return GuestFault{.kind = Kind::kEptMisconfiguration};
  }
  const int bit = static_cast<int>(kind);
  if ((rwx >> bit & 1) != 0) return std::nullopt;
  return GuestFault{.kind = Kind::kEptViolation,
                    .code = uint64_t{1} << bit | rwx << 3};
}

// Covers: TST-42, SHD-62
TEST(EptAccessTest, L2MayDoWhatL1GrantsAndL1IsToldOfTheRest) {
  for (const bool exec_only : {false, true}) {
    NestedGuest guest(Ept(/*ad_bits=*/false, exec_only));
    const Gfn small = guest.NewPages(1, 11);
    const Gfn large = guest.NewPages(512, 12);
    for (const Level level : {Level::k4K, Level::k2M}) {
      for (uint64_t rwx = 0; rwx < 8; ++rwx) {
        guest.Map(level == Level::k4K ? small : large, level, rwx);
        for (const AccessKind kind : kKinds) {
          uint64_t word = level == Level::k4K ? 11 : 12;
          const uint64_t expected = word;
          EXPECT_EQ(guest.Access(kind, &word), EptFault(rwx, kind, exec_only))
              << ToString(kind) << " with " << rwx << " at level "
              << ToInt(level);
          EXPECT_EQ(word, expected);
        }
      }
      if (level == Level::k4K) {
        // Remove the table of the small page, to make room for the large page.
        guest.Store(guest.Entry(Level::k2M), 0);
      }
    }
    EXPECT_EQ(AuditFindings(guest.vm()), "");
  }
}

// Covers: TST-42
TEST(EptAccessTest, TheEntriesAboveRestrictAsWell) {
  NestedGuest guest(Ept(/*ad_bits=*/false, /*exec_only=*/false));
  guest.Map(guest.NewPages(1, 1), Level::k4K, 7);
  for (const Level level : {Level::k2M, Level::k1G, Level::k512G}) {
    const NestedPte link = guest.Entry(level);
    guest.Store(link, (link.value & ~uint64_t{7}) | 1);
    guest.Forget();
    EXPECT_EQ(guest.Access(AccessKind::kRead), std::nullopt);
    EXPECT_EQ(guest.Access(AccessKind::kWrite),
              EptFault(1, AccessKind::kWrite, false));
    EXPECT_EQ(guest.Access(AccessKind::kExec),
              EptFault(1, AccessKind::kExec, false));
    guest.Store(link, link.value);
    guest.Forget();
    EXPECT_EQ(guest.Access(AccessKind::kWrite), std::nullopt);
  }
}

// Covers: TST-42
TEST(EptAccessTest, AccessedAndDirtyBitsAreSetIfL1SwitchedThemOn) {
  constexpr uint64_t kBits = guest_entry::kEptAccessed | guest_entry::kEptDirty;
  for (const bool ad_bits : {false, true}) {
    NestedGuest guest(Ept(ad_bits, /*exec_only=*/false));
    const Gfn page = guest.NewPages(1, 1);
    guest.Map(page, Level::k4K, 7);
    ASSERT_EQ(guest.Access(AccessKind::kRead), std::nullopt);
    EXPECT_EQ(guest.Entry().value & kBits,
              ad_bits ? guest_entry::kEptAccessed : 0);
    ASSERT_EQ(guest.Access(AccessKind::kWrite), std::nullopt);
    EXPECT_EQ(guest.Entry().value & kBits, ad_bits ? kBits : 0);
    for (const Level level : {Level::k2M, Level::k1G, Level::k512G}) {
      EXPECT_EQ(guest.Entry(level).value & kBits,
                ad_bits ? guest_entry::kEptAccessed : 0);
    }
    // L1 clears the bits and flushes; the next accesses set them again.
    guest.Map(page, Level::k4K, 7);
    ASSERT_EQ(guest.Access(AccessKind::kExec), std::nullopt);
    EXPECT_EQ(guest.Entry().value & kBits,
              ad_bits ? guest_entry::kEptAccessed : 0);
    ASSERT_EQ(guest.Access(AccessKind::kWrite), std::nullopt);
    EXPECT_EQ(guest.Entry().value & kBits, ad_bits ? kBits : 0);
  }
}

// Covers: TST-42
TEST(EptAccessTest, EntriesThatCannotBeAreMisconfigurations) {
  NestedGuest guest(Ept(/*ad_bits=*/false, /*exec_only=*/false));
  const GuestFault misconfiguration = {
      .kind = GuestFault::Kind::kEptMisconfiguration};
  const Gfn page = guest.NewPages(1, 1);
  // The first entry sets a bit above the width of addresses; the second has an
  // invalid memory type.
  for (const uint64_t wrong : {uint64_t{1} << 50, uint64_t{1} << 3}) {
    guest.Map(page, Level::k4K, 7 | wrong);
    for (const AccessKind kind : kKinds) {
      EXPECT_EQ(guest.Access(kind), misconfiguration);
    }
    guest.Map(page, Level::k4K, 7);
    EXPECT_EQ(guest.Access(AccessKind::kWrite), std::nullopt);
  }
}

// Covers: TST-42, SHD-61
TEST(InveptTest, WhatL1ChangedHoldsAfterwards) {
  for (const bool global : {false, true}) {
    NestedGuest guest(Ept(/*ad_bits=*/true, /*exec_only=*/false));
    const Gfn pages[] = {guest.NewPages(1, 100), guest.NewPages(1, 101)};
    guest.Map(pages[0], Level::k4K, 7);
    for (int round = 1; round <= 5; ++round) {
      uint64_t word = 0;
      ASSERT_EQ(guest.Access(AccessKind::kRead, &word), std::nullopt);
      EXPECT_EQ(word, 100u + (round - 1) % 2);
      guest.Replace(pages[round % 2], 7);
      if (global) {
        guest.cpu().InveptGlobal();
      } else {
        guest.cpu().InveptSingleContext(guest.root());
      }
      ASSERT_EQ(guest.Access(AccessKind::kRead, &word), std::nullopt);
      EXPECT_EQ(word, 100u + round % 2);
    }
    // The entry is not present any more.
    guest.Store(guest.Entry(), 0);
    guest.Forget();
    EXPECT_EQ(guest.Access(AccessKind::kRead),
              EptFault(0, AccessKind::kRead, false));
    EXPECT_EQ(AuditFindings(guest.vm()), "");
  }
}

// Covers: TST-42, SHD-63
TEST(EptAccessTest, AHugeMappingNeedsL1AndTheHost) {
  for (const Level host_page : {Level::k4K, Level::k2M}) {
    for (const Level l1_page : {Level::k4K, Level::k2M}) {
      NestedGuest guest(Ept(/*ad_bits=*/false, /*exec_only=*/false), host_page);
      guest.Map(guest.NewPages(512, 5), l1_page, 7);
      const VmStatsSnapshot before = guest.vm().Stats();
      uint64_t word = 0;
      ASSERT_EQ(guest.Access(AccessKind::kRead, &word), std::nullopt);
      const VmStatsSnapshot after = guest.vm().Stats();
      const bool huge = host_page == Level::k2M && l1_page == Level::k2M;
      EXPECT_EQ(after.pages_2m - before.pages_2m, huge ? 1u : 0u);
      EXPECT_EQ(after.pages_4k > before.pages_4k, !huge);
      EXPECT_EQ(AuditFindings(guest.vm()), "");
    }
  }
}

// --- NPT ---

GuestFault Npf(uint64_t code) {
  return {.kind = GuestFault::Kind::kNestedPageFault,
          .code = code | kPferrUser | kPferrGuestFinal};
}

constexpr uint64_t kP = guest_entry::kPresent;
constexpr uint64_t kW = guest_entry::kWritable;
constexpr uint64_t kU = guest_entry::kUser;
constexpr uint64_t kNx = guest_entry::kNx;

// Covers: TST-42, SHD-62
TEST(NptTest, L1IsToldWhatItsEntriesDoNotAllow) {
  NestedGuest guest(Npt());
  const Gfn page = guest.NewPages(1, 1);
  // The entry is not present.
  guest.Map(page, Level::k4K, kW | kU);
  EXPECT_EQ(guest.Access(AccessKind::kRead), Npf(0));
  EXPECT_EQ(guest.Access(AccessKind::kWrite), Npf(kPferrWrite));
  EXPECT_EQ(guest.Access(AccessKind::kExec), Npf(kPferrFetch));
  // The page is not executable.
  guest.Map(page, Level::k4K, kP | kW | kU | kNx);
  EXPECT_EQ(guest.Access(AccessKind::kWrite), std::nullopt);
  EXPECT_EQ(guest.Access(AccessKind::kExec), Npf(kPferrPresent | kPferrFetch));
  // A supervisor page: every access of L2 is a user access.
  guest.Map(page, Level::k4K, kP | kW);
  EXPECT_EQ(guest.Access(AccessKind::kRead), Npf(kPferrPresent));
  // The page is read-only.
  guest.Map(page, Level::k4K, kP | kU);
  EXPECT_EQ(guest.Access(AccessKind::kRead), std::nullopt);
  EXPECT_EQ(guest.Access(AccessKind::kExec), std::nullopt);
  EXPECT_EQ(guest.Access(AccessKind::kWrite), Npf(kPferrPresent | kPferrWrite));
  // A reserved bit is set in the leaf, then in an entry above it.
  for (int bit = 46; bit < 52; ++bit) {
    guest.Map(page, Level::k4K, kP | kW | kU | uint64_t{1} << bit);
    EXPECT_EQ(guest.Access(AccessKind::kRead),
              Npf(kPferrPresent | kPferrReserved))
        << bit;
  }
  guest.Map(page, Level::k4K, kP | kW | kU);
  const NestedPte top = guest.Entry(Level::k512G);
  guest.Store(top, top.value | guest_entry::kPageSize);
  guest.Forget();
  EXPECT_EQ(guest.Access(AccessKind::kWrite),
            Npf(kPferrPresent | kPferrReserved | kPferrWrite));
  guest.Store(top, top.value);
  guest.Forget();
  EXPECT_EQ(guest.Access(AccessKind::kWrite), std::nullopt);
  EXPECT_EQ(AuditFindings(guest.vm()), "");
}

// A walk of L2's tables counts as a write of a user.
// Covers: TST-42, SHD-62
TEST(NptTest, L2sOwnTablesMustBeWritable) {
  NestedGuest guest(Npt());
  const Gfn page = guest.NewPages(1, 1);
  const auto walk = [&] {
    return guest.Access(AccessKind::kRead, nullptr, NestedTarget::kGuestTable);
  };
  guest.Map(page, Level::k4K, kP | kU);
  EXPECT_EQ(walk(), (GuestFault{.kind = GuestFault::Kind::kNestedPageFault,
                                .code = kPferrPresent | kPferrWrite |
                                        kPferrUser | kPferrGuestTable}));
  EXPECT_EQ(guest.Access(AccessKind::kRead), std::nullopt);
  guest.Map(page, Level::k4K, kP | kW | kU);
  EXPECT_EQ(walk(), std::nullopt);
  EXPECT_EQ(AuditFindings(guest.vm()), "");
}

// Covers: TST-42
TEST(NptTest, AccessedAndDirtyBitsAreSet) {
  NestedGuest guest(Npt());
  constexpr uint64_t kBits = guest_entry::kAccessed | guest_entry::kDirty;
  guest.Map(guest.NewPages(1, 1), Level::k4K, kP | kW | kU);
  ASSERT_EQ(guest.Access(AccessKind::kRead), std::nullopt);
  EXPECT_EQ(guest.Entry().value & kBits, guest_entry::kAccessed);
  ASSERT_EQ(guest.Access(AccessKind::kWrite), std::nullopt);
  EXPECT_EQ(guest.Entry().value & kBits, kBits);
}

// Covers: TST-42
TEST(NptTest, WhereL1HasNoMemoryL2HasADevice) {
  NestedGuest guest(Npt());
  guest.Map(ToGfn(kNowhere), Level::k4K, kP | kW | kU);
  uint64_t word = 0;
  EXPECT_EQ(guest.Access(AccessKind::kRead, &word), std::nullopt);
  EXPECT_EQ(word, ~uint64_t{0});
  EXPECT_EQ(guest.Access(AccessKind::kWrite), std::nullopt);
  // The exit to L1 has priority over the missing memslot.
  guest.Map(ToGfn(kNowhere), Level::k4K, kP | kU);
  EXPECT_EQ(guest.Access(AccessKind::kWrite), Npf(kPferrPresent | kPferrWrite));
  EXPECT_EQ(AuditFindings(guest.vm()), "");
}

// --- L1's writes to its tables ---

// A way in which L1 asks the processor to forget L2's translations.
struct Invalidation {
  const char* name;
  NestedPaging (*paging)();
  uint64_t rights;  // of a leaf that grants everything
  void (*run)(NestedGuest& guest);
};
std::ostream& operator<<(std::ostream& os, const Invalidation& invalidation) {
  return os << invalidation.name;
}

class L1WritesTest : public ::testing::TestWithParam<Invalidation> {
 protected:
  // The word that L2 reads; nullopt if the read exits to L1.
  static std::optional<uint64_t> ReadL2(NestedGuest& guest) {
    uint64_t word = 0;
    if (guest.Access(AccessKind::kRead, &word).has_value()) return std::nullopt;
    return word;
  }
};

// The shadow page of a last table becomes unsync: L1's write is not noticed,
// and the SPTEs stay as they were until the invalidation, which makes the
// shadow page follow the table.
// Covers: SHD-61
TEST_P(L1WritesTest, ALastTableIsOutOfSyncUntilTheInvalidation) {
  NestedGuest guest(GetParam().paging());
  const Gfn pages[] = {guest.NewPages(1, 100), guest.NewPages(1, 101)};
  guest.Map(pages[0], Level::k4K, GetParam().rights);
  ASSERT_EQ(ReadL2(guest), 100u);
  const uint64_t emulated = guest.vm().Stats().mmu_pte_write;
  EXPECT_EQ(guest.vm().Stats().mmu_unsync, 0u);

  guest.Replace(pages[1], GetParam().rights);
  EXPECT_EQ(guest.vm().Stats().mmu_unsync, 1u);
  EXPECT_EQ(guest.vm().Stats().mmu_pte_write, emulated);
  guest.DropTlbEntries();
  EXPECT_EQ(ReadL2(guest), 100u) << "nothing has synchronised the page";

  GetParam().run(guest);
  EXPECT_EQ(ReadL2(guest), 101u);
  EXPECT_EQ(guest.vm().Stats().mmu_unsync, 0u);
  EXPECT_EQ(guest.vm().Stats().mmu_pte_write, emulated);

  // The next write makes the page unsync again.
  guest.Store(guest.Entry(), 0);
  EXPECT_EQ(guest.vm().Stats().mmu_unsync, 1u);
  guest.DropTlbEntries();
  EXPECT_EQ(ReadL2(guest), 101u);
  GetParam().run(guest);
  EXPECT_EQ(ReadL2(guest), std::nullopt);
  EXPECT_EQ(AuditFindings(guest.vm()), "");
}

// L2 last ran on other tables, so that the root of these is one that the vCPU
// keeps for later.
// Covers: SHD-61
TEST_P(L1WritesTest, AnInvalidationReachesTablesThatL2LeftBefore) {
  NestedGuest guest(GetParam().paging());
  const Gfn pages[] = {guest.NewPages(1, 100), guest.NewPages(1, 101),
                       guest.NewPages(1, 102)};
  guest.Map(pages[0], Level::k4K, GetParam().rights);
  ASSERT_EQ(ReadL2(guest), 100u);
  guest.UseContext(1);
  guest.Map(pages[2], Level::k4K, GetParam().rights);
  ASSERT_EQ(ReadL2(guest), 102u);
  guest.UseContext(0);
  ASSERT_EQ(ReadL2(guest), 100u);

  guest.Replace(pages[1], GetParam().rights);
  ASSERT_EQ(guest.vm().Stats().mmu_unsync, 1u);
  guest.UseContext(1);
  ASSERT_EQ(ReadL2(guest), 102u);
  guest.UseContext(0);
  EXPECT_EQ(ReadL2(guest), 100u) << "a load of the root does not synchronise";
  guest.UseContext(1);
  ASSERT_EQ(ReadL2(guest), 102u);
  guest.UseContext(0);
  GetParam().run(guest);
  EXPECT_EQ(ReadL2(guest), 101u);
  guest.UseContext(1);
  EXPECT_EQ(ReadL2(guest), 102u);
  EXPECT_EQ(AuditFindings(guest.vm()), "");
}

// The upper tables are write-protected: each write is emulated and drops the
// SPTEs of its entry at once, without an invalidation.
// Covers: SHD-61
TEST_P(L1WritesTest, AWriteToAnUpperTableIsNoticedAtOnce) {
  NestedGuest guest(GetParam().paging());
  guest.Map(guest.NewPages(1, 100), Level::k4K, GetParam().rights);
  for (const Level level : {Level::k2M, Level::k1G, Level::k512G}) {
    ASSERT_EQ(ReadL2(guest), 100u);
    const NestedPte link = guest.Entry(level);
    const uint64_t emulated = guest.vm().Stats().mmu_pte_write;
    guest.Store(link, 0);
    EXPECT_EQ(guest.vm().Stats().mmu_pte_write, emulated + 1);
    EXPECT_EQ(guest.vm().Stats().mmu_unsync, 0u);
    EXPECT_EQ(ReadL2(guest), std::nullopt);
    guest.Store(link, link.value);
    EXPECT_EQ(ReadL2(guest), 100u);
    EXPECT_EQ(guest.vm().Stats().mmu_unsync, 0u);
  }
  EXPECT_EQ(AuditFindings(guest.vm()), "");
}

INSTANTIATE_TEST_SUITE_P(
    Invalidations, L1WritesTest,
    ::testing::Values(
        Invalidation{"InveptSingleContext",
                     [] { return Ept(/*ad_bits=*/true, /*exec_only=*/false); },
                     7,
                     [](NestedGuest& guest) {
                       guest.cpu().InveptSingleContext(guest.root());
                     }},
        Invalidation{"InveptGlobal",
                     [] { return Ept(/*ad_bits=*/true, /*exec_only=*/false); },
                     7, [](NestedGuest& guest) { guest.cpu().InveptGlobal(); }},
        Invalidation{"FlushAsid", &Npt, kP | kW | kU,
                     [](NestedGuest& guest) { guest.cpu().FlushAsid(); }}),
    [](const auto& p) { return std::string(p.param.name); });

}  // namespace
}  // namespace mmu

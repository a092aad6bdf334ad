// Shows that the auditor can fail: each invariant of vm/inspect/audit.h is
// broken on purpose once in each kind of MMU, and the auditor must name the
// invariant and the place.

#include <cstdint>
#include <fstream>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/level.h"
#include "mmu_core/dirty/dirty_ring.h"
#include "mmu_core/dirty/pml_buffer.h"
#include "mmu_core/dirty/slot_log.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/paging/page_role.h"
#include "mmu_core/paging/shadow_page.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_slot.h"
#include "mmu_core/paging/table_cache.h"
#include "mmu_core/rmap/rmap.h"
#include "mmu_core/rmap/slot_rmaps.h"
#include "mmu_core/shadow/shadow_page_state.h"
#include "mmu_core/stats/shadow_counters.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/tdp/tdp_root.h"
#include "mmu_core/testing/audited_guest.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/tdp_test_util.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/inspect/audit.h"
#include "mmu_core/vm/vcpu/shadow_vcpu.h"

namespace mmu::testing {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr int kLastInvariant = 19;

// A broken invariant: the place that the auditor must name, and the repair,
// after which the VM is sound again.
struct Broken {
  std::string place;
  std::function<void()> repair;
};

// Replaces the value of an entry until it is repaired.
std::function<void()> Put(SpteSlot& slot, Spte spte) {
  const Spte before = slot.Exchange(spte);
  return [&slot, before] { slot.Store(before); };
}

// The entry as the auditor names it. The TDP MMU's are named by gfn.
std::string EntryName(AuditedGuest& guest, const LeafPlace& leaf) {
  if (guest.kind() == MmuKind::kTdp) {
    return absl::StrFormat("gfn 0x%x level 1", leaf.gfn.value());
  }
  return absl::StrFormat("page of gfn 0x%x level 1: entry %d",
                         leaf.page->gfn.value(), leaf.index);
}

LeafPlace LastLeaf(AuditedGuest& guest) { return guest.WritableLeafs().back(); }

// The shadow page of the vCPU's current root.
ShadowPageState& RootPage(AuditedGuest& guest) {
  RcuReadGuard rcu;
  return *guest.state().vcpus[0]->shadow()->roots().TopPage(0);
}

// --- One function for each invariant. ---

Broken Break1(AuditedGuest& guest) {
  const LeafPlace leaf = LastLeaf(guest);
  if (guest.kind() == MmuKind::kTdp) {
    SpteSlot* const parent = leaf.page->parent;
    leaf.page->parent = nullptr;
    return {absl::StrFormat("the table at gfn 0x%x below level 2",
                            leaf.page->gfn.value()),
            [=] { leaf.page->parent = parent; }};
  }
  MmuWriteLocked lock(guest.state().mmu_lock, LockOp::kAge);
  SpteSlot& parent = leaf.page->state->parents.Entries(lock).sptep();
  return {absl::StrFormat("page of gfn 0x%x level 1: has a parent that does "
                          "not point at it",
                          leaf.page->gfn.value()),
          Put(parent, Spte::Initial())};
}

Broken Break2(AuditedGuest& guest) {
  guest.counters().AddLeafs(Level::k4K, 1);
  return {absl::StrFormat("pages_4k of the %s MMU",
                          std::string(ToString(guest.kind()))),
          [&guest] { guest.counters().AddLeafs(Level::k4K, -1); }};
}

Broken Break3(AuditedGuest& guest) {
  const LeafPlace leaf = LastLeaf(guest);
  const SpteFormat& format = guest.format();
  return {EntryName(guest, leaf),
          Put(*leaf.slot,
              format.WithWrite(format.WithoutMmuWrite(leaf.slot->Load())))};
}

Broken Break4(AuditedGuest& guest) {
  const LeafPlace leaf = LastLeaf(guest);
  return {absl::StrFormat("gfn 0x%x level 1 maps frame", leaf.gfn.value()),
          Put(*leaf.slot, Spte(leaf.slot->Load().bits() + kPageSize))};
}

Broken Break5(AuditedGuest& guest) {
  EXPECT_TRUE(StartLog(guest.vm()).ok());
  const LeafPlace leaf = LastLeaf(guest);
  return {absl::StrFormat("gfn 0x%x of slot 0 is writable (level 1) and clean",
                          leaf.gfn.value()),
          Put(*leaf.slot, guest.format().WithWrite(leaf.slot->Load()))};
}

// The tables forbid what the TLB allows.
Broken Break6(AuditedGuest& guest) {
  auto repairs = std::make_shared<std::vector<std::function<void()>>>();
  for (const LeafPlace& leaf : guest.WritableLeafs()) {
    repairs->push_back(
        Put(*leaf.slot, guest.format().WithoutMmuWrite(leaf.slot->Load())));
  }
  return {"vCPU 0 may write page", [repairs] {
            for (const auto& repair : *repairs) repair();
          }};
}

Broken Break7(AuditedGuest& guest) {
  if (guest.kind() == MmuKind::kTdp) {
    TableCache tables(guest.state().pool);
    auto root = std::make_shared<RootRef>(
        *guest.state().tdp.LoadRoot(/*as_id=*/0, tables));
    return {"has 3 references, but vCPUs and MMU have 2",
            [root] { root->reset(); }};
  }
  ShadowPageState& root = RootPage(guest);
  ++root.root_count;
  return {absl::StrFormat("page of gfn 0x%x level 4: counts 2 references",
                          root.gfn().value()),
          [&root] { --root.root_count; }};
}

Broken Break8(AuditedGuest& guest) {
  ShadowPage* const page = LastLeaf(guest).page;
  page->nx_listed = true;
  return {guest.kind() == MmuKind::kTdp
              ? absl::StrFormat("gfn 0x%x level 1 is listed as executed",
                                page->gfn.value())
              : "0 are on the list, 1 are marked so",
          [page] { page->nx_listed = false; }};
}

Broken Break9(AuditedGuest& guest) {
  VmState& state = guest.state();
  if (guest.mmu() == AuditedMmu::kNestedL1) {
    const Gfn table = ToGfn(guest.l1()->root());
    SpteSlot& slot = EntryOf(guest.vm(), table, Level::k4K);
    EXPECT_TRUE(slot.Load().IsPresent() && !slot.Load().IsWritable());
    return {absl::StrFormat("maps the guest's table at gfn 0x%x writable",
                            table.value()),
            Put(slot, guest.format().MakeLeaf(
                          {.pfn = slot.Load().pfn(), .write = true}))};
  }
  // A shadow page above level 1 with guest PTEs; with none, any gfn.
  const Gfn gfn = guest.mmu() == AuditedMmu::kTdpShadow ? LastLeaf(guest).gfn
                                                        : RootPage(guest).gfn();
  SlotRmaps* const rmaps = SlotOf(guest.vm(), gfn).shadow_rmaps();
  const int before = rmaps->WriteTrackers(gfn);
  {
    MmuWriteLocked lock(state.mmu_lock, LockOp::kAge);
    rmaps->AddWriteTracker(lock, gfn);
  }
  return {absl::StrFormat("gfn 0x%x has %d write trackers, but %d pages",
                          gfn.value(), before + 1, before),
          [&state, rmaps, gfn] {
            MmuWriteLocked lock(state.mmu_lock, LockOp::kAge);
            rmaps->RemoveWriteTracker(lock, gfn);
          }};
}

// A page goes into a second set in flight behind the log's back.
Broken Break10(AuditedGuest& guest) {
  EXPECT_TRUE(StartLog(guest.vm()).ok());
  guest.Write(3);
  const std::vector<uint64_t> sealed = SealAndList(guest.vm(), 0);
  EXPECT_FALSE(sealed.empty());
  const auto sets = guest.state().dirty_log.FindSlot(0);
  sets->Clear(/*flight=*/2, 0, MaskOf(sets->npages(), sealed));
  return {"the slots have", [sets] { sets->Return(); }};
}

Broken Break11(AuditedGuest& guest) {
  VmState& state = guest.state();
  const LeafPlace leaf = LastLeaf(guest);
  RmapHead& head =
      SlotOf(guest.vm(), leaf.gfn).shadow_rmaps()->Head(leaf.gfn, Level::k4K);
  {
    MmuWriteLocked lock(state.mmu_lock, LockOp::kAge);
    head.Remove(lock, *leaf.slot, guest.counters());
  }
  return {
      EntryName(guest, leaf) +
          absl::StrFormat(" is in the rmap of gfn 0x%x 0", leaf.gfn.value()),
      [&guest, &state, &head, leaf] {
        MmuWriteLocked lock(state.mmu_lock, LockOp::kAge);
        head.Add(lock, *leaf.slot,
                 state.vcpus[0]->shadow()->guest().caches.lists,
                 guest.counters());
      }};
}

Broken Break12(AuditedGuest& guest) {
  ShadowPageState& root = RootPage(guest);
  const uint32_t before = root.unsync_children.fetch_add(1);
  return {absl::StrFormat("page of gfn 0x%x level 4: has %d bits set, but "
                          "counts %d",
                          root.gfn().value(), before, before + 1),
          [&root] { root.unsync_children.fetch_sub(1); }};
}

Broken Break13(AuditedGuest& guest) {
  auto& pages = guest.counters().shadow.mmu_shadow_pages;
  ShadowCounters::Add(pages);
  return {absl::StrFormat("mmu_shadow_pages is %d", pages.load()),
          [&pages] { ShadowCounters::Subtract(pages); }};
}

Broken Break14(AuditedGuest& guest) {
  const Gfn gfn = LastLeaf(guest).gfn;
  LpageInfo* const info = SlotOf(guest.vm(), gfn).lpage_info.get();
  info->Disallow(gfn);
  return {absl::StrFormat("against a page of level 2 at gfn 0x%x",
                          RoundDown(gfn, Level::k2M).value()),
          [=] { info->Allow(gfn); }};
}

Broken Break15(AuditedGuest& guest) {
  DirtyRing* const ring = guest.state().vcpus[0]->dirty_ring();
  ring->MoveFetchIndexForTest(+5);
  return {"the ring of vCPU 0: the fetch index 5 is beyond",
          [ring] { ring->MoveFetchIndexForTest(-5); }};
}

Broken Break16(AuditedGuest& guest) {
  auto* const log = const_cast<PmlBuffer*>(guest.state().vcpus[0]->pml());
  log->Log(Gpa(0x5000));
  return {"the CPU's log of vCPU 0, which is outside of the guest, has 1",
          [log] { log->Reset(); }};
}

Broken Break17(AuditedGuest& guest) {
  EXPECT_TRUE(StartLog(guest.vm()).ok());
  const auto sets = guest.state().dirty_log.FindSlot(0);
  const uint64_t before = sets->first_epoch();
  sets->set_first_epoch(100);
  return {"slot 0 can be cleared from epoch 100 on",
          [sets, before] { sets->set_first_epoch(before); }};
}

// An MMIO SPTE from the future in an empty entry.
Broken Break18(AuditedGuest& guest) {
  ShadowPage* const page = LastLeaf(guest).page;
  int index = 0;
  while (page->table->entries[index].Load() != Spte::Initial()) ++index;
  const Gfn gfn = page->role.HasGuestPtes() ? Gfn(uint64_t{1} << 20)
                                            : page->gfn + uint64_t(index);
  uint64_t generation = 0;
  {
    RcuReadGuard rcu;
    generation = guest.state().slots.Active(0).generation();
  }
  return {absl::StrFormat("the MMIO SPTE of gfn 0x%x is of generation 0x%x",
                          gfn.value(), generation + 2),
          Put(page->table->entries[index],
              guest.state().mmio.Make(gfn, generation + 2))};
}

// A linked table is in a stock, too.
Broken Break19(AuditedGuest& guest) {
  ShadowPage* const page = LastLeaf(guest).page;
  Vcpu& vcpu = *guest.state().vcpus[0];
  TableCache& tables = guest.kind() == MmuKind::kTdp
                           ? vcpu.table_cache()
                           : vcpu.shadow()->guest().caches.tables;
  tables.Put(page);
  return {absl::StrFormat("the table of gfn 0x%x level 1 has two uses",
                          page->gfn.value()),
          [&tables] { tables.Take(); }};
}

using Break = Broken (*)(AuditedGuest&);
constexpr Break kBreaks[kLastInvariant + 1] = {
    nullptr, Break1,  Break2,  Break3,  Break4,  Break5,  Break6,
    Break7,  Break8,  Break9,  Break10, Break11, Break12, Break13,
    Break14, Break15, Break16, Break17, Break18, Break19};

// Why an invariant cannot be broken in an MMU; nullopt if it can.
std::optional<std::string> WhyNot(int invariant, AuditedMmu mmu) {
  const bool is_tdp = mmu == AuditedMmu::kTdp || mmu == AuditedMmu::kNestedL1;
  switch (invariant) {
    case 9:
      if (mmu == AuditedMmu::kTdp) {
        return "without a shadow MMU no table of the guest has a shadow page, "
               "and no memslot counts write trackers";
      }
      return std::nullopt;
    case 11:
      if (is_tdp) return "the TDP MMU has no rmaps: it finds leafs by gfn";
      return std::nullopt;
    case 12:
      if (is_tdp) return "a table of the TDP MMU shadows no table of a guest";
      return std::nullopt;
    case 13:
      if (is_tdp) return "mmu_shadow_pages counts the shadow MMU's pages only";
      return std::nullopt;
    case 16:
      if (mmu == AuditedMmu::kTdpShadow || mmu == AuditedMmu::kShadow) {
        return "a VM that does not run on the TDP MMU has no PML";
      }
      return std::nullopt;
    default:
      return std::nullopt;
  }
}

VmConfig ConfigFor(int invariant, AuditedMmu mmu) {
  VmConfig config = AuditedGuest::ConfigFor(mmu);
  if (invariant == 15) config.dirty_ring_entries = 1024;
  if (invariant == 16) config.pml = VmConfig::Pml::kYes;
  return config;
}

class AuditTableTest
    : public ::testing::TestWithParam<std::tuple<AuditedMmu, int>> {};

TEST_P(AuditTableTest, ABrokenInvariantIsNamed) {
  const auto [mmu, invariant] = GetParam();
  if (WhyNot(invariant, mmu).has_value()) {
    // What the reason says is so: there is nothing to break.
    if (invariant == 16) {
      EXPECT_FALSE(Vm::Create(ConfigFor(invariant, mmu)).ok());
      return;
    }
    AuditedGuest guest(mmu, ConfigFor(invariant, mmu));
    EXPECT_EQ(guest.kind(), MmuKind::kTdp);
    EXPECT_FALSE(guest.WritableLeafs().empty());
    for (const LeafPlace& leaf : guest.WritableLeafs()) {
      EXPECT_TRUE(leaf.page->role.IsDirect());
    }
    if (mmu == AuditedMmu::kTdp) {
      EXPECT_EQ(guest.vm().Stats().mmu_shadow_pages, 0u);
    }
    return;
  }
  AuditedGuest guest(mmu, ConfigFor(invariant, mmu));
  ASSERT_EQ(AuditFindings(guest.vm()), "");
  const Broken broken = kBreaks[invariant](guest);
  EXPECT_THAT(guest.vm().Audit().violations,
              Contains(AllOf(StartsWith(absl::StrFormat("INV-%d: ", invariant)),
                             HasSubstr(broken.place))));
  broken.repair();
  EXPECT_EQ(AuditFindings(guest.vm()), "");
}

class AuditedTablesTest : public ::testing::TestWithParam<AuditedMmu> {};

// The second half of INV-6: the vCPU has cached a pointer to the table of the
// leaf, and the root leads there no more.
TEST_P(AuditedTablesTest, ACachedTableThatIsNotLinkedIsNamed) {
  AuditedGuest guest(GetParam());
  const LeafPlace leaf = LastLeaf(guest);
  SpteSlot* link = leaf.page->parent;
  if (guest.kind() == MmuKind::kShadow) {
    MmuWriteLocked lock(guest.state().mmu_lock, LockOp::kAge);
    link = &leaf.page->state->parents.Entries(lock).sptep();
  }
  const std::function<void()> repair = Put(*link, Spte::Initial());
  EXPECT_THAT(guest.vm().Audit().violations,
              Contains(StartsWith("INV-6: vCPU 0 walks from a table of level 1 "
                                  "for page")));
  repair();
  EXPECT_EQ(AuditFindings(guest.vm()), "");
}

INSTANTIATE_TEST_SUITE_P(All, AuditedTablesTest,
                         ::testing::ValuesIn(kAuditedMmus), [](const auto& p) {
                           return std::string(NameOf(p.param));
                         });

INSTANTIATE_TEST_SUITE_P(All, AuditTableTest,
                         ::testing::Combine(::testing::ValuesIn(kAuditedMmus),
                                            ::testing::Range(1, kLastInvariant +
                                                                    1)),
                         [](const auto& p) {
                           return absl::StrFormat("%s_Inv%d",
                                                  NameOf(std::get<0>(p.param)),
                                                  std::get<1>(p.param));
                         });

// The table above has a row for each invariant of the header, and no other.
TEST(AuditTableIsCompleteTest, AllInvariantsOfTheHeaderHaveRows) {
  std::ifstream header("mmu_core/vm/inspect/audit.h");
  ASSERT_TRUE(header.is_open());
  std::vector<int> listed;
  for (std::string line; std::getline(header, line);) {
    constexpr char kPrefix[] = "//   INV-";
    if (line.rfind(kPrefix, 0) != 0) continue;
    listed.push_back(std::stoi(line.substr(sizeof(kPrefix) - 1)));
  }
  ASSERT_EQ(listed.size(), size_t{kLastInvariant});
  for (int i = 0; i < kLastInvariant; ++i) {
    EXPECT_EQ(listed[i], i + 1);
    EXPECT_NE(kBreaks[i + 1], nullptr);
  }
  const std::set<Break> different(std::begin(kBreaks), std::end(kBreaks));
  EXPECT_EQ(different.size(), size_t{kLastInvariant + 1});
}

}  // namespace
}  // namespace mmu::testing

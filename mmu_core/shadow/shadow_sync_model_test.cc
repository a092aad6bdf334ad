// A guest that changes its page tables at random, in every possible way. After
// each step the test checks what must be true of the shadow pages.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <random>
#include <string>

#include "absl/strings/str_format.h"
#include "gtest/gtest.h"
#include "mmu_core/guest_paging/guest_entry.h"
#include "mmu_core/guest_paging/guest_walker.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/shadow/guest_pte_writes.h"
#include "mmu_core/shadow/shadow_leaf.h"
#include "mmu_core/testing/guest_tables_test_util.h"

namespace mmu {
namespace {

using ::mmu::testing::GuestTablesFixture;
using ::mmu::testing::kGuestPte;

// A directory and page tables. Entries of the first tables map the guest's
// data, its page tables and the directory.
constexpr uint64_t kDirectory = 600;
constexpr uint64_t kFirstTable = 601;
constexpr int kTables = 20;
constexpr int kEntries = 24;  // the used entries of each table
constexpr uint64_t kFirstData = 5000;

class ShadowSyncModelTest : public ::testing::TestWithParam<uint32_t>,
                            protected GuestTablesFixture {
 protected:
  ShadowSyncModelTest() : random_(GetParam()) { Build(); }

  uint64_t Random(uint64_t below) { return random_() % below; }
  uint64_t RandomTable() { return kFirstTable + Random(kTables); }
  uint64_t RandomTarget() {
    return Random(3) == 0 ? kDirectory + Random(1 + kTables)
                          : kFirstData + Random(40);
  }
  uint64_t EntryAt(uint64_t table, int index) {
    return memory_.Get((table << kPageShift) +
                       static_cast<uint64_t>(index) * 8);
  }

  // Creates and links all shadow pages, also those that were zapped.
  void Build() {
    if (!pages_.MakeAvailable(lock_, nullptr)) return;
    directory_ = &Page(kDirectory, RoleAt(2));
    for (int i = 0; i < kTables; ++i) {
      const uint64_t gfn = kFirstTable + static_cast<uint64_t>(i);
      Put(kDirectory, i, gfn << kPageShift | kGuestPte);
      ShadowPageState& table =
          GetSyncing(gfn, RoleAt(1), [this](ShadowPageState& page) {
            return sync_.SyncPage(lock_, context(), page, nullptr);
          }).page;
      tables_[static_cast<size_t>(i)] = &table;
      SpteSlot& sptep = directory_->EntryAt(i);
      if (!sptep.Load().IsPresent()) Link(*directory_, i, table);
    }
  }
  ShadowPageState& Shadow(uint64_t table) {
    return *tables_[static_cast<size_t>(table - kFirstTable)];
  }

  // Does an access through entry `index` of a table: the walk and the fault.
  // Returns whether the guest may write through the entry afterwards.
  bool Access(uint64_t table, int index, bool write) {
    const uint64_t old_entry = EntryAt(table, index);
    GuestWalker::EntryInfo entry = guest_.walker.Decode(old_entry, 1);
    if (!entry.present || (write && !entry.rights.Has(kMayWrite))) return false;
    Put(table, index,
        old_entry | guest_entry::kAccessed |
            (write ? guest_entry::kDirty : uint64_t{0}));
    entry = guest_.walker.Decode(EntryAt(table, index), 1);
    ShadowPageState& page = Shadow(table);
    SpteSlot& sptep = page.EntryAt(index);
    Spte old_spte = sptep.Load();
    if (old_spte.IsPresent() && page.TranslationOf(index).gfn != entry.gfn) {
      pages_.links().DropLeaf(lock_, sptep);
      old_spte = Spte::Initial();
    }
    const GuestTranslation translation = {
        entry.gfn,
        entry.dirty ? entry.rights : entry.rights.Without(kMayWrite)};
    const Memslot& slot = *vm_.SlotOf(0, entry.gfn);
    const ShadowLeaf leaf = leafs_.Make(lock_, page, slot,
                                        {.pfn = Pfn(entry.gfn.value()),
                                         .translation = translation,
                                         .map_writable = HostWritable::kYes,
                                         .old_spte = old_spte});
    if (old_spte.IsPresent()) {
      pages_.links().ChangeLeaf(lock_, sptep, leaf.spte, translation.access);
    } else {
      if (caches_.lists.count() == 0) TopUp();
      pages_.links().AddLeaf(lock_, sptep, leaf.spte, translation,
                             Rmaps(entry.gfn.value()), caches_.lists, nullptr);
    }
    return leaf.spte.IsWritable();
  }

  // The guest writes an entry of one of its tables. It writes through a
  // writable SPTE if it has or gets one; otherwise the write is emulated.
  void GuestWrites(uint64_t table, int index, uint64_t value) {
    for (int i = 0; i < kTables; ++i) {
      for (int j = 0; j < kEntries; ++j) {
        const uint64_t through = kFirstTable + static_cast<uint64_t>(i);
        const GuestWalker::EntryInfo entry =
            guest_.walker.Decode(EntryAt(through, j), 1);
        if (!entry.present || entry.gfn != Gfn(table)) continue;
        if (!Access(through, j, /*write=*/true)) continue;
        ++written_directly_;
        Put(table, index, value);
        return;
      }
    }
    ++emulated_;
    Put(table, index, value);
    WithoutLock([&] {
      writes_.Written(0, ToGpa(Gfn(table)) + static_cast<uint64_t>(index) * 8,
                      8, memory_.words(), nullptr);
    });
    Build();
  }

  // Finds an SPTE of a synced page that grants more than the guest's entry.
  std::string FindTooMuch() {
    for (const ShadowPageState* page : tables_) {
      if (page->unsync) continue;
      for (int i = 0; i < kEntries; ++i) {
        const Spte spte = page->page->table->entries[i].Load();
        if (!spte.IsPresent()) continue;
        const GuestWalker::EntryInfo entry =
            guest_.walker.Decode(EntryAt(page->gfn().value(), i), 1);
        AccessRights granted = entry.rights;
        if (!entry.dirty) granted = granted.Without(kMayWrite);
        const AccessRights used = SpteFormat::Ept().RightsOf(spte);
        if (entry.present && entry.accessed && !entry.reserved &&
            entry.gfn.value() == spte.pfn().value() && granted.Has(used)) {
          continue;
        }
        return absl::StrFormat("entry %d of table 0x%x: 0x%x grants %s", i,
                               page->gfn().value(), spte.bits(),
                               ToString(used));
      }
    }
    return "";
  }

  std::mt19937 random_;
  ShadowPageState* directory_ = nullptr;
  std::array<ShadowPageState*, kTables> tables_{};
  GuestPteWrites writes_{Parts(), mmu_lock_, pages_};
  int written_directly_ = 0;
  int emulated_ = 0;
};

INSTANTIATE_TEST_SUITE_P(Seeds, ShadowSyncModelTest,
                         ::testing::Range(uint32_t{1}, uint32_t{5}));

// Covers: SHD-30, SHD-33, SHD-34
TEST_P(ShadowSyncModelTest, APageInStepGrantsNoMoreThanTheGuest) {
  int synced = 0;
  uint64_t most_unsync = 0;
  for (int step = 0; step < 1500; ++step) {
    const uint64_t table = RandomTable();
    const int index = static_cast<int>(Random(kEntries));
    switch (Random(16)) {
      case 0:
        ASSERT_TRUE(sync_.SyncChildren(lock_, context(), *directory_,
                                       ShadowSync::MayYield::kNo, nullptr));
        ASSERT_EQ(ShadowCounters::Get(stats().mmu_unsync), 0u);
        ++synced;
        break;
      case 1:
        if (Random(8) == 0) {
          Zap(Shadow(table));
          Build();
        }
        break;
      case 2:
      case 3:
      case 4:
      case 5:
      case 6:
      case 7: {
        uint64_t entry = RandomTarget() << kPageShift | kGuestPte;
        // One in three entries lacks some rights.
        for (const uint64_t bit :
             {guest_entry::kPresent, guest_entry::kWritable, guest_entry::kUser,
              guest_entry::kAccessed, guest_entry::kDirty}) {
          if (Random(12) == 0) entry &= ~bit;
        }
        if (Random(10) == 0) entry |= guest_entry::kNx;
        GuestWrites(table, index, entry);
        break;
      }
      default:
        Access(table, index, Random(2) == 0);
    }
    most_unsync =
        std::max(most_unsync, ShadowCounters::Get(stats().mmu_unsync));
    ASSERT_EQ(FindTooMuch(), "") << "step " << step;
    if (step % 50 == 0) {
      ASSERT_EQ(AuditFindings(), "") << "step " << step;
    }
  }
  EXPECT_GT(synced, 50);
  EXPECT_GT(written_directly_, 50);
  EXPECT_GT(emulated_, 5);
  EXPECT_GE(most_unsync, 3u);
}

}  // namespace
}  // namespace mmu

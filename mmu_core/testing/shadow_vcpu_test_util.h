// vCPUs on shadow tables without a VM, for tests: guest memory with contents,
// faults as the fault handler resolves them, and the processor's walk.

#ifndef MMU_CORE_TESTING_SHADOW_VCPU_TEST_UTIL_H_
#define MMU_CORE_TESTING_SHADOW_VCPU_TEST_UTIL_H_

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest_paging/control_registers.h"
#include "mmu_core/guest_paging/cpu_role.h"
#include "mmu_core/guest_paging/guest_entry.h"
#include "mmu_core/guest_paging/guest_walk.h"
#include "mmu_core/guest_paging/guest_walker.h"
#include "mmu_core/memory/backing.h"
#include "mmu_core/memory/guest_words.h"
#include "mmu_core/memory/host_memory.h"
#include "mmu_core/memory/invalidate_sequence.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/mmu/nx_huge_pages.h"
#include "mmu_core/mmu/page_fault.h"
#include "mmu_core/paging/access_rights.h"
#include "mmu_core/paging/page_role.h"
#include "mmu_core/paging/spte.h"
#include "mmu_core/paging/spte_format.h"
#include "mmu_core/paging/table_pool.h"
#include "mmu_core/rmap/pte_list_pool.h"
#include "mmu_core/shadow/guest_context.h"
#include "mmu_core/shadow/object_pool.h"
#include "mmu_core/shadow/shadow_caches.h"
#include "mmu_core/shadow/shadow_faults.h"
#include "mmu_core/shadow/shadow_leaf.h"
#include "mmu_core/shadow/shadow_links.h"
#include "mmu_core/shadow/shadow_page_state.h"
#include "mmu_core/shadow/shadow_pages.h"
#include "mmu_core/shadow/shadow_roots.h"
#include "mmu_core/shadow/shadow_sync.h"
#include "mmu_core/shadow/shadow_zap.h"
#include "mmu_core/shadow/unsync_gate.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/stats/mmu_counters.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/testing/shadow_audit_test_util.h"
#include "mmu_core/testing/shadow_slots_test_util.h"
#include "mmu_core/tlb/remote_flush.h"
#include "mmu_core/tlb/vcpu_gate.h"

namespace mmu::testing {

// Slots of address space 0, and their contents.
class ShadowTestMemory : public ShadowTestSlots, public GuestWords {
 public:
  // `range` begins at a multiple of 1 GiB where huge pages matter.
  Memslot& AddSlot(GfnRange range, Level host_page_level = Level::k4K) {
    auto slot = std::make_unique<Memslot>();
    slot->backing = *host_.Allocate({.kind = BackingKind::kAnonymous,
                                     .size_bytes = range.bytes(),
                                     .host_page_level = host_page_level});
    slot->hva = slot->backing->hva();
    return Add(std::move(slot), range);
  }

  bool WriteProtectGfn(const MmuWriteLocked&, const Memslot&, Gfn) override {
    return false;
  }

  GuestWordResult Read(Gpa gpa, WordSize size, uint64_t* value) override {
    const Memslot* const slot = SlotOf(0, ToGfn(gpa));
    if (slot == nullptr || slot->invalid()) return GuestWordResult::kNoSlot;
    *value = size == WordSize::k4 ? At<uint32_t>(*slot, gpa).load()
                                  : At<uint64_t>(*slot, gpa).load();
    if (on_read) on_read(gpa);
    return GuestWordResult::kDone;
  }
  GuestWordResult CompareExchange(Gpa gpa, WordSize size, uint64_t expected,
                                  uint64_t desired) override {
    const Memslot* const slot = SlotOf(0, ToGfn(gpa));
    if (slot == nullptr || slot->invalid()) return GuestWordResult::kNoSlot;
    if (slot->readonly()) return GuestWordResult::kReadonly;
    bool done;
    if (size == WordSize::k4) {
      auto word = static_cast<uint32_t>(expected);
      done = At<uint32_t>(*slot, gpa)
                 .compare_exchange_strong(word, static_cast<uint32_t>(desired));
    } else {
      done =
          At<uint64_t>(*slot, gpa).compare_exchange_strong(expected, desired);
    }
    return done ? GuestWordResult::kDone : GuestWordResult::kChanged;
  }

  // Writes entry `index` of the table at gfn `table`, whether or not it is
  // shadowed.
  void PutEntry(Gfn table, int index, uint64_t value,
                WordSize size = WordSize::k8) {
    const Gpa gpa = ToGpa(table) +
                    static_cast<uint64_t>(index) * static_cast<uint64_t>(size);
    const Memslot* const slot = SlotOf(0, table);
    MMU_CHECK(slot != nullptr);
    if (size == WordSize::k4) {
      At<uint32_t>(*slot, gpa).store(static_cast<uint32_t>(value));
    } else {
      At<uint64_t>(*slot, gpa).store(value);
    }
  }
  uint64_t GetEntry(Gfn table, int index, WordSize size = WordSize::k8) {
    uint64_t value = 0;
    MMU_CHECK(Read(ToGpa(table) + static_cast<uint64_t>(index) *
                                      static_cast<uint64_t>(size),
                   size, &value) == GuestWordResult::kDone);
    return value;
  }

  // Called after each read of a word.
  std::function<void(Gpa)> on_read;

 private:
  template <typename Word>
  static std::atomic<Word>& At(const Memslot& slot, Gpa gpa) {
    return *reinterpret_cast<std::atomic<Word>*>(
        slot.backing->PointerTo(slot.HvaOf(ToGfn(gpa))) +
        (gpa.value() & kPageMask));
  }

  HostMemory host_;
};

// Guest memory that a walk cannot change: it sets no Accessed or Dirty bits.
class WithoutUpdates : public GuestWords {
 public:
  explicit WithoutUpdates(GuestWords& words) : words_(words) {}
  GuestWordResult Read(Gpa gpa, WordSize size, uint64_t* value) override {
    return words_.Read(gpa, size, value);
  }
  GuestWordResult CompareExchange(Gpa, WordSize, uint64_t, uint64_t) override {
    return GuestWordResult::kReadonly;
  }

 private:
  GuestWords& words_;
};

inline constexpr GuestPagingState kTwoLevelPaging = {.cr0 = kCr0Pg | kCr0Wp,
                                                     .cr4 = kCr4Pse};
inline constexpr GuestPagingState kPaePaging = {
    .cr0 = kCr0Pg | kCr0Wp, .cr4 = kCr4Pae, .efer = kEferNx};
inline constexpr GuestPagingState kFourLevelPaging = {
    .cr0 = kCr0Pg | kCr0Wp, .cr4 = kCr4Pae, .efer = kEferLma | kEferNx};
inline constexpr GuestPagingState kFiveLevelPaging = {
    .cr0 = kCr0Pg | kCr0Wp,
    .cr4 = kCr4Pae | kCr4La57,
    .efer = kEferLma | kEferNx};

// The parts of a VM that the shadow MMU uses.
struct ShadowTestVm {
  struct Options {
    const SpteFormat* format = &SpteFormat::Npt();
    TdpEnabled tdp = TdpEnabled::kNo;
    Level max_page_level = kMaxLeafLevel;
  };

  explicit ShadowTestVm(const Options& options)
      : format(*options.format),
        pages(parts(), options.tdp, &nx_huge_pages.of(MmuKind::kShadow)),
        faults(parts(), pages, leafs, sync,
               {.max_page_level = options.max_page_level,
                .nx_huge_pages = &nx_huge_pages,
                .invalidations = &invalidations}) {}
  ~ShadowTestVm() {
    MMU_CHECK(AuditFindings().empty());
    {
      MmuWriteLocked lock(mmu_lock, LockOp::kZap);
      pages.zap().ZapAll(lock, nullptr);
      MMU_CHECK(pages.in_use() == 0);
    }
    RcuBarrier();
    MMU_CHECK(tables.tables_out() == 0);
    MMU_CHECK(states.objects_out() == 0 && translations.objects_out() == 0);
  }

  // The auditor's findings, one per line; "" if there are none.
  std::string AuditFindings() {
    MmuWriteLocked lock(mmu_lock, LockOp::kZap);
    return ShadowTestAudit(memory).Run(lock, pages, parts(),
                                       &nx_huge_pages.of(MmuKind::kShadow));
  }
  // The pages that shadow the guest's table at `gfn`.
  std::vector<ShadowPageState*> PagesOf(uint64_t gfn) {
    MmuWriteLocked lock(mmu_lock, LockOp::kFault);
    std::vector<ShadowPageState*> found;
    pages.set().ForEachWithGuestPtes(lock, Gfn(gfn), [&](auto& page) {
      found.push_back(&page);
      return true;
    });
    return found;
  }
  bool IsWriteTracked(uint64_t gfn) {
    return memory.SlotOf(0, Gfn(gfn))->shadow_rmaps()->IsWriteTracked(Gfn(gfn));
  }
  uint64_t Flushes() const { return tlb.Snapshot().remote_tlb_flush_requests; }
  // Writes to the guest's table. If the write is noticed, the SPTEs for the
  // entry are dropped. Returns true if the write went unnoticed.
  bool GuestWrites(uint64_t table, int index, uint64_t entry,
                   WordSize size = WordSize::k8) {
    MmuWriteLocked lock(mmu_lock, LockOp::kFault);
    const bool unnoticed = gate.MayMapWritable(
        lock, *memory.SlotOf(0, Gfn(table)), Gfn(table), Prefetched::kNo);
    memory.PutEntry(Gfn(table), index, entry, size);
    if (unnoticed) return true;
    ZappedPages zapped;
    pages.set().ForEachWithGuestPtes(lock, Gfn(table), [&](auto& page) {
      pages.zap().Prepare(lock, page, zapped);
      return true;
    });
    pages.zap().Commit(lock, zapped, nullptr);
    return false;
  }
  // Zaps all shadow pages as a change of the whole VM does (SHD-24).
  void FastZap() {
    MmuWriteLocked lock(mmu_lock, LockOp::kZap);
    pages.zap().StartGeneration(lock);
    tlb.Request(kFreeObsoleteRoots);
    pages.zap().ZapObsolete(lock, nullptr);
  }

  ShadowPools pools() { return {tables, states, translations, lists}; }
  ShadowParts parts() {
    return {format, SpteFormat::EptWithoutAd(), memory,
            tlb.Of(MmuKind::kShadow), counters};
  }

  const SpteFormat& format;
  TablePool tables;
  ObjectPool states{sizeof(ShadowPageState)};
  ObjectPool translations{sizeof(GuestTranslations)};
  PteListPool lists;
  ShadowTestMemory memory;
  MmuCounters counters;
  RemoteTlb tlb;
  MmuLock mmu_lock;
  NxHugePages nx_huge_pages;
  InvalidationGate invalidations;
  const ShadowParts shadow_parts = parts();
  ShadowPages pages;
  UnsyncGate gate{pages.set(), pages.unsync()};
  ShadowLeafs leafs{parts(), gate, {.nx_huge_pages = &nx_huge_pages}};
  ShadowSync sync{parts(), pages, leafs};
  ShadowFaults faults;
};

// Legacy entries that grant all rights: kGuestTable leads to a table,
// kGuestPage maps a page.
inline constexpr uint64_t kGuestTable =
    guest_entry::kPresent | guest_entry::kWritable | guest_entry::kUser |
    guest_entry::kAccessed;
inline constexpr uint64_t kGuestPage = kGuestTable | guest_entry::kDirty;
inline constexpr uint64_t kGuestHugePage = kGuestPage | guest_entry::kPageSize;
// The same entries for EPT.
inline constexpr uint64_t kEptTable =
    guest_entry::kEptRead | guest_entry::kEptWrite | guest_entry::kEptExec |
    guest_entry::kEptAccessed;
inline constexpr uint64_t kEptPage =
    kEptTable | guest_entry::kEptDirty |
    (uint64_t{6} << guest_entry::kEptMemoryTypeShift);

// An entry that points at `gfn`.
constexpr uint64_t EntryTo(uint64_t gfn, uint64_t flags = kGuestPage) {
  return gfn << kPageShift | flags;
}

// Makes the tables on the path to `address`: the top table at gfn `first`, the
// next at the following gfn and so on; the last contains `leaf`. A PAE guest's
// tables begin below the PDPTEs.
inline void PutPath(ShadowTestMemory& memory, const GuestWalker& walker,
                    uint64_t first, uint64_t address, uint64_t leaf,
                    int leaf_level = 1, uint64_t flags = kGuestTable) {
  const WordSize size = walker.entry_size();
  const int bits = size == WordSize::k4 ? 10 : 9;
  int level = walker.role().guest_level();
  if (level == 3) level = 2;
  for (;; --level, ++first) {
    const auto index = static_cast<int>(
        address >> (kPageShift + bits * (level - 1)) & ((1u << bits) - 1));
    const bool last = level == leaf_level;
    memory.PutEntry(Gfn(first), index, last ? leaf : EntryTo(first + 1, flags),
                    size);
    if (last) return;
  }
}

// The translation that the processor finds in the shadow tables.
struct HardwareTranslation {
  bool present = false;  // the other fields are set only if true
  Pfn pfn;               // of the address itself
  AccessRights rights;   // of all entries on the path
  Level level = Level::k4K;
  const SpteSlot* slot = nullptr;
  Spte spte;
};

// One vCPU with one paging mode.
class ShadowTestVcpu {
 public:
  ShadowTestVcpu(ShadowTestVm& vm, const GuestWalker& walker, PageRole root)
      : vm_(vm),
        walker_(walker),
        caches_(vm.pools()),
        guest_{.walker = walker_,
               .memory = vm.memory,
               .root_role = root,
               .caches = caches_},
        roots_({.shadow = vm.shadow_parts,
                .mmu_lock = vm.mmu_lock,
                .pages = vm.pages,
                .sync = vm.sync,
                .tables = vm.tables}) {}
  ~ShadowTestVcpu() { roots_.FreeAll(nullptr); }

  static GuestWalker LegacyWalker(const GuestPagingState& state) {
    return GuestWalker(GuestTables::kLegacy, LegacyCpuRole(state), {});
  }
  // A guest whose own tables are shadowed.
  ShadowTestVcpu(ShadowTestVm& vm, const GuestPagingState& state)
      : ShadowTestVcpu(vm, LegacyWalker(state),
                       ShadowRootRole(LegacyCpuRole(state))) {}

  GuestContext& guest() { return guest_; }
  ShadowRoots& roots() { return roots_; }
  GuestRoot& where() { return where_; }
  absl::Status Load() { return roots_.Load(guest_, where_, nullptr); }
  // Emulates a load of CR3.
  void LoadCr3(Gfn table) {
    where_.table = table;
    MMU_CHECK(Load().ok());
  }

  HardwareTranslation Translate(uint64_t address) const {
    const PageTable* table = roots_.table();
    AccessRights granted = kAllRights;
    for (Level level = roots_.level();; level = ChildOf(level)) {
      const SpteSlot& slot = table->entries[static_cast<size_t>(
          IndexOf(Gfn(address >> kPageShift), level))];
      const Spte spte = slot.Load();
      if (!spte.IsPresent()) {
        HardwareTranslation none;
        none.slot = &slot;
        none.spte = spte;
        return none;
      }
      granted = granted & vm_.format.RightsOf(spte);
      if (spte.IsLeaf(level)) {
        const uint64_t within = (address >> kPageShift) & (PagesPer(level) - 1);
        return {.present = true,
                .pfn = spte.pfn() + within,
                .rights = granted,
                .level = level,
                .slot = &slot,
                .spte = spte};
      }
      table = TableOf(spte);
    }
  }

  // Walks the guest's tables without setting bits.
  GuestWalkResult WalkQuietly(uint64_t address, const GuestPageAccess& access) {
    WithoutUpdates memory(vm_.memory);
    return walker_.Walk(memory, where_, address, access);
  }

  // Handles one fault like the fault handler, and leaves the walk of the
  // guest's tables in `walk`. Returns nullopt if the guest gets a fault of its
  // own.
  std::optional<FaultResult> Fault(uint64_t address,
                                   const GuestPageAccess& access) {
    if (roots_.table() == nullptr) MMU_CHECK(Load().ok());
    MMU_CHECK(caches_
                  .TopUpForFault(guest_.has_guest_tables()
                                     ? IndirectPages::kPossible
                                     : IndirectPages::kNone)
                  .ok());
    RcuReadGuard rcu;
    walk = walker_.Walk(vm_.memory, where_, address, access);
    if (!walk.translated()) return std::nullopt;
    fault = {};
    fault.gfn = walk.gfn;
    fault.kind = access.kind;
    fault.slot = vm_.memory.SlotOf(0, walk.gfn);
    rights = walk.access;
    if (fault.slot != nullptr) {
      fault.pfn = fault.slot->PfnOf(walk.gfn);
      fault.map_writable =
          fault.slot->readonly() ? HostWritable::kNo : HostWritable::kYes;
      if (access.kind == AccessKind::kWrite &&
          access.privilege != Privilege::kUser) {
        rights = AccessOfSupervisorWrite(guest_.cpu_role(), rights);
      }
    } else {
      fault.mmio = mmio;
    }
    if (before_lock) before_lock();
    const Use before = CacheCounts();
    MmuWriteLocked lock(vm_.mmu_lock, LockOp::kFault);
    ShadowPageState* const top = roots_.TopPage(address);
    if (top == nullptr || roots_.IsObsolete()) return FaultResult::kRetry;
    if (!vm_.pages.MakeAvailable(lock, nullptr)) return FaultResult::kRetry;
    const FaultResult result =
        guest_.has_guest_tables()
            ? vm_.faults.MapGuest(lock, guest_, *top, fault, address, walk,
                                  rights, nullptr)
            : vm_.faults.MapDirect(lock, guest_, *top, fault, nullptr);
    const Use after = CacheCounts();
    most_used.lists = std::max(most_used.lists, before.lists - after.lists);
    most_used.pages = std::max(most_used.pages, before.pages - after.pages);
    return result;
  }

  // The objects that one fault took from the caches.
  struct Use {
    int lists = 0;
    int pages = 0;
  };
  Use most_used;

  GuestWalkResult walk;  // of the last fault
  PageFault fault;
  AccessRights rights;
  Spte mmio;  // the SPTE that a fault without a slot installs
  std::function<void()> before_lock;

 private:
  Use CacheCounts() const {
    return {.lists = caches_.lists.count(), .pages = caches_.states.count()};
  }

  ShadowTestVm& vm_;
  const GuestWalker walker_;
  ShadowCaches caches_;
  GuestContext guest_;
  ShadowRoots roots_;
  GuestRoot where_;
};

}  // namespace mmu::testing

#endif  // MMU_CORE_TESTING_SHADOW_VCPU_TEST_UTIL_H_

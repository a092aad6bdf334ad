// Stage-2 tables of one memslot, and a vCPU that runs on them, without a VM.

#ifndef MMU_CORE_TESTING_STAGE2_WORLD_H_
#define MMU_CORE_TESTING_STAGE2_WORLD_H_

#include <cstdint>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "mmu_core/aging/aging.h"
#include "mmu_core/base/arm_geometry.h"
#include "mmu_core/base/bits.h"
#include "mmu_core/memory/host_memory.h"
#include "mmu_core/memory/invalidate_sequence.h"
#include "mmu_core/memory/lpage_info.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/stage2/s2_page.h"
#include "mmu_core/stage2/s2_root.h"
#include "mmu_core/stage2/s2_shape.h"
#include "mmu_core/stage2/s2_tlb.h"
#include "mmu_core/stage2/s2_walk.h"
#include "mmu_core/stage2/stage2_age.h"
#include "mmu_core/stage2/stage2_fault.h"
#include "mmu_core/stage2/stage2_state.h"
#include "mmu_core/stage2/stage2_unmap.h"
#include "mmu_core/stats/mmu_counters.h"
#include "mmu_core/sync/mmu_lock.h"
#include "mmu_core/sync/rcu.h"
#include "mmu_core/tlb/flush_queue.h"
#include "mmu_core/tlb/remote_flush.h"
#include "mmu_core/tlb/stage2_tlb.h"
#include "mmu_core/tlb/tlbi.h"
#include "mmu_core/tlb/vcpu_gate.h"

namespace mmu::testing {

// A leaf of the tables. A value.
struct S2Mapping {
  uint64_t gfn = 0;
  int level = 1;
  std::string rights;  // of "rwx", then "a" if AF is set, "d" if DBM is

  friend bool operator==(const S2Mapping&, const S2Mapping&) = default;
  friend std::ostream& operator<<(std::ostream& os, const S2Mapping& m) {
    return os << "{gfn 0x" << std::hex << m.gfn << std::dec << ", level "
              << m.level << ", " << m.rights << "}";
  }
};

// A value.
struct S2WorldOptions {
  uint64_t pages = uint64_t{1} << 19;     // of the slot: 2 GiB
  uint64_t base_gfn = uint64_t{1} << 18;  // 1 GiB
  Level host_page_level = Level::k1G;
  BbmLevel bbm = BbmLevel::k0;
  TlbiUnit::Ranges tlbi_range = TlbiUnit::Ranges::kNo;
  Stage2Options::HardwareAccessFlag hardware_access_flag =
      Stage2Options::HardwareAccessFlag::kNo;
  Stage2Options::HardwareDirtyState hardware_dirty_state =
      Stage2Options::HardwareDirtyState::kNo;
};

// Thread-safe as its parts are.
template <TableGeometry G>
class Stage2World {
 public:
  explicit Stage2World(const S2WorldOptions& options = {})
      : tlbi_(G::kGranuleShift, options.tlbi_range),
        remote_(MmuKind::kTdp, &tlbi_),
        cache_(S2Pool<G>::Process()) {
    absl::StatusOr<std::unique_ptr<S2Root<G>>> root =
        S2Root<G>::Create(kShape.root_tables, TableBudget::Process());
    EXPECT_TRUE(root.ok());
    state_ = std::make_unique<Stage2State<G>>(
        Stage2Parts{.lock = lock_,
                    .tlb = remote_.Of(MmuKind::kTdp),
                    .counters = counters_,
                    .invalidations = invalidations_},
        Stage2Options{.shape = kShape,
                      .bbm = options.bbm,
                      .tlbi_range = options.tlbi_range,
                      .hardware_access_flag = options.hardware_access_flag,
                      .hardware_dirty_state = options.hardware_dirty_state,
                      .max_leaf_level = G::kMaxLeafLevel},
        std::move(*root));
    auto backing = memory_.Allocate({.kind = BackingKind::kMetadataOnly,
                                     .size_bytes = options.pages << kPageShift,
                                     .host_page_level = options.host_page_level,
                                     .gpa = ToGpa(Gfn(options.base_gfn))});
    EXPECT_TRUE(backing.ok());
    slot_.base_gfn = Gfn(options.base_gfn);
    slot_.npages = options.pages;
    slot_.backing = *backing;
    slot_.hva = slot_.backing->hva();
    EXPECT_TRUE(cache_.TryTopUp(kTables, kTables));
  }
  ~Stage2World() {
    state_.reset();
    for (const Level level : kLeafLevels) EXPECT_EQ(counters_.Leafs(level), 0u);
  }

  Stage2State<G>& state() { return *state_; }
  Memslot& slot() { return slot_; }
  MmuLock& lock() { return lock_; }
  RemoteTlb& remote() { return remote_; }
  TlbiUnit& tlbi() { return tlbi_; }
  MmuCounters& counters() { return counters_; }
  const HostMemory& memory() const { return memory_; }
  S2Cache<G>& cache() { return cache_; }
  // The gfn `i` gfns behind the start of the slot.
  Gfn At(uint64_t i) const { return slot_.base_gfn + i; }

  // Makes the slot log, without protecting anything.
  void SetLogging(bool on) { slot_.flags = on ? kMemslotLogDirtyPages : 0; }

  FaultResult Fault(Gfn gfn, AccessKind kind) {
    EXPECT_TRUE(cache_.TryTopUp(kTables, kTables));
    PageFault fault;
    fault.gfn = gfn;
    fault.kind = kind;
    fault.slot = &slot_;
    fault.pfn = slot_.PfnOf(gfn);
    fault.map_writable = HostWritable::kYes;
    MmuReadLocked locked(lock_, LockOp::kFault);
    return MapStage2(*state_, locked, fault, cache_);
  }
  // Handles a fault of an access without AF.
  FaultResult SetAccessFlag(Gfn gfn) {
    MmuReadLocked locked(lock_, LockOp::kFault);
    return SetAccessFlagStage2(*state_, locked, gfn);
  }
  void Unmap(GfnRange range);
  // Makes all pages of the slot old; returns which were young.
  AgeResult AgeAll() {
    AgeResult result = AgeResult::For(slot_.range());
    MmuWriteLocked locked(lock_, LockOp::kAge);
    AgeStage2(*state_, locked, slot_.range(), AgeMode::kTestAndClear, result,
              nullptr);
    return result;
  }

  // All leafs that overlap the range.
  std::vector<S2Mapping> Mappings(GfnRange range) {
    std::vector<S2Mapping> all;
    RcuReadGuard rcu;
    for (S2Cursor<G> c = state_->CursorOver(range, Level{1}); c.Valid();
         c.Next()) {
      if (!c.IsPresentLeaf()) continue;
      const S2Descriptor d = c.old_spte();
      std::string rights;
      if (d.Has(s2_bits::kRead)) rights += 'r';
      if (d.IsWritable()) rights += 'w';
      if (d.IsExecutable()) rights += 'x';
      if (d.IsAccessed()) rights += 'a';
      if (d.NotesWrites()) rights += 'd';
      all.push_back({c.gfn() - slot_.base_gfn, ToInt(c.level()), rights});
    }
    return all;
  }
  std::vector<S2Mapping> Mappings() { return Mappings(slot_.range()); }

 private:
  static constexpr S2Shape kShape = ShapeOf<G>(40);
  static constexpr int kTables = kS2TablesPerFault<G>;

  TlbiUnit tlbi_;
  RemoteTlb remote_;
  MmuLock lock_;
  MmuCounters counters_;
  InvalidationGate invalidations_;
  HostMemory memory_;
  Memslot slot_;
  std::unique_ptr<Stage2State<G>> state_;
  S2Cache<G> cache_;
};

// A vCPU. It belongs to the thread that uses it.
template <TableGeometry G>
class Stage2TestCpu {
 public:
  explicit Stage2TestCpu(Stage2World<G>& world)
      : world_(world),
        tlb_({.flushes = TlbOptions::Flushes::kPrecise,
              .evictions = TlbOptions::Evictions::kNever}) {
    gate_.set_flush_queue(&queue_);
    tlb_.Select(1);
    world_.remote().AddVcpu(&gate_);
  }
  ~Stage2TestCpu() { world_.remote().RemoveVcpu(&gate_); }

  // Translates without a fault: the result of the TLB or of a walk.
  enum class Result : uint8_t { kDone, kFault, kConflict };
  Result Try(Gfn gfn, AccessKind kind) {
    const PageNumber page = ToPageNumber(gfn);
    while (gate_.BeginAccess() != 0) CarryOut();
    if (tlb_.HasConflict(page)) {
      gate_.EndAccess();
      return Result::kConflict;
    }
    const TlbEntry* entry = tlb_.Lookup(page);
    if (entry == nullptr) {
      entry = tlb_.LookupStage2(page);
      if (entry != nullptr) tlb_.InsertCombined(*entry);
    }
    bool done = entry != nullptr && (kind != AccessKind::kWrite ||
                                     (entry->writable && entry->dirty_set));
    if (!done) {
      const S2WalkResult walk = WalkStage2(world_.state(), world_.memory(),
                                           page, kind, tlb_.tables());
      done = walk.kind == S2WalkResult::Kind::kTranslated;
      if (done) tlb_.Insert(walk.entry);
      last_walk_ = walk.kind;
    }
    gate_.EndAccess();
    return done ? Result::kDone : Result::kFault;
  }
  // A processor may walk the tables whenever it likes, and cache what it finds.
  // Returns the level of the leaf that it found; 0: none.
  int Speculate(Gfn gfn) {
    const PageNumber page = ToPageNumber(gfn);
    while (gate_.BeginAccess() != 0) CarryOut();
    const S2WalkResult walk =
        WalkStage2(world_.state(), world_.memory(), page, AccessKind::kRead,
                   tlb_.tables(), S2WalkFor::kSpeculation);
    const bool found = walk.kind == S2WalkResult::Kind::kTranslated;
    if (found) tlb_.Insert(walk.entry);
    gate_.EndAccess();
    return found ? ToInt(walk.level) : 0;
  }
  // The same with as many faults as it takes.
  Result Access(Gfn gfn, AccessKind kind) {
    for (;;) {
      const Result result = Try(gfn, kind);
      if (result != Result::kFault) return result;
      tlb_.FlushPage(ToPageNumber(gfn));
      if (last_walk_ == S2WalkResult::Kind::kAccessFlagFault) {
        world_.SetAccessFlag(gfn);
      } else {
        world_.Fault(gfn, kind);
      }
      ++faults_;
    }
  }
  int TakeFaults() { return std::exchange(faults_, 0); }

 private:
  void CarryOut() {
    if ((gate_.TakeRequests() & kTlbFlush) == 0) return;
    const PendingFlushes pending = queue_.Take();
    if (pending.all) tlb_.FlushAll();
    for (const TlbFlush& flush : pending.span()) tlb_.Flush(flush);
  }

  Stage2World<G>& world_;
  VcpuGate gate_;
  FlushQueue queue_;
  S2Tlb<G> tlb_;
  S2WalkResult::Kind last_walk_ = S2WalkResult::Kind::kTranslated;
  int faults_ = 0;
};

template <TableGeometry G>
void Stage2World<G>::Unmap(GfnRange range) {
  MmuWriteLocked locked(lock_, LockOp::kZap);
  UnmapStage2(*state_, locked, &slot_, range, FlushReason::kZap, MayYield::kYes,
              nullptr);
}

}  // namespace mmu::testing

#endif  // MMU_CORE_TESTING_STAGE2_WORLD_H_

// A VM of any mode whose guest uses memory now and then, with the model of what
// an ageing has to answer about it.

#ifndef MMU_CORE_TESTING_AGED_GUEST_H_
#define MMU_CORE_TESTING_AGED_GUEST_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "mmu_core/aging/aging.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest/hypervisor/l1_hypervisor.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/testing/age_model.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/run/l1_processor.h"
#include "mmu_core/vm/vm.h"

namespace mmu::testing {

// The memory: pages of 4 KiB, and right behind them those of 2 MiB; more of
// 2 MiB on both sides of the first GiB; and those of 1 GiB, without contents.
std::vector<MemslotConfig> AgedMemory();

// Thread-compatible. Functions that change the VM change the model with it, and
// CHECK that they succeed.
class AgedGuest {
 public:
  // `config` has the memory of AgedMemory. With MmuMode::kNested, L1 runs in
  // its first two slots, which stay, and L2 has memory there, all of it mapped
  // and old.
  explicit AgedGuest(const VmConfig& config);

  Vm& vm() { return *vm_; }
  AgeModel& model() { return model_; }
  // The end of the last memslot.
  Gfn end() const { return end_; }

  // Whether the MMU ages without a lock, so fast (AGE-30).
  bool AgesFast(MmuKind kind) const;
  // Whether the MMU is in use; nullopt if that is not known: L2's, before L2
  // runs again.
  std::optional<bool> IsInUse(MmuKind kind) const;
  // The arrays of the model whose MMUs an ageing asks.
  std::vector<size_t> Asked(FastOnly fast_only) const;

  // The memslots, also those that are deleted at present.
  const std::vector<MemslotConfig>& slots() const { return slots_; }
  static GfnRange RangeOf(const MemslotConfig& slot);
  bool IsThere(size_t slot) const { return there_[slot]; }
  // Whether each page of `range` is in a memslot.
  bool Covers(GfnRange range) const;

  // One access, after a flush of the vCPU's translations: so it marks the page
  // as accessed.
  void Use(Gfn gfn, AccessKind kind);
  // L2's pages; one access to one. None without MmuMode::kNested.
  size_t l2_pages() const { return l2_pages_.size(); }
  void UseInL2(size_t page, AccessKind kind);

  void Split(GfnRange range);
  void Recover(GfnRange range);
  // The host takes the pages of a part of a slot away.
  void HostUnmaps(size_t slot, GfnRange range);
  bool MayGo(size_t slot) const { return !nested() || slot >= 2; }
  void DeleteSlot(size_t slot);
  void CreateSlot(size_t slot);

  // The leafs of the model that are not in the tables, and those of the tables
  // that are not in the model; "" if there are none.
  std::string WhyNotInStep();

 private:
  // One of the arrays of the model. A value.
  struct Array {
    MmuKind kind;
    uint64_t leaf_pages = 0;  // of its leafs; 0: of any size
  };
  struct L2Page {
    Gpa nested;
    Gfn frame;
  };

  static std::vector<Array> ArraysOf(const Vm& vm);
  bool nested() const { return vm_->config().mmu == MmuMode::kNested; }
  void RunL2();
  void ForgetTranslations();
  // What becomes young if a young huge leaf of L2 is split: small leafs below
  // it. A value.
  struct SmallLeafs {
    size_t huge_array = 0;
    size_t array = 0;
    std::vector<Gfn> gfns;
  };
  std::vector<SmallLeafs> HeirsOfYoungLeafs();
  // The array of the shadow MMU for this size.
  size_t ArrayOf(Level level) const;
  // The leafs of the tables that belong in an array of the model.
  std::vector<GfnRange> LeafsFor(size_t array, GfnRange range);
  // The model takes over the leafs of the tables.
  void Follow(size_t array, GfnRange range, AgeModel::NewLeaf new_leaf);
  void FollowAll(AgeModel::NewLeaf new_leaf);
  // The MMU has mapped `gfn` by `leaf` for an access.
  void FollowAccess(MmuKind kind, GfnRange leaf, Gfn gfn);

  const std::vector<MemslotConfig> slots_;
  std::vector<bool> there_;
  const Gfn end_;
  const std::unique_ptr<Vm> vm_;
  const std::vector<Array> arrays_;
  AgeModel model_;
  // With MmuMode::kNested.
  std::optional<L1Processor> cpu_;
  std::optional<L1Hypervisor> l1_;
  std::vector<L2Page> l2_pages_;
};

}  // namespace mmu::testing

#endif  // MMU_CORE_TESTING_AGED_GUEST_H_

// The stage 2 of one VM, of any granule.

#ifndef MMU_CORE_STAGE2_STAGE2_H_
#define MMU_CORE_STAGE2_STAGE2_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>
#include <variant>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu_core/base/arm_geometry.h"
#include "mmu_core/base/table_geometry.h"
#include "mmu_core/memory/memslot_table.h"
#include "mmu_core/mmu/mmu.h"
#include "mmu_core/paging/table_budget.h"
#include "mmu_core/stage2/any_granule.h"
#include "mmu_core/stage2/s2_root.h"
#include "mmu_core/stage2/stage2_slot_ops.h"
#include "mmu_core/stage2/stage2_state.h"

namespace mmu {

// Thread-safe as Stage2State is.
class Stage2 {
 public:
  // `shape` and `granule_bytes` fit each other. Errors: as S2Root::Create.
  static absl::StatusOr<std::unique_ptr<Stage2>> Create(
      const Stage2Parts& parts, uint32_t granule_bytes,
      const Stage2Options& options, uint64_t eager_split_chunk_bytes) {
    absl::StatusOr<std::unique_ptr<Stage2>> made;
    WithGranule(granule_bytes, [&]<typename G>() {
      absl::StatusOr<std::unique_ptr<S2Root<G>>> root =
          S2Root<G>::Create(options.shape.root_tables, TableBudget::Process());
      if (!root.ok()) {
        made = root.status();
        return;
      }
      made = std::unique_ptr<Stage2>(new Stage2(
          std::make_unique<Stage2State<G>>(parts, options, *std::move(root)),
          eager_split_chunk_bytes));
    });
    return made;
  }

  // REQUIRES: G is the granule of the VM.
  template <TableGeometry G>
  Stage2State<G>& of() {
    return *std::get<std::unique_ptr<Stage2State<G>>>(state_);
  }

  // The stage 2 as one of the MMUs of the VM.
  std::unique_ptr<Mmu> MakeSlotOps(const MemslotTable& slots) {
    return std::visit(
        [&]<typename State>(std::unique_ptr<State>& state) {
          return MakeSlotOpsOf(*state, slots);
        },
        state_);
  }

  // The size of a piece of an eager split; 0: off. Changed under slots_lock.
  std::atomic<uint64_t>& eager_split_chunk_bytes() { return chunk_bytes_; }

 private:
  template <TableGeometry G>
  Stage2(std::unique_ptr<Stage2State<G>> state, uint64_t chunk_bytes)
      : state_(std::move(state)), chunk_bytes_(chunk_bytes) {}

  template <TableGeometry G>
  std::unique_ptr<Mmu> MakeSlotOpsOf(Stage2State<G>& state,
                                     const MemslotTable& slots) {
    return std::make_unique<Stage2SlotOps<G>>(typename Stage2SlotOps<G>::Parts{
        .stage2 = state, .slots = slots, .chunk_bytes = chunk_bytes_});
  }

  std::variant<std::unique_ptr<Stage2State<Arm4K>>,
               std::unique_ptr<Stage2State<Arm16K>>,
               std::unique_ptr<Stage2State<Arm64K>>>
      state_;
  std::atomic<uint64_t> chunk_bytes_;
};

}  // namespace mmu

#endif  // MMU_CORE_STAGE2_STAGE2_H_

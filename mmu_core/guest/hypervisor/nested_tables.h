// The tables that a hypervisor in L1 builds for its guest in L1's memory:
// finding, setting and splitting entries, with loads and stores.

#ifndef MMU_CORE_GUEST_HYPERVISOR_NESTED_TABLES_H_
#define MMU_CORE_GUEST_HYPERVISOR_NESTED_TABLES_H_

#include <cstdint>
#include <optional>

#include "absl/functional/function_ref.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest/kernel/frame_allocator.h"
#include "mmu_core/guest/kernel/physical_memory.h"
#include "mmu_core/guest_paging/guest_entry.h"
#include "mmu_core/guest_paging/guest_walker.h"

namespace mmu {

// Bits of entries. A value; the only formats are kEpt (SDM vol. 3, tables 29-1
// to 29-7) and kNpt (APM vol. 2, 15.25).
struct NestedEntryFormat {
  uint64_t present = 0;  // an entry with any of these is present
  uint64_t write = 0;
  uint64_t rights = 0;  // all bits that decide about rights
  uint64_t full = 0;    // the `rights` of a full grant
  uint64_t leaf = 0;    // further bits of a leaf: the memory type
  uint64_t accessed = 0;
  uint64_t dirty = 0;

  static const NestedEntryFormat kEpt;
  static const NestedEntryFormat kNpt;
  // REQUIRES: kEpt or kNpt.
  static const NestedEntryFormat& Of(GuestTables tables);
};

inline constexpr NestedEntryFormat NestedEntryFormat::kEpt = {
    .present =
        guest_entry::kEptRead | guest_entry::kEptWrite | guest_entry::kEptExec,
    .write = guest_entry::kEptWrite,
    .rights =
        guest_entry::kEptRead | guest_entry::kEptWrite | guest_entry::kEptExec,
    .full =
        guest_entry::kEptRead | guest_entry::kEptWrite | guest_entry::kEptExec,
    .leaf = uint64_t{6} << guest_entry::kEptMemoryTypeShift,  // write-back
    .accessed = guest_entry::kEptAccessed,
    .dirty = guest_entry::kEptDirty};
inline constexpr NestedEntryFormat NestedEntryFormat::kNpt = {
    .present = guest_entry::kPresent,
    .write = guest_entry::kWritable,
    .rights = guest_entry::kPresent | guest_entry::kWritable |
              guest_entry::kUser | guest_entry::kNx,
    .full = guest_entry::kPresent | guest_entry::kWritable | guest_entry::kUser,
    .leaf = 0,
    .accessed = guest_entry::kAccessed,
    .dirty = guest_entry::kDirty};

inline const NestedEntryFormat& NestedEntryFormat::Of(GuestTables tables) {
  MMU_CHECK(tables != GuestTables::kLegacy);
  return tables == GuestTables::kEpt ? kEpt : kNpt;
}

// An entry and its address. A value.
struct NestedPte {
  Gpa where;
  Level level = Level::k4K;
  uint64_t value = 0;
  bool present = false;

  bool leaf() const {
    return level == Level::k4K || (value & guest_entry::kPageSize) != 0;
  }
  // L1's frame of the page or table.
  Gfn gfn() const { return ToGfn(Gpa(value & guest_entry::kAddress)); }
};

// Tables are added as needed; the caller frees them when it has unlinked them.
// The caller also invalidates the processors' translations of changed entries.
// Thread-compatible: on several processors, each has an object of its own for
// the same root, and L1's lock is held.
class NestedTables {
 public:
  // `root_level`: k512G or k256T.
  NestedTables(const NestedEntryFormat& format, Level root_level,
               PhysicalMemory& memory, FrameAllocator& frames)
      : format_(format),
        root_level_(root_level),
        memory_(memory),
        frames_(frames) {}

  // Makes an empty root. False: no memory.
  bool Create();
  // Uses a root that another object made, perhaps on another processor.
  void Adopt(Gpa root) { root_ = ToGfn(root); }
  // REQUIRES: there is a root.
  Gpa root() const { return ToGpa(*root_); }
  // The first address that the tables do not translate.
  Gpa end() const { return Gpa(BytesPer(root_level_) * kEntriesPerTable); }

  // The entry at which the walk for `nested` ends: a leaf or the first
  // non-present entry. The walk does not go below `lowest`, where the entry may
  // also be a link to a table.
  NestedPte Find(Gpa nested, Level lowest = Level::k4K);
  // Sets the entry of `level` for `nested` to `value`. False if there was no
  // memory for a table above it, or if memory accesses have failed. REQUIRES:
  // no large page maps `nested` above `level`.
  bool Set(Gpa nested, Level level, uint64_t value);
  void Store(const NestedPte& pte, uint64_t value);
  // A leaf of this format for the page at `gfn`.
  uint64_t MakeLeaf(Gfn gfn, Level level, uint64_t rights) const;

  // Replaces the large page at `pte` by a table of pages one level smaller with
  // the same translations, and with `more` bits set. False: no memory.
  bool Split(const NestedPte& pte, uint64_t more = 0);
  // Entry `index` of the table that `link` points at.
  NestedPte Child(const NestedPte& link, int index);

  // Calls fn(nested, pte) for each present leaf, in order.
  void ForEachLeaf(absl::FunctionRef<void(Gpa, const NestedPte&)> fn);

 private:
  NestedPte Read(Gfn table, Level level, int index);
  void Visit(Gfn table, Level level, Gpa start,
             absl::FunctionRef<void(Gpa, const NestedPte&)> fn);
  std::optional<Gfn> NewTable();

  const NestedEntryFormat format_;
  const Level root_level_;
  PhysicalMemory& memory_;
  FrameAllocator& frames_;
  std::optional<Gfn> root_;
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_HYPERVISOR_NESTED_TABLES_H_

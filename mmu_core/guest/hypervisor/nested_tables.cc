#include "mmu_core/guest/hypervisor/nested_tables.h"

#include "mmu_core/base/check.h"

namespace mmu {

bool NestedTables::Create() {
  root_ = NewTable();
  return root_.has_value();
}

NestedPte NestedTables::Find(Gpa nested, Level lowest) {
  Gfn table = *root_;
  for (Level level = root_level_;; level = ChildOf(level)) {
    const NestedPte pte = Read(table, level, IndexOf(ToGfn(nested), level));
    if (!pte.present || pte.leaf() || level == lowest) return pte;
    table = pte.gfn();
  }
}

bool NestedTables::Set(Gpa nested, Level level, uint64_t value) {
  while (memory_.status().ok()) {
    // Walk down to the entry, adding missing tables.
    const NestedPte pte = Find(nested, level);
    if (pte.level == level) {
      Store(pte, value);
      return true;
    }
    if (pte.present) return false;  // a large page is in the way
    const std::optional<Gfn> below = NewTable();
    if (!below.has_value()) return false;
    // Table entries grant all rights; only leafs restrict.
    Store(pte, ToGpa(*below).value() | format_.full);
  }
  return false;
}

void NestedTables::Store(const NestedPte& pte, uint64_t value) {
  memory_.Store(pte.where, 8, value);
}

uint64_t NestedTables::MakeLeaf(Gfn gfn, Level level, uint64_t rights) const {
  return ToGpa(gfn).value() | rights | format_.leaf |
         (level == Level::k4K ? 0 : guest_entry::kPageSize);
}

bool NestedTables::Split(const NestedPte& pte, uint64_t more) {
  if (pte.level == Level::k4K || !pte.leaf()) return false;
  const std::optional<Gfn> table = NewTable();
  if (!table.has_value()) return false;
  const Level below = ChildOf(pte.level);
  uint64_t value = pte.value | more;
  if (below == Level::k4K) value &= ~guest_entry::kPageSize;
  for (int i = 0; i < kEntriesPerTable; ++i) {
    memory_.Store(ToGpa(*table) + static_cast<uint64_t>(i) * 8, 8,
                  value + static_cast<uint64_t>(i) * BytesPer(below));
  }
  Store(pte,
        ToGpa(*table).value() | format_.full | (pte.value & format_.accessed));
  return true;
}

NestedPte NestedTables::Child(const NestedPte& link, int index) {
  return Read(link.gfn(), ChildOf(link.level), index);
}

void NestedTables::ForEachLeaf(
    absl::FunctionRef<void(Gpa, const NestedPte&)> fn) {
  Visit(*root_, root_level_, Gpa(0), fn);
}

NestedPte NestedTables::Read(Gfn table, Level level, int index) {
  NestedPte pte;
  pte.where = ToGpa(table) + static_cast<uint64_t>(index) * 8;
  pte.level = level;
  pte.value = memory_.Load(pte.where, 8);
  pte.present = (pte.value & format_.present) != 0;
  return pte;
}

void NestedTables::Visit(Gfn table, Level level, Gpa start,
                         absl::FunctionRef<void(Gpa, const NestedPte&)> fn) {
  Gpa nested = start;
  for (int i = 0; i < kEntriesPerTable; ++i, nested += BytesPer(level)) {
    const NestedPte pte = Read(table, level, i);
    if (!pte.present) continue;
    if (pte.leaf()) {
      fn(nested, pte);
    } else {
      Visit(pte.gfn(), ChildOf(level), nested, fn);
    }
  }
}

std::optional<Gfn> NestedTables::NewTable() {
  const std::optional<FrameAllocator::Frame> frame = frames_.Allocate();
  if (!frame.has_value()) return std::nullopt;
  if (frame->recycled) memory_.ZeroPage(frame->gfn);
  return frame->gfn;
}

}  // namespace mmu

#include "mmu_core/guest/hypervisor/l1_hypervisor.h"

#include <string>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/format.h"
#include "mmu_core/guest/hypervisor/l1_entry_bits.h"
#include "mmu_core/guest_paging/control_registers.h"
#include "mmu_core/guest_paging/guest_entry.h"

namespace mmu {

absl::Status L1Hypervisor::Memory::Access(Gpa gpa, int size_bytes,
                                          AccessKind kind, uint64_t* word) {
  if (cpu_.Access(gpa, size_bytes, kind, word)) return absl::OkStatus();
  return cpu_.status();
}

L1Hypervisor::L1Hypervisor(L1Cpu& cpu, const GpaSpace& memory,
                           const L1HypervisorOptions& options)
    : L1Hypervisor(cpu, std::make_unique<L1Shared>(memory, options, /*cpus=*/1,
                                                   /*guests=*/1)) {}

L1Hypervisor::L1Hypervisor(L1Cpu& cpu, std::unique_ptr<L1Shared> shared)
    : own_(std::move(shared)),
      cpu_(cpu),
      shared_(*own_),
      index_(0),
      options_(shared_.options),
      format_(NestedEntryFormat::Of(options_.tables)),
      memory_(cpu) {}

L1Hypervisor::L1Hypervisor(L1Cpu& cpu, L1Shared& shared, int index)
    : cpu_(cpu),
      shared_(shared),
      index_(index),
      options_(shared.options),
      format_(NestedEntryFormat::Of(options_.tables)),
      memory_(cpu) {}

absl::Status L1Hypervisor::Boot() {
  for (Gpa& root : shared_.roots) {
    NestedTables tables(format_, options_.root_level, memory_, shared_.frames);
    if (!tables.Create()) return Exhausted();
    root = tables.root();
  }
  Select(0);
  return memory_.status();
}

void L1Hypervisor::Select(int guest) {
  if (tables_.has_value() && guest == guest_) return;
  Leave();
  guest_ = guest;
  tables_.emplace(format_, options_.root_level, memory_, shared_.frames);
  tables_->Adopt(shared_.roots[static_cast<size_t>(guest)]);
}

// --- L2 runs. ---

absl::Status L1Hypervisor::Access(Gpa nested, AccessKind kind, uint64_t* word) {
  return Access(nested, kind, word, Refusal::kFails);
}

absl::Status L1Hypervisor::AccessGranting(Gpa nested, AccessKind kind,
                                          uint64_t* word) {
  return Access(nested, kind, word, Refusal::kGrants);
}

absl::Status L1Hypervisor::Access(Gpa nested, AccessKind kind, uint64_t* word,
                                  Refusal refusal) {
  const NestedAccess access = {.nested_gpa = nested, .kind = kind};
  if (absl::Status s = CheckRange(nested, 8); !s.ok()) return s;
  return Execute(nullptr, refusal, [&](L1Cpu& cpu, NestedExit* exit) {
    return cpu.L2Access(access, word, exit);
  });
}

absl::Status L1Hypervisor::Run(L2Vcpu& vcpu, Instruction instruction) {
  Select(vcpu.guest);
  return Execute(&vcpu, Refusal::kGrants, instruction);
}

absl::Status L1Hypervisor::Execute(L2Vcpu* vcpu, Refusal refusal,
                                   Instruction instruction) {
  NestedExit exit;
  for (int exits = 0; exits < kMaxExits; ++exits) {
    Enter(vcpu);
    switch (instruction(cpu_, &exit)) {
      case L1Cpu::Outcome::kDone:
        return absl::OkStatus();
      case L1Cpu::Outcome::kError:
        Leave();
        return cpu_.status();
      case L1Cpu::Outcome::kExit:
        in_l2_ = false;
        shared_.shootdown.Leave(index_);
        ++stats_.exits;
        absl::Status status = WithLock([&] { return HandleExit(exit); });
        if (refusal == Refusal::kGrants && absl::IsPermissionDenied(status)) {
          status =
              Protect(ToGpa(ToGfn(exit.nested_gpa)), kPageSize, Rights::kAll);
        }
        if (!status.ok()) return status;
    }
  }
  return absl::InternalError(
      Format("nested gpa 0x%x exits again and again, whatever L1 does: "
             "its tables are not in the memory that it had",
             exit.nested_gpa.value()));
}

void L1Hypervisor::Enter(L2Vcpu* vcpu) {
  L1Shootdown& shootdown = shared_.shootdown;
  const bool arrives = vcpu != nullptr && vcpu->last_cpu != index_;
  if (in_l2_) {
    const bool interrupted = shootdown.IsBehind(index_, guest_);
    if (!interrupted && !arrives) return;
    // The interrupt of another processor.
    if (interrupted) ++stats_.interrupts;
    Leave();
  }
  shootdown.Enter(index_, guest_);
  const uint64_t generation = shootdown.Generation(guest_);
  if (shootdown.IsBehind(index_, guest_)) Invalidate();
  if (arrives) {
    InvalidateVpid();
    vcpu->last_cpu = index_;
    ++stats_.arrivals;
  }
  cpu_.EnterL2(Paging());
  // A flush of the ASID happens at the entry.
  shootdown.Invalidated(index_, guest_, generation);
  in_l2_ = true;
}

void L1Hypervisor::Invalidate() {
  ++stats_.invalidations;
  if (options_.tables == GuestTables::kNpt) {
    cpu_.FlushAsid();
  } else if (options_.invept == L1HypervisorOptions::Invept::kGlobal) {
    cpu_.InveptGlobal();
  } else {
    cpu_.InveptSingleContext(tables_->root());
  }
}

void L1Hypervisor::InvalidateVpid() {
  if (options_.tables == GuestTables::kNpt) {
    cpu_.FlushAsid();
  } else {
    cpu_.InvalidateVpid(Invvpid::kSingleContext, Vpid(), Gva(0));
  }
}

NestedPaging L1Hypervisor::Paging() const {
  NestedPaging paging = {.tables = options_.tables,
                         .asid = Vpid(),
                         .root = tables_->root(),
                         .ept = {.root_level = options_.root_level,
                                 .ad_bits = options_.ad_bits,
                                 .exec_only = options_.exec_only},
                         .l1 = {}};
  paging.l1.cr0 = kCr0Pg | kCr0Wp;
  paging.l1.cr4 =
      kCr4Pae | (options_.root_level == Level::k256T ? kCr4La57 : 0);
  paging.l1.efer = kEferLma | kEferNx;
  return paging;
}

void L1Hypervisor::Leave() {
  if (!std::exchange(in_l2_, false)) return;
  cpu_.LeaveL2();
  shared_.shootdown.Leave(index_);
}

absl::Status L1Hypervisor::WithLock(absl::FunctionRef<absl::Status()> fn) {
  Leave();
  while (!shared_.lock.TryLock()) cpu_.Pause();
  const absl::Cleanup unlock = [this] { shared_.lock.Unlock(); };
  if (shared_.lost.load() && memory_.status().ok()) {
    return absl::AbortedError(
        "another processor of L1 stopped in the middle of a change");
  }
  absl::Status status = fn();
  if (memory_.status().ok()) return status;
  shared_.lost.store(true);
  return memory_.status();
}

absl::Status L1Hypervisor::Shootdown() {
  const uint64_t generation = shared_.shootdown.Ask(guest_);
  while (!shared_.shootdown.IsDone(index_, guest_, generation)) cpu_.Pause();
  return memory_.status();
}

absl::Status L1Hypervisor::HandleExit(const NestedExit& exit) {
  // L2 may access any address.
  if (absl::Status s = CheckRange(exit.nested_gpa, 1); !s.ok()) return s;
  const NestedPte pte = tables_->Find(exit.nested_gpa);
  if (exit.fault.kind == GuestFault::Kind::kEptMisconfiguration ||
      (exit.fault.kind == GuestFault::Kind::kNestedPageFault &&
       (exit.fault.code & kPferrReserved) != 0)) {
    return absl::InternalError(Format(
        "the processor takes the entry 0x%x for nested gpa 0x%x for a bad one",
        pte.value, exit.nested_gpa.value()));
  }
  if (!pte.present) return MapFresh(exit.nested_gpa);
  const bool npt = options_.tables == GuestTables::kNpt;
  const uint64_t value = pte.value;
  bool allowed = true;
  // A read of an entry of L2's own tables may count as a write (SDM vol. 3,
  // 29.3.3.2; APM vol. 2, 15.25.5); then the fault's code says so.
  const uint64_t write_bit = npt ? kPferrWrite : kEptViolationWrite;
  const bool writes = (exit.fault.code & write_bit) != 0;
  switch (writes ? AccessKind::kWrite : exit.kind) {
    case AccessKind::kWrite:
      if ((value & kTracked) != 0) {
        // No INVEPT: the new entry only adds a right, and the violation itself
        // has invalidated the processor's translation.
        tables_->Store(pte, (value & ~kTracked) | format_.write);
        return absl::OkStatus();
      }
      allowed = (value & format_.write) != 0;
      break;
    case AccessKind::kRead:
      allowed = npt || (value & guest_entry::kEptRead) != 0;
      break;
    case AccessKind::kExec:
      allowed = npt ? (value & guest_entry::kNx) == 0
                    : (value & guest_entry::kEptExec) != 0;
      break;
  }
  if (!allowed) {
    return absl::PermissionDeniedError(Format(
        "L2's %s at nested gpa 0x%x: the entry 0x%x does not grant it",
        std::string(ToString(exit.kind)), exit.nested_gpa.value(), value));
  }
  // The processor's translation was stale; the exit has invalidated it.
  return absl::OkStatus();
}

absl::Status L1Hypervisor::MapFresh(Gpa nested) {
  for (Level level = options_.max_page; level > Level::k4K;
       level = ChildOf(level)) {
    if (MapLarge(nested, level)) return absl::OkStatus();
  }
  const std::optional<FrameAllocator::Frame> frame = shared_.frames.Allocate();
  if (!frame.has_value()) return Exhausted();
  if (frame->recycled) memory_.ZeroPage(frame->gfn);
  if (!tables_->Set(nested, Level::k4K,
                    tables_->MakeLeaf(frame->gfn, Level::k4K, format_.full))) {
    shared_.frames.Drop(frame->gfn);
    return Exhausted();
  }
  ++stats_.demand_pages;
  return absl::OkStatus();
}

bool L1Hypervisor::MapLarge(Gpa nested, Level level) {
  // An entry below `level` means that smaller pages are mapped beside it.
  if (tables_->Find(nested).level < level) return false;
  const std::optional<Gfn> first = shared_.frames.AllocateRun(PagesPer(level));
  if (!first.has_value()) return false;
  if (!tables_->Set(nested, level,
                    tables_->MakeLeaf(*first, level, format_.full))) {
    for (uint64_t i = 0; i < PagesPer(level); ++i)
      shared_.frames.Drop(*first + i);
    return false;
  }
  ++stats_.large_pages;
  ++stats_.demand_pages;
  return true;
}

// --- Helpers. ---

absl::Status L1Hypervisor::Exhausted() const {
  // A failed access of the host must not be reported as exhausted memory.
  if (!memory_.status().ok()) return memory_.status();
  return absl::ResourceExhaustedError(
      "L1's memory is used up; give it more, or unmap some of L2's");
}

absl::Status L1Hypervisor::CheckRange(Gpa nested, uint64_t bytes) const {
  const uint64_t end = tables_->end().value();
  if (nested.value() < end && bytes <= end - nested.value() &&
      (bytes < kPageSize ||
       (IsPageAligned(nested.value()) && IsPageAligned(bytes)))) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      Format("nested gpa 0x%x, %d bytes: L2 has whole pages below 0x%x",
             nested.value(), bytes, end));
}

uint64_t L1Hypervisor::BitsOf(Rights rights) const {
  const bool npt = options_.tables == GuestTables::kNpt;
  switch (rights) {
    case Rights::kAll:
      return format_.full;
    case Rights::kReadExec:
      return format_.full & ~format_.write;
    case Rights::kRead:
      return npt ? (format_.full & ~format_.write) | guest_entry::kNx
                 : guest_entry::kEptRead;
    case Rights::kExec:
      return guest_entry::kEptExec;
  }
  return 0;
}

}  // namespace mmu
